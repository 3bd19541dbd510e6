"""ppo as a stage: what it hands to its trainer and to the judge, what it commits, what its key is made of."""

from types import SimpleNamespace
from typing import Any

import pytest

from limbeck.calibration import NUM_FOLDS, Line, to_metrics
from limbeck.config import PpoReward
from limbeck.errors import ConfigError
from limbeck.manifest import Manifest
from limbeck.records import PpoPrompt, Prompt, PseudoLabel
from limbeck.rollout_judge import Teacher, opened
from limbeck.stages import ppo
from limbeck.storage import Store
from tests.fakes import ScriptedSampler
from tests.stages.conftest import ConfigFor
from tests.stages.trainers import Trainer, given


def run_ppo(
    store: Store,
    work_uri: str,
    config_for: ConfigFor,
    kind: PpoReward,
    student: str = "{}",
    teacher: Teacher | None = None,
    lines: tuple[Line, ...] = (),
    history: list[dict[str, float]] | None = None,
    trainer_type: type[Trainer] = Trainer,
    teacher_config: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[Manifest, dict[str, Any]]:
    """30 prompts: 5 for validation, 20 with a label to train on, 5 without."""
    prompts = given(
        store, f"{work_uri}/p", "prompts", [Prompt(prompt_id=str(n), prompt=f"sum {n}") for n in range(30)]
    )
    labels = given(
        store,
        f"{work_uri}/l",
        "labels",
        [
            PseudoLabel(
                prompt_id=str(n),
                answer=str(n) if n < 25 else None,
                vote_share=1.0,
                num_votes=1,
                reason="labelled",
                validation=n < 5,
            )
            for n in range(30)
        ],
        to_metrics(lines),
    )

    def checkpoint(name: str, tokenizer: str) -> Manifest:
        uri = f"{work_uri}/{name}"
        store.write_bytes(f"{uri}/h/tokenizer.json", tokenizer.encode())
        item = store.stored(f"{uri}/h/tokenizer.json")
        return Manifest(
            stage="test",
            kind="checkpoint",
            name=name,
            uri=uri,
            objects=(item,) if item else (),
            inputs={},
            config_hash="",
            code_version="",
        )

    course = SimpleNamespace(
        history=history or [{"update": 0.0, "ppo/batch_agreement": float("nan")}],
        best_agreement=0.9,
        start_agreement=0.5,
        best_update=3,
        update=4,
        stopped=False,
    )
    trainer = trainer_type({"course": course})
    made = ppo.run(
        ppo.PpoInputs(
            prompts=prompts,
            labels=labels,
            checkpoint=checkpoint("student", student),
            reward_model=checkpoint("reward", "{}"),
            reward=kind,
            teacher=teacher,
        ),
        lambda _: ScriptedSampler(lambda prompt, seed: "= 1").prompt_ids,
        trainer,
        config_for(teacher=teacher_config or {}, **settings),
        store,
        work_uri,
    )
    return made, (trainer.calls or [{}])[0]


def teacher_of(revision: str) -> Teacher:
    """A teacher who finds everything right."""
    return Teacher(revision, lambda: ScriptedSampler(lambda prompt, seed: "yes"))


@pytest.mark.parametrize(("kind", "num_prompts"), [("model", 25), ("mixed", 25), ("agreement", 20)])
def test_unlabelled_prompts_serve_ppo_where_the_model_scores(
    store: Store, work_uri: str, config_for: ConfigFor, kind: PpoReward, num_prompts: int
) -> None:
    made, call = run_ppo(store, work_uri, config_for, kind)
    assert len(call["prompts"]) == made.num_rows == num_prompts
    assert {item.prompt_id for item in call["validation"]} == {str(n) for n in range(5)}
    assert not {item.prompt_id for item in call["prompts"]} & {item.prompt_id for item in call["validation"]}
    assert made.metrics["ppo/validation_agreement"] == 0.9
    (history,) = [item for item in made.objects if item.uri.endswith("/history.jsonl")]
    assert "NaN" not in store.read_bytes(history.uri).decode()


def test_prompts_that_leave_no_room_for_a_rollout_are_left_out(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    # One token a character: `sum 10` and on leave no room.
    made, call = run_ppo(
        store, work_uri, config_for, "model", engine={"max_model_len": 25}, ppo={"max_tokens": 20}
    )
    assert len(call["prompts"]) == 5
    assert made.rejected == {"prompt too long": 20}


def test_a_critic_cannot_start_from_a_reward_model_with_another_tokenizer(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    with pytest.raises(ConfigError, match=r"ppo\.value_init.*Set ppo\.value_init: student"):
        run_ppo(store, work_uri, config_for, "model", student='{"other": 1}')
    run_ppo(
        store, f"{work_uri}/2", config_for, "model", student='{"other": 1}', ppo={"value_init": "student"}
    )


OPEN: dict[str, Any] = {"task": {"kind": "open"}, "label": {"rule": "judge"}}


def test_open_prompts_have_no_label_to_agree_with_and_no_agreement_is_told(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    made, call = run_ppo(store, work_uri, config_for, "model", **OPEN)
    assert {item.label for item in (*call["prompts"], *call["validation"])} == {None}
    assert {item.prompt_id for item in call["validation"]} == {str(n) for n in range(5)}
    assert not [name for name in made.metrics if name.endswith("agreement")]
    again, _ = run_ppo(store, work_uri, config_for, "model", **OPEN)
    assert again == made


@pytest.mark.parametrize("kind", ["agreement", "mixed"])
def test_open_answers_are_not_rewarded_for_agreement(
    store: Store, work_uri: str, config_for: ConfigFor, kind: PpoReward
) -> None:
    with pytest.raises(ConfigError, match=r"parameter reward.*task\.kind is open.*distill_open"):
        run_ppo(store, work_uri, config_for, kind, **OPEN)


def test_open_answers_may_be_rewarded_by_the_judge_whose_template_is_the_open_one(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    said: list[str] = []

    class Asking(Trainer):
        def __call__(self, **arguments: Any) -> Any:
            with opened(arguments["judging"], arguments["config"]) as judge:
                judge(arguments["prompts"][:1], ["an answer"], [1])
            return super().__call__(**arguments)

    def answer(prompt: str, seed: int | None) -> str:
        said.append(prompt)
        return "yes"

    teacher = Teacher("a", lambda: ScriptedSampler(answer))

    def made(word: str) -> Manifest:
        settings: dict[str, Any] = OPEN | {
            "judge": {"open_template": f"{word} {{prompt}} {{completion}}"},
            "engine": {"max_model_len": 2048},
        }
        made, _ = run_ppo(
            store, f"{work_uri}/{word}", config_for, "judge", teacher=teacher, trainer_type=Asking, **settings
        )
        return made

    first, other = made("good"), made("fine")
    assert [text.split()[0] for text in said] == ["good", "fine"]
    assert key_of(first) != key_of(other)
    assert not [name for name in first.metrics if name.endswith("agreement")]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_another_algorithm_asks_for_no_critic_and_has_a_result_of_its_own(
    store: Store, work_uri: str, config_for: ConfigFor, algorithm: str
) -> None:
    made, _ = run_ppo(store, work_uri, config_for, "model", ppo={"samples_per_prompt": 2})
    settings = {"algorithm": algorithm, "samples_per_prompt": 2}
    other, _ = run_ppo(store, work_uri, config_for, "model", student='{"other": 1}', ppo=settings)
    assert other.name == made.name == "ppo_model"
    same, _ = run_ppo(store, f"{work_uri}/2", config_for, "model", ppo=settings)
    assert same.config_hash == other.config_hash != made.config_hash


def test_the_judge_can_be_opened_by_who_trains_and_scores_prompts_without_a_label_too(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    teacher = ScriptedSampler(lambda prompt, seed: "yes")
    said: list[float | None] = []

    class Asking(Trainer):
        """Asks the judge, as a trainer does."""

        def __call__(self, **arguments: Any) -> Any:
            prompts = arguments["prompts"]
            with opened(arguments["judging"], arguments["config"]) as judge:
                verdicts = judge(prompts, ["= 1"] * len(prompts), range(len(prompts)))
            said.extend(verdict.p_correct for verdict in verdicts)
            return super().__call__(**arguments)

    made, call = run_ppo(
        store, work_uri, config_for, "judge", teacher=Teacher("a", lambda: teacher), trainer_type=Asking
    )
    assert said == [0.9] * 25
    assert all(isinstance(item, PpoPrompt) for item in call["prompts"])
    assert teacher.closed
    assert made.name == "ppo_judge"


def test_no_other_reward_has_a_judge_and_this_one_must_have_a_teacher(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    _, call = run_ppo(store, work_uri, config_for, "mixed")
    assert call["judging"] is None
    with pytest.raises(ConfigError, match=r"no teacher to judge the rollouts in ppo, parameter teacher"):
        run_ppo(store, work_uri, config_for, "judge")


LINES = tuple(Line(1.0, 0.1 * part) for part in range(NUM_FOLDS))
OTHER_LINES = tuple(Line(2.0, 0.1 * part) for part in range(NUM_FOLDS))
CALIBRATES = {"label": {"calibrate": "majority"}}
JUDGED: dict[str, tuple[dict[str, Any], bool]] = {
    "another teacher": ({"teacher": teacher_of("b")}, True),
    "other settings of the judge": ({"judge": {"votes": 2}}, True),
    "verdicts that are calibrated": ({**CALIBRATES, "lines": LINES}, True),
    "lines that nobody asked for": ({"lines": LINES}, False),
    "another share of the GPU": ({"ppo": {"judge_gpu_memory_utilization": 0.5}}, False),
}


@pytest.mark.parametrize(("changes", "differs"), JUDGED.values(), ids=JUDGED)
def test_what_decides_the_judges_verdicts_is_in_the_key_of_this_reward(
    store: Store, work_uri: str, config_for: ConfigFor, changes: dict[str, Any], differs: bool
) -> None:
    given: dict[str, Any] = {"teacher": teacher_of("a")}
    made, _ = run_ppo(store, work_uri, config_for, "judge", **given)
    other, _ = run_ppo(store, f"{work_uri}/2", config_for, "judge", **given | changes)
    assert key_of(made) != key_of(other) if differs else key_of(made) == key_of(other)
    changes = {name: value for name, value in changes.items() if name not in ("teacher", "lines")}
    plain, _ = run_ppo(store, f"{work_uri}/3", config_for, "agreement")
    same, _ = run_ppo(store, f"{work_uri}/4", config_for, "agreement", **changes)
    assert key_of(plain) == key_of(same), "of no other reward"


def test_other_lines_of_calibration_are_another_key(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    given: dict[str, Any] = {"teacher": teacher_of("a"), **CALIBRATES}
    keys = [
        key_of(run_ppo(store, f"{work_uri}/{n}", config_for, "judge", lines=lines, **given)[0])
        for n, lines in enumerate((LINES, OTHER_LINES))
    ]
    assert keys[0] != keys[1]


def key_of(made: Manifest) -> str:
    """The last part of its address."""
    return made.uri.rpartition("/")[2]


def test_the_manifest_tells_what_was_not_judged_and_what_a_black_box_has_cost(
    store: Store, work_uri: str, config_for: ConfigFor
) -> None:
    rounds = [
        {"update": float(n), "ppo/unjudged": 0.1 * n, "ppo/judge_prompt_tokens": 1e6, "ppo/judge_tokens": 5e5}
        for n in (1, 2, 3)
    ]
    given: dict[str, Any] = {"teacher": teacher_of("a"), "history": [{"update": 0.0}, *rounds]}
    made, _ = run_ppo(store, work_uri, config_for, "judge", **given)
    assert made.metrics["ppo/unjudged"] == pytest.approx(0.2)
    assert "ppo/prompt_tokens" not in made.metrics
    prices = {"prompt_price": 2.0, "completion_price": 8.0, "price_source": "EUR"}
    run_file: dict[str, Any] = {
        "openai": {"base_url": "https://a.example/v1", **prices},
        "teacher_config": {"sampler": "openai"},
    }
    made, _ = run_ppo(store, f"{work_uri}/2", config_for, "judge", **given, **run_file)
    assert made.metrics["ppo/prompt_tokens"] == 3e6
    assert made.metrics["ppo/completion_tokens"] == 1.5e6
    assert made.metrics["ppo/cost"] == pytest.approx(3 * 2.0 + 1.5 * 8.0)
