"""ppo: the warmed-up student is refined by reinforcement learning, without any gold answer."""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from limbeck import lease
from limbeck import settings as deciding
from limbeck.calibration import Line
from limbeck.checkpoints import fetch, load_state, save_state
from limbeck.config import BY_AGREEMENT, Config, PpoReward
from limbeck.errors import ConfigError, DataError
from limbeck.jobs import PpoRun
from limbeck.manifest import (
    Manifest,
    code_version,
    commit,
    digest,
    find,
    input_hashes,
    require,
    stage_uri,
)
from limbeck.policy_metrics import of_course
from limbeck.progress import say
from limbeck.records import PpoPrompt, Prompt, PseudoLabel
from limbeck.rollout_judge import Judging, Teacher, lines_of
from limbeck.rows import read_rows
from limbeck.saver import Saver, Upload
from limbeck.storage import Store
from limbeck.variants import named

OpenTokenizer = Callable[[Path], Callable[[str], list[int]]]


@dataclass(frozen=True, kw_only=True)
class PpoInputs:
    """What is refined, on what, and what rewards it."""

    prompts: Manifest
    """Train prompts from `prepare`; unlabelled ones serve too where the reward model scores."""
    labels: Manifest
    """Pseudo labels from `label`."""
    checkpoint: Manifest
    """The warmed-up student from `sft`."""
    reward_model: Manifest
    """From `reward`."""
    reward: PpoReward
    """`model`, `agreement`, `mixed` or `judge`."""
    teacher: Teacher | None = None
    """Judges the rollouts for the reward `judge`; loaded only when there is work to do."""
    variant: str = ""
    """The variant of an ablation that the settings are of."""


def run(
    inputs: PpoInputs,
    open_tokenizer: OpenTokenizer,
    train: Callable[..., PpoRun],
    config: Config,
    store: Store,
    work_uri: str,
) -> Manifest:
    """Run PPO, or another `ppo.algorithm`, with one kind of reward.

    Args:
        inputs: Manifests, and the reward.
        open_tokenizer: Gives, for a checkpoint folder, the token ids that a user message is asked with.
        train: `limbeck.refining.refine`, in this process or in several.
        config: `ppo`, `task`, `student`, `engine`, `reward.max_length` and the seed are read; for the reward
            `judge` also `judge`, `openai` and `label.calibrate`.
        store: Where rows and checkpoints come from and go to.
        work_uri: Prefix of all results.

    Returns:
        The checkpoint with the best validation agreement; metric `ppo/validation_agreement`. Of an open task
        nothing can agree: the last one within `ppo.target_kl` of the student, without that metric.

    Raises:
        LeaseError: when another attempt is at work.
        ConfigError: when the critic cannot start from a reward model with another tokenizer, no teacher is
            given where it is the reward, or the reward is agreement and the task open.
        DataError: when too few labelled prompts are there, or labels do not know how to calibrate the judge.
        EngineError: when formulas cannot be compared, or the teacher's engine cannot be kept alive.
        EndpointError: when the server of a black-box teacher is away for too long, or refuses.
    """
    started = time.monotonic()
    reward = inputs.reward
    _check_reward(inputs, config)
    key = _key(inputs, config, work_uri)
    if complete := find(store, key.uri):
        agreement = complete.metrics.get("ppo/validation_agreement")
        shown = "" if agreement is None else f", validation agreement {agreement:.3f}"
        say(f"ppo({reward}): already complete{shown}")
        return complete

    with lease.held(store, key.uri, f"ppo({reward})") as held:
        rows = _rows(inputs, store)

        def upload(step: int, folder: Path) -> None:
            save_state(store, key.uri, step, folder, config.ppo.deepspeed.keep_states, held.confirm)

        with _trained(inputs, rows, key, open_tokenizer, train, config, store, upload) as (result, num_kept):
            lines = [
                json.dumps({name: value if math.isfinite(value) else None for name, value in entry.items()})
                for entry in result.course.history
            ]
            (result.folder / "history.jsonl").write_text("\n".join(lines) + "\n")
            objects = store.write_folder(result.folder, key.uri)
        num_rejected = len(rows.training) - num_kept
        slow = {"ppo/slow_comparisons": float(result.num_slow)} if config.task.kind == "math" else {}
        return commit(
            store,
            Manifest(
                stage="ppo",
                kind="checkpoint",
                name=named(f"ppo_{reward}", inputs.variant),
                uri=key.uri,
                objects=objects,
                inputs=key.inputs,
                config_hash=key.config_hash,
                code_version=code_version("ppo"),
                num_input_rows=len(rows.training) + len(rows.validation),
                num_rows=num_kept,
                rejected={"prompt too long": num_rejected} if num_rejected else {},
                metrics=of_course(result.course, reward, config) | slow,
                wall_seconds=time.monotonic() - started,
            ),
            held,
        )


