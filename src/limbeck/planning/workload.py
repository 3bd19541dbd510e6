"""The tasks of a run and the tokens of each: what an engine reads and writes, what a training passes.

The tasks are those of `pipelines/wiring.py`; which of them run follows from the stages, as in
`limbeck.reuse`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from limbeck.config import Config, DeepSpeedConfig, Dtype, PpoReward, SamplingConfig
from limbeck.errors import ConfigError
from limbeck.planning.asked import Asked
from limbeck.planning.flops import passes
from limbeck.planning.outline import Outline
from limbeck.preflight.memory import Shape
from limbeck.resources import StageRequest, processes_of_node

KNOWN = (
    "distill", "distill-minimal", "distill-gold", "distill-open", "distill-data", "distill-rewards",
    "ablation", "evaluate-models",
)  # fmt: skip
"""Pipelines whose tasks are known here, by the name that is compiled into them."""
JUDGE_TOKENS = 40
"""Words of the judge's question behind the answer, and its template. Counted in the default by hand."""


class Model(NamedTuple):
    """A model of the run."""

    shape: Shape
    dtype: Dtype


@dataclass(frozen=True)
class Sampled:
    """What an engine is asked in one task, or all shards of one together."""

    model: Model | None
    """None for a black box."""
    requests: float
    prompt_tokens: float
    """Of one request: its context before it answers."""
    completion_tokens: float
    """Of one request, in the mean."""
    prefilled: float
    """Prompt tokens of all requests that are computed; what the prefix cache holds is not."""
    at_once: float = float("inf")
    """The most requests that are there together."""


@dataclass(frozen=True)
class Passed:
    """Tokens that pass a model outside of an engine."""

    model: Model
    tokens: float
    row_tokens: float
    passes: int
    """1: scored without gradients; else what `limbeck.planning.flops.passes` says of a training."""
    head: bool = True
    """Whether logits are computed."""


@dataclass(frozen=True)
class Work:
    """One task of a run; `num_tasks` shards of it run side by side."""

    task: str
    stage: str
    name: str
    """As the report calls what it makes."""
    step: int
    """Its place in the run; tasks of one step run side by side."""
    request: StageRequest
    num_tasks: int = 1
    sampled: tuple[Sampled, ...] = ()
    passed: tuple[Passed, ...] = ()
    rows: float = 0.0
    """Read by a stage without a GPU; of other stages, written by it."""
    is_black_box: bool = False
    config: Config | None = None
    """Of a variant in an ablation; else that of the run."""


