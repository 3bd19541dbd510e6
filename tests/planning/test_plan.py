"""A plan follows from run file, sizes and what was said: counts by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.config import Config
from limbeck.errors import ConfigError
from limbeck.planning.model import Plan, PlannedTask
from limbeck.planning.rates import Prices, load_rates
from limbeck.planning.sizes import read_model
from limbeck.planning.speed import sampling_seconds
from limbeck.planning.workload import Model, Sampled
from limbeck.preflight.memory import GIB
from limbeck.preflight.places import Place
from tests.planning.conftest import FOLDERS, GIVEN, of

Planned = Callable[..., Plan]
WITHOUT_VALIDATION = 7473 - 500


def test_tokens_of_every_task_follow_from_the_settings(planned: Planned) -> None:
    plan = planned()
    counted = {
        task.task: (task.prompt_tokens, task.completion_tokens, task.trained_tokens) for task in plan.tasks
    }
    answers = 7473 * 10
    assert counted["generate teacher"] == (7473 * 200, answers * 150, 0)
    # Of a judge's question the prompt is computed once, each answer and the last words each time.
    assert counted["judge"] == (7473 * 200 + answers * (150 + 40), answers, 0)
    assert counted["sft selected"] == (0, 0, WITHOUT_VALIDATION * 10 // 2 * 2 * 350)
    assert counted["sft all"] == (0, 0, WITHOUT_VALIDATION * 10 * 2 * 350)
    assert counted["generate student"] == (7473 * 200, 7473 * 30 * 150, 0)
    # The student's rows are three times the teacher's: as many updates as they fill halves of.
    updates = -(-WITHOUT_VALIDATION * 30 // 32)
    assert counted["reward"] == (0, 0, updates * 64 * 350)
    # 200 rounds of 256; 11 validations of 500 prompts with 2 answers each.
    rollouts, validated = 200 * 256, 11 * 500 * 2
    prompt, completion, trained = counted["ppo model"]
    assert prompt == rollouts * 200 + 11 * 500 * 200
    assert completion == (rollouts + validated) * 150
    # Two passes; the policy waits for ten rounds. The reward model and log-probabilities are not trained.
    assert trained == rollouts * 350 + rollouts * 350 * 190 // 200
    assert counted["evaluate teacher"] == (1319 * 200, 1319 * 9 * 150, 0)


@pytest.mark.parametrize(
    ("pipeline", "tasks"),
    [
        (
            "distill",
            [
                "prepare", "generate teacher", "judge", "label teacher", "sft selected", "sft all",
                "generate student", "label student", "reward", "ppo model", "ppo mixed", "evaluate teacher",
                "evaluate student", "evaluate sft_selected", "evaluate sft_all", "evaluate ppo_model",
                "evaluate ppo_mixed", "report",
            ],
        ),
        (
            "distill_data",
            [
                "prepare", "generate teacher", "judge", "label teacher", "sft selected", "sft all",
                "evaluate teacher", "evaluate student", "evaluate sft_selected", "evaluate sft_all", "report",
            ],
        ),
        (
            "distill_rewards",
            [
                "generate student", "label student", "reward", "ppo model", "ppo mixed",
                "evaluate sft_selected", "evaluate ppo_model", "evaluate ppo_mixed", "report",
            ],
        ),
        (
            "distill_open",
            [
                "prepare", "generate teacher", "judge", "label teacher", "sft selected", "sft all",
                "generate student", "judge student", "label student", "reward", "ppo model",
                "evaluate teacher", "evaluate student", "evaluate sft_selected", "evaluate sft_all",
                "evaluate ppo_model", "report",
            ],
        ),
    ],
)  # fmt: skip
def test_the_tasks_are_those_of_the_pipeline(pipeline: str, tasks: list[str], planned: Planned) -> None:
    assert [task.task for task in planned(pipeline).tasks] == tasks


VARIANT = "ppo.num_updates=100,reward.deepspeed.lora_rank=16"


def test_an_ablation_has_the_tasks_of_its_rows_as_well(planned: Planned) -> None:
    variants = {"reward_variants": [VARIANT], "noise_variants": ["label.noise=0.2"]}
    plan, alone = planned("ablation", **variants), planned("distill")
    num_alone = len(alone.tasks)
    assert plan.tasks[:num_alone] == alone.tasks
    more = {task.task: task for task in plan.tasks[num_alone:]}
    longer = next(name for name in more if name.startswith("evaluate sft_selected@sft.num_epochs="))
    assert set(more) == {
        "sft teacher_selected", "evaluate teacher_selected", "sft at equal compute", longer, "label gold",
        "ppo gold", "evaluate ppo_agreement@label.rule=gold,label.calibrate=none",
        f"reward {VARIANT}", f"ppo model {VARIANT}", f"evaluate ppo_model@{VARIANT}",
        "noise label.noise=0.2", "reward label.noise=0.2", "ppo model label.noise=0.2",
        "evaluate ppo_model@label.noise=0.2", "compare rows",
    }  # fmt: skip
    whole, half = of(plan, "ppo model"), more[f"ppo model {VARIANT}"]
    # 100 of 200 rounds, of which ten teach the critic alone.
    assert half.trained_tokens == 100 * 256 * 350 + 100 * 256 * 350 * 90 // 100
    assert more["ppo model label.noise=0.2"].trained_tokens == whole.trained_tokens
    # Adapters alone have moments.
    assert more[f"reward {VARIANT}"].certain_bytes < of(plan, "reward").certain_bytes / 3
    assert more["reward label.noise=0.2"].certain_bytes == of(plan, "reward").certain_bytes
    # The teacher has 6.5 times the student's weights, and learns the same rows.
    tuned, warmed_up = more["sft teacher_selected"], of(plan, "sft selected")
    assert tuned.trained_tokens == warmed_up.trained_tokens
    assert tuned.certain_bytes > 6 * warmed_up.certain_bytes
    # SFT alone at the FLOPs of SFT, reward model and PPO: more than what the latter two train.
    assert more["sft at equal compute"].trained_tokens > 3 * warmed_up.trained_tokens


def test_the_judge_of_open_questions_has_the_students_answers_and_the_held_out_ones(
    planned: Planned,
) -> None:
    own = ["model", "mixed", "agreement"]  # the default: this pipeline takes no choice
    plan = planned("distill_open", task={"kind": "open"}, label={"rule": "judge"}, ppo_rewards=own)
    assert plan.findings == ()
    student = of(plan, "judge student")
    assert student.prompt_tokens == 7473 * 200 + 7473 * 30 * (150 + 40)
    assert student.num_tasks == of(plan, "generate student").num_tasks
    held_out = of(plan, "evaluate student")
    answers = 1319 * 9
    assert held_out.prompt_tokens == 2 * 1319 * 200 + answers * (150 + 40)
    assert held_out.completion_tokens == answers * 150 + answers
    # The larger of both engines, which run one after another.
    assert held_out.memory == of(plan, "evaluate teacher").memory
    assert held_out.seconds is not None
    alone = of(planned(), "evaluate student").seconds
    assert alone is not None
    assert held_out.seconds > alone


def test_a_black_box_that_judges_held_out_answers_costs_its_tokens(planned: Planned) -> None:
    server = {
        "base_url": "https://api.test/v1",
        "prompt_price": 1.0,
        "completion_price": 2.0,
        "price_source": "x",
    }
    config = _config_of(
        openai=server, teacher={"sampler": "openai"}, task={"kind": "open"}, label={"rule": "judge"}
    )
    plan = planned("distill_open", teacher="big-1", config=config)
    answers = 1319 * (Config().evaluate.samples_per_prompt + 1)
    assert of(plan, "evaluate student").api_cost == pytest.approx(answers * (200 + 150 + 40 + 2 * 1) / 1e6)
    # The teacher's own answers are paid as well.
    assert of(plan, "evaluate teacher").api_cost == pytest.approx(
        answers * (200 + 2 * 150 + 200 + 150 + 40 + 2 * 1) / 1e6
    )


def test_models_that_are_only_evaluated_are_called_by_their_folders(planned: Planned) -> None:
    folders = list(FOLDERS.values())
    plan = planned("evaluate", models=folders, teacher="", prompts="", heldout="x")
    names = [task.name for task in plan.tasks if task.stage == "evaluate"]
    assert names == [Path(folder).name for folder in folders]
    # `prepare` makes no prompts to train on then, and the report is told of the held-out ones alone.
    assert of(plan, "prepare").name == "heldout"
    assert of(planned(), "prepare").name == "prompts"
    assert of(plan, f"evaluate {names[0]}").memory["weights"] == 2 * 8_030_261_248


def test_a_pipeline_with_tasks_of_its_own_is_refused(planned: Planned) -> None:
    with pytest.raises(ConfigError, match="tasks of this pipeline are not known"):
        planned("tests/small_pipeline.yaml")


def test_a_part_of_a_gpu_counts_with_its_own_memory(planned: Planned) -> None:
    assert planned(engine={"gpu_memory_gib": 20}).gpu_memory_gib == 20
    assert planned(engine={"gpu_memory_gib": 80}, gpu="L4").gpu_memory_gib == 22.5


def test_money_is_hours_times_the_price(planned: Planned) -> None:
    prices = Prices(currency="EUR", source="a list", gpu_hour={"H100": 2.0}, storage_gb_month=0.02)
    plan = planned(prices=prices)
    assert plan.cost == pytest.approx(2.0 * plan.gpu_hours)
    assert plan.storage_cost == pytest.approx(0.02 * plan.bytes / 1e9)
    assert planned().cost is None
    with pytest.raises(ConfigError, match="no price of this GPU"):
        planned(prices=prices, gpu="L4")


def test_gpu_hours_are_those_of_all_shards_and_all_their_gpus(planned: Planned) -> None:
    task = of(planned(num_shards=4, gpus=2, engine={"tensor_parallel_size": 2}), "judge")
    assert task.seconds is not None
    assert task.gpu_hours == pytest.approx(task.seconds * 4 * 2 / 3600)


def test_shards_share_the_time_and_not_the_work(planned: Planned) -> None:
    one, four = (of(planned(num_shards=shards), "generate teacher") for shards in (1, 4))
    assert one.seconds is not None
    assert four.seconds == pytest.approx(one.seconds / 4)
    assert four.gpu_hours == pytest.approx(one.gpu_hours)
    assert four.flops == one.flops


@pytest.mark.parametrize("more", [{"processes": 4}, {"nodes": 4, "processes": 1}], ids=["GPUs", "nodes"])
def test_a_training_shares_its_time_and_its_memory_over(planned: Planned, more: dict[str, int]) -> None:
    def task(gpus: int, **deepspeed: int) -> PlannedTask:
        return of(planned(gpus=gpus, sft={"deepspeed": {"zero_stage": 3, **deepspeed}}), "sft selected")

    one, four = task(1), task(4 // more.get("nodes", 1), **more)
    assert one.seconds is not None
    assert four.seconds == pytest.approx(one.seconds / 4)
    assert four.gpu_hours == pytest.approx(one.gpu_hours)
    assert four.memory_bytes < one.memory_bytes / 2


def test_accepted_completions_for_a_gpu_hour(planned: Planned) -> None:
    plan = planned(given=replace(GIVEN, accepted_share=0.25))
    hours = of(plan, "generate teacher").gpu_hours + of(plan, "judge").gpu_hours
    assert plan.accepted == WITHOUT_VALIDATION * 10 * 0.25
    assert plan.accepted_per_gpu_hour == pytest.approx(plan.accepted / hours)


def test_a_run_without_gpus_has_tokens_and_no_times(planned: Planned) -> None:
    plan = planned(gpus=0)
    task = of(plan, "generate teacher")
    assert task.completion_tokens == 7473 * 10 * 150
    assert (task.seconds, task.fits, task.memory) == (None, None, {})
    assert plan.gpu_hours == 0
    assert plan.accepted_per_gpu_hour is None
    assert any(note.startswith("no time is known of generate teacher, judge") for note in plan.assumptions)


def test_a_black_box_costs_its_tokens_and_no_gpu(planned: Planned) -> None:
    server = {
        "base_url": "https://api.test/v1",
        "prompt_price": 1.0,
        "completion_price": 2.0,
        "price_source": "x",
    }
    plan = planned(teacher="big-1", config=_config_of(openai=server, teacher={"sampler": "openai"}))
    task = of(plan, "generate teacher")
    # Every answer is sent its prompt.
    assert (task.prompt_tokens, task.completion_tokens) == (74730 * 200, 74730 * 150)
    assert task.api_cost == pytest.approx((74730 * 200 + 2 * 74730 * 150) / 1e6)
    assert (task.gpus, task.gpu_hours, task.cost) == (0, 0.0, None)


@pytest.mark.parametrize("pipeline", ["distill", "distill_rewards"])
def test_the_judge_of_rollouts_has_its_tokens_its_flops_and_its_share_of_the_gpu(
    pipeline: str, planned: Planned
) -> None:
    earlier = {"prepared_uri": "s3://w/p", "label_uri": "s3://w/l", "checkpoint": FOLDERS["student"]}
    given = earlier if pipeline == "distill_rewards" else {}
    plan = planned(pipeline, ppo_rewards=["model", "judge"], **given)
    model, judge = of(plan, "ppo model"), of(plan, "ppo judge")
    assert judge.completion_tokens - model.completion_tokens == 200 * 256  # one token a verdict
    assert judge.flops > model.flops
    assert "judge" in judge.memory
    assert "judge" not in model.memory
    assert judge.seconds is None or model.seconds is None or judge.seconds > model.seconds


def test_a_black_box_that_judges_rollouts_costs_its_tokens(planned: Planned) -> None:
    server = {
        "base_url": "https://api.test/v1",
        "prompt_price": 1e6,
        "completion_price": 0.0,
        "price_source": "x",
    }
    config = _config_of(openai=server, teacher={"sampler": "openai"}, ppo={"num_updates": 1, "batch_size": 8})
    plan = planned(teacher="big-1", config=config, ppo_rewards=["model", "judge"])
    assert of(plan, "ppo model").api_cost is None
    assert of(plan, "ppo judge").api_cost == 8 * (200 + 150 + 40)  # each rollout, with its prompt


def _config_of(**sections: object) -> dict[str, object]:
    return Config.model_validate(sections).model_dump(mode="json", exclude_none=True)


def test_a_single_sequence_waits_for_the_weights() -> None:
    shape = read_model(Place("teacher", FOLDERS["teacher"], None)).shape
    assert shape is not None
    rates = load_rates(None).model_copy(update={"step_milliseconds": 0.0})
    gpu = rates.gpu("H100")
    alone = Sampled(Model(shape, "bfloat16"), 1.0, 0.0, 1000.0, 0.0)
    took = sampling_seconds(alone, Config().engine, gpu, rates, 80 * GIB)
    assert took is not None
    weights, cache = 2 * shape.parameters, 500 * 128 * 1024
    assert took == pytest.approx(1000 * (weights + cache) / (3.35e12 * gpu.decode), rel=1e-6)