def follow(
    inputs: PpoInputs,
    open_tokenizer: OpenTokenizer,
    train: Callable[..., PpoRun],
    config: Config,
    store: Store,
    work_uri: str,
) -> None:
    """Do the part of a node that does not lead: it trains with the others, and writes nothing to the store.

    Args and errors are those of `run`.
    """
    _check_reward(inputs, config)
    key = _key(inputs, config, work_uri)
    if find(store, key.uri):
        return
    rows = _rows(inputs, store)
    with _trained(inputs, rows, key, open_tokenizer, train, config, store, _nothing):
        pass


class _Key(NamedTuple):
    """What a result is known by."""

    inputs: dict[str, str]
    config_hash: str
    uri: str
    calibration: tuple[Line, ...]
    """Of the judge's verdicts; it is among the inputs."""


def _key(inputs: PpoInputs, config: Config, work_uri: str) -> _Key:
    """Find out where the result lies.

    Raises:
        DataError: when labels do not know how to calibrate the judge.
    """
    hashes = input_hashes(
        prompts=inputs.prompts,
        labels=inputs.labels,
        checkpoint=inputs.checkpoint,
        reward_model=inputs.reward_model,
    )
    calibration = lines_of(inputs.labels, config) if inputs.teacher else ()
    if inputs.teacher:
        hashes["teacher"] = inputs.teacher.model_hash
    if calibration:  # no hash of the labels holds it
        hashes["calibration"] = digest(calibration)
    config_hash = deciding.of_ppo(config, inputs.reward, inputs.variant)
    return _Key(hashes, config_hash, stage_uri(work_uri, "ppo", hashes, config_hash), calibration)


class _Rows(NamedTuple):
    """What a policy is trained and measured on."""

    training: list[Prompt]
    validation: list[Prompt]
    labels: dict[str, PseudoLabel]


def _rows(inputs: PpoInputs, store: Store) -> _Rows:
    """Read the prompts and their labels.

    Raises:
        DataError: when too few labelled prompts are there.
    """
    for item in (inputs.prompts, inputs.labels):
        require(store, item)
    known = {row.prompt_id: row for row in read_rows(store, inputs.labels, PseudoLabel)}
    validation, training = _split(read_rows(store, inputs.prompts, Prompt), known, inputs.reward)
    return _Rows(training, validation, known)


@contextmanager
def _trained(
    inputs: PpoInputs,
    rows: _Rows,
    key: _Key,
    open_tokenizer: OpenTokenizer,
    train: Callable[..., PpoRun],
    config: Config,
    store: Store,
    upload: Upload,
) -> Iterator[tuple[PpoRun, int]]:
    """Train, from the newest state, and tell on how many prompts; the result's files are there inside."""
    reward, teacher = inputs.reward, inputs.teacher
    for item in (inputs.checkpoint, inputs.reward_model):
        require(store, item)
    seconds = config.ppo.deepspeed.checkpoint_seconds
    with (
        tempfile.TemporaryDirectory() as scratch,
        Saver(f"ppo({reward})", seconds, upload) as saver,
    ):
        folder = Path(scratch)
        student = fetch(store, inputs.checkpoint, folder / "student")
        reward_folder = fetch(store, inputs.reward_model, folder / "reward")
        _check_critic(student, reward_folder, config)
        prompt_ids = open_tokenizer(student)
        kept, validation = (
            [row for row in some if _fits(row, prompt_ids, config)]
            for some in (rows.training, rows.validation)
        )
        say(
            f"ppo({reward}): {len(kept)} prompts, {len(rows.validation)} for validation, "
            f"{len(rows.training) - len(kept)} too long for the context"
        )
        state = load_state(store, key.uri, folder / "resume")
        questions = {row.prompt_id: row.prompt for row in kept}
        result = train(
            student=student,
            reward_folder=reward_folder,
            prompts=_asked(kept, rows.labels, config),
            validation=_asked(validation, rows.labels, config),
            reward=reward,
            judging=Judging(teacher.open_sampler, questions, key.calibration) if teacher else None,
            config=config,
            folder=folder,
            resume_from=state.folder if state else None,
            saver=saver,
        )
        yield result, len(kept)