@dataclass(frozen=True)
class Run:
    """What the workload follows from. Made by `limbeck.planning.making`."""

    outline: Outline
    config: Config
    requests: Mapping[str, StageRequest]
    models: Mapping[str, Model]
    """As in the outline; a black box is not there."""
    asked: Asked

    @property
    def validation(self) -> int:
        """Prompts that are kept out of training; every prompt is taken to get a label."""
        return min(self.config.label.validation_prompts, self.asked.prompts // 2)

    @property
    def base(self) -> Model:
        """What the reward model starts from."""
        return self.models[self.config.reward.init]


def check_pipeline(name: str) -> None:
    """Refuse a pipeline with tasks of its own.

    Raises:
        ConfigError: naming those that are known.
    """
    if name not in KNOWN:
        raise ConfigError(
            "the tasks of this pipeline are not known to the plan",
            where=f"--pipeline, {name}",
            expected=", ".join(KNOWN),
            remedy="Plan the nearest of these",
        )


def tasks(run: Run) -> Iterator[Work]:
    """All tasks with their tokens, in order."""
    trains = "judge" in run.outline.stages
    refines = "ppo" in run.outline.stages
    if "prepare" in run.outline.stages:
        rows, name = run.asked.prompts + run.asked.heldout, "prompts" if run.outline.trains else "heldout"
        yield Work("prepare", "prepare", name, 1, run.requests["prepare"], rows=rows)
    if trains:
        yield from _teacher_side(run)
    if refines:
        yield from _refinement(run)
    names = list(_evaluated(run, trains=trains, refines=refines))
    for name, model in names:
        yield evaluation(run, name, model)
    rows = sum(_evaluated_rows(run) for _ in names)
    if trains:
        rows += 2 * run.asked.prompts * run.config.generate.teacher.samples_per_prompt
    if refines:
        rows += run.asked.prompts * run.config.generate.student.samples_per_prompt
    yield Work("report", "report", "report", 12, run.requests["report"], rows=rows)


def accepted(run: Run) -> float:
    """Completions that SFT learns from."""
    samples = run.config.generate.teacher.samples_per_prompt
    return (run.asked.prompts - run.validation) * samples * run.asked.given.accepted_share


def _teacher_side(run: Run) -> Iterator[Work]:
    """The teacher answers and judges, votes make labels, the student is warmed up."""
    sampling, asked = run.config.generate.teacher, run.asked
    yield _generation(run, "teacher", sampling, 2)
    yield _judgement(run, "judge", "judge", sampling, 3)
    rows = float(asked.prompts * sampling.samples_per_prompt)
    yield Work("label teacher", "label", "labels_teacher", 4, run.requests["label"], rows=rows)
    learnt = {"selected": accepted(run), "all": rows - run.validation * sampling.samples_per_prompt}
    for selection, number in learnt.items():
        yield warm_up(run, f"sft {selection}", f"sft_{selection}", 5, number)


def _judgement(run: Run, task: str, name: str, sampling: SamplingConfig, step: int) -> Work:
    """The teacher's verdicts on all completions of one role."""
    rows = float(run.asked.prompts * sampling.samples_per_prompt)
    verdicts = _verdicts(run, rows, run.asked.prompts, run.asked.completion_tokens(sampling.max_tokens))
    return Work(
        task, "judge", name, step, run.requests["judge"], run.outline.num_shards, (verdicts,), rows=rows,
        is_black_box=run.config.asks_a_server("teacher"),
    )  # fmt: skip


def warm_up(
    run: Run, task: str, name: str, step: int, number: float, *, model: str = "student", epochs: float = 0.0
) -> Work:
    """A training on so many completions of the teacher; without `epochs` on as many as are set."""
    settings, asked = run.config.sft, run.asked
    completion = asked.completion_tokens(run.config.generate.teacher.max_tokens)
    row = min(asked.prompt_tokens + completion, settings.max_length)
    trained = number * (epochs or settings.num_epochs)
    if settings.max_steps > 0:
        trained = min(trained, float(settings.max_steps * settings.batch_size))
    passed = Passed(run.models[model], trained * row, row, passes(settings.deepspeed))
    return Work(task, "sft", name, step, run.requests["sft"], passed=(passed,))


def _verdicts(run: Run, rows: float, prompts: float, completion: float) -> Sampled:
    """What the teacher is asked of answers to so many prompts, of so many tokens each."""
    asked, votes = run.asked, run.config.judge.votes
    question = asked.prompt_tokens + completion + JUDGE_TOKENS
    return Sampled(
        model=run.models.get("teacher"),
        requests=rows * votes,
        prompt_tokens=question,
        completion_tokens=1.0,
        # The answers to a prompt share its words, the verdicts on an answer all but the last ones.
        prefilled=rows * votes * question
        if run.config.asks_a_server("teacher")
        else prompts * asked.prompt_tokens + rows * (completion + votes * JUDGE_TOKENS),
    )


def _generation(run: Run, role: str, sampling: SamplingConfig, step: int) -> Work:
    """All completions of one role."""
    requests = float(run.asked.prompts * sampling.samples_per_prompt)
    black_box = run.config.asks_a_server(role)
    asked = Sampled(
        model=run.models.get(role),
        requests=requests,
        prompt_tokens=run.asked.prompt_tokens,
        completion_tokens=run.asked.completion_tokens(sampling.max_tokens),
        # The completions of a prompt are asked one after another: its tokens are computed once.
        prefilled=(requests if black_box else run.asked.prompts) * run.asked.prompt_tokens,
    )
    request = run.requests["generate_teacher" if role == "teacher" else "generate"]
    return Work(
        f"generate {role}", "generate", role, step, request, run.outline.num_shards, (asked,), rows=requests,
        is_black_box=black_box,
    )  # fmt: skip


def _refinement(run: Run) -> Iterator[Work]:
    """The student answers, a reward model learns, and PPO refines the student."""
    config, asked = run.config, run.asked
    yield _generation(run, "student", config.generate.student, 6)
    if run.outline.open_ended:
        yield _judgement(run, "judge student", "judge_student", config.generate.student, 7)
    rows = float(asked.prompts * config.generate.student.samples_per_prompt)
    yield Work("label student", "label", "labelled_student", 8, run.requests["label"], rows=rows)
    yield reward_model(run, 9)
    for reward in run.outline.ppo_rewards:
        yield policy(run, reward, 10)


def reward_model(run: Run, step: int) -> Work:
    """The updates of the reward model (`limbeck.trainer.reward`), and its evaluations."""
    settings, asked, generate = run.config.reward, run.asked, run.config.generate
    sides = [sampling.samples_per_prompt for sampling in (generate.teacher, generate.student)]
    units = (asked.prompts - run.validation) * max(sides)
    pair = 1
    if settings.loss == "bradley_terry":  # as many pairs as good completions
        units, pair = ceil(units * asked.given.accepted_share), 2
    updates = ceil(settings.num_epochs * units / (settings.batch_size // 2))
    completion = asked.completion_tokens(max(generate.teacher.max_tokens, generate.student.max_tokens))
    row = min(asked.prompt_tokens + completion, settings.max_length)
    scored = (updates // settings.evaluate_every + 2) * run.validation * sum(sides)
    trained = updates * settings.batch_size * pair
    passed = (
        Passed(run.base, trained * row, row, passes(settings.deepspeed), head=False),
        Passed(run.base, scored * row, row, 1, head=False),
    )
    return Work("reward", "reward", "reward", step, run.requests["reward"], passed=passed)


def policy(run: Run, reward: PpoReward, step: int) -> Work:
    """Rounds of rollouts and updates (`limbeck.trainer.ppo`), and their validations."""
    settings, asked, student = run.config.ppo, run.asked, run.models["student"]
    completion = asked.completion_tokens(settings.max_tokens)
    row, rollouts = asked.prompt_tokens + completion, float(settings.num_updates * settings.batch_size)
    validations = settings.num_updates // settings.evaluate_every + 1
    validations += settings.num_updates % settings.evaluate_every > 0
    validated = float(validations * run.validation * settings.validation_samples)
    sampled: tuple[Sampled, ...] = (
        Sampled(
            student, rollouts, asked.prompt_tokens, completion,
            rollouts / settings.samples_per_prompt * asked.prompt_tokens, settings.batch_size,
        ),
        Sampled(
            student, validated, asked.prompt_tokens, completion,
            validations * run.validation * asked.prompt_tokens, validated / validations,
        ),
    )  # fmt: skip
    if reward == "judge":
        sampled = (*sampled, _verdicts(run, rollouts, rollouts / settings.samples_per_prompt, completion))
    tokens, trained = rollouts * row, settings.num_ppo_epochs * passes(settings.deepspeed)
    # While only the critic learns the policy is passed once, for its log-probabilities.
    learning = 1.0
    passed = [Passed(run.base, (rollouts + validated) * row, row, 1, head=False)]
    if settings.algorithm == "ppo":
        learning = max(0.0, 1 - settings.critic_warmup_updates / settings.num_updates)
        critic = run.base if settings.value_init == "reward" else student
        passed.append(Passed(critic, tokens, row, 1 + trained, head=False))
    if settings.algorithm == "ppo" or (settings.kl_coef > 0 and not settings.deepspeed.lora_rank):
        passed.append(Passed(student, tokens, row, 1))
    passed += [Passed(student, tokens, row, 1), Passed(student, tokens * learning, row, trained)]
    return Work(
        f"ppo {reward}", "ppo", f"ppo_{reward}", step, run.requests["ppo"], sampled=sampled,
        passed=tuple(passed),
    )  # fmt: skip


def _evaluated(run: Run, *, trains: bool, refines: bool) -> Iterator[tuple[str, str]]:
    """What is evaluated: the report's name, and the model's key."""
    if trains:
        yield from [("teacher", "teacher"), ("student", "student")]
        yield from [("sft_selected", "student"), ("sft_all", "student")]
    elif refines:
        yield "sft_selected", "student"
    else:
        yield from ((name, f"models[{number}]") for number, name in enumerate(run.outline.evaluated))
    if refines:
        yield from ((f"ppo_{reward}", "student") for reward in run.outline.ppo_rewards)


def _evaluated_rows(run: Run) -> int:
    """Held-out answers of one model."""
    return run.asked.heldout * (run.config.evaluate.samples_per_prompt + 1)


def evaluation(run: Run, name: str, model: str, step: int = 11) -> Work:
    """Greedy and sampled answers to the held-out prompts; of open questions, the verdicts on them too."""
    asked, of_teacher = run.asked, model == "teacher"
    requests, black_box = float(_evaluated_rows(run)), run.config.asks_a_server(model)
    completion = asked.completion_tokens(run.config.evaluate.max_tokens)
    answers = Sampled(
        model=run.models.get(model),
        requests=requests,
        prompt_tokens=asked.prompt_tokens,
        completion_tokens=completion,
        prefilled=(requests if black_box else asked.heldout) * asked.prompt_tokens,
    )
    judged = [_verdicts(run, requests, asked.heldout, completion)] if run.config.task.is_open else []
    request = run.requests["evaluate_teacher" if of_teacher else "evaluate"]
    return Work(
        f"evaluate {name}", "evaluate", name, step, request, run.outline.num_evaluate_shards,
        (answers, *judged), rows=requests,
        is_black_box=black_box,
    )  # fmt: skip


def num_processes(work: Work, config: Config) -> int:
    """Over how many processes, one on each GPU, a training is split."""
    deepspeed: DeepSpeedConfig = getattr(config, work.stage).deepspeed
    return deepspeed.nodes * processes_of_node(deepspeed, work.request)