def _nothing(step: int, folder: Path) -> None:
    """The node that leads uploads the states."""


def _asked(rows: list[Prompt], labels: dict[str, PseudoLabel], config: Config) -> list[PpoPrompt]:
    """Prompts as the policy is asked; open answers agree with no label."""
    return [
        PpoPrompt(
            prompt_id=row.prompt_id,
            message=_message(row, config),
            label=None if config.task.is_open else labels[row.prompt_id].answer,
        )
        for row in rows
    ]


def _split(
    rows: list[Prompt], labels: dict[str, PseudoLabel], reward: PpoReward
) -> tuple[list[Prompt], list[Prompt]]:
    """The validation prompts, the same for all rewards, and those to train on."""
    validation = [row for row in rows if labels[row.prompt_id].validation]
    training = [row for row in rows if not labels[row.prompt_id].validation]
    if reward == "agreement":  # without a label there is nothing to agree with
        training = [row for row in training if labels[row.prompt_id].answer is not None]
    if not validation or not training:
        raise DataError(
            "too few labelled prompts for PPO",
            where="stage ppo",
            expected="some to train on and some for validation",
            got=f"{len(training)} and {len(validation)}",
            remedy="Give more prompts, or look at the label report for why they have no label",
        )
    return validation, training


def _fits(row: Prompt, prompt_ids: Callable[[str], list[int]], config: Config) -> bool:
    """Whether a prompt leaves room for a rollout in the context."""
    return len(prompt_ids(_message(row, config))) <= config.engine.max_model_len - config.ppo.max_tokens


def _message(row: Prompt, config: Config) -> str:
    """The user message of a prompt."""
    return config.task.prompt_template.replace("{prompt}", row.prompt)


def _check_reward(inputs: PpoInputs, config: Config) -> None:
    """The teacher is there where it is the reward; answers to open questions agree with nothing."""
    if inputs.reward == "judge" and inputs.teacher is None:
        raise ConfigError(
            "no teacher to judge the rollouts",
            where="ppo, parameter teacher",
            expected="the teacher's Hugging Face folder, or its name at its server (the reward is judge)",
            got="none",
            remedy="Give it, or take another reward",
        )
    if config.task.is_open and inputs.reward in BY_AGREEMENT:
        raise ConfigError(
            "open answers cannot be rewarded for agreement",
            where="stage ppo, parameter reward",
            expected="model or judge (task.kind is open: no answer is the same as a label)",
            got=inputs.reward,
            remedy="Set it to model, as the pipeline distill_open does",
        )


def _check_critic(student: Path, reward_folder: Path, config: Config) -> None:
    """A critic values the policy's tokens, so it can start from the reward model only if they share them."""
    if config.ppo.algorithm != "ppo" or config.ppo.value_init == "student":
        return
    files = [
        (folder / "tokenizer.json").read_bytes()
        for folder in (student, reward_folder)
        if (folder / "tokenizer.json").exists()
    ]
    if len(files) == 2 and files[0] != files[1]:
        raise ConfigError(
            "the critic cannot start from the reward model",
            where="ppo.value_init",
            expected="the same tokenizer in student and reward model",
            got="different ones",
            remedy="Set ppo.value_init: student",
        )
