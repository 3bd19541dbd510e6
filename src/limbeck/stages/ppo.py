"""ppo: the warmed-up student is refined by reinforcement learning, without any gold answer."""

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from limbeck import lease
from limbeck import settings as deciding
from limbeck.checkpoints import fetch, load_state, save_state
from limbeck.config import BY_AGREEMENT, Config, PpoReward
from limbeck.errors import ConfigError, DataError
from limbeck.hacking import probes, proxy_length_correlation
from limbeck.jobs import Course, PpoRun
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
from limbeck.progress import say
from limbeck.records import PpoPrompt, Prompt, PseudoLabel
from limbeck.rollout_judge import Judging, Teacher, lines_of
from limbeck.rows import read_rows
from limbeck.saver import Saver
from limbeck.spending import spent
from limbeck.storage import Store
from limbeck.variants import named

SPENT = ("ppo/prompt_tokens", "ppo/completion_tokens", "ppo/cost")


def run(
    prompts: Manifest,
    labels: Manifest,
    checkpoint: Manifest,
    reward_model: Manifest,
    open_tokenizer: Callable[[Path], Callable[[str], list[int]]],
    train: Callable[..., PpoRun],
    config: Config,
    store: Store,
    work_uri: str,
    *,
    reward: PpoReward,
    teacher: Teacher | None = None,
    variant: str = "",
) -> Manifest:
    """Run PPO, or another `ppo.algorithm`, with one kind of reward.

    Args:
        prompts: Train prompts from `prepare`; unlabelled ones serve too where the reward model scores.
        labels: Pseudo labels from `label`.
        checkpoint: The warmed-up student from `sft`.
        reward_model: From `reward`.
        open_tokenizer: Gives, for a checkpoint folder, the token ids that a user message is asked with.
        train: `limbeck.refining.refine`, in this process or in several.
        config: `ppo`, `task`, `student`, `engine`, `reward.max_length` and the seed are read; for the reward
            `judge` also `judge`, `openai` and `label.calibrate`.
        store: Where rows and checkpoints come from and go to.
        work_uri: Prefix of all results.
        reward: `model`, `agreement`, `mixed` or `judge`.
        teacher: Judges the rollouts for the reward `judge`; loaded only when there is work to do.
        variant: The variant of an ablation that `config` is of.

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
    name = named(f"ppo_{reward}", variant)
    _check_reward(reward, teacher, config)
    inputs = input_hashes(prompts=prompts, labels=labels, checkpoint=checkpoint, reward_model=reward_model)
    calibration = lines_of(labels, config) if teacher else ()
    if teacher:
        inputs["teacher"] = teacher.model_hash
    if calibration:  # no hash of the labels holds it
        inputs["calibration"] = digest(calibration)
    config_hash = deciding.of_ppo(config, reward, variant)
    uri = stage_uri(work_uri, "ppo", inputs, config_hash)
    if complete := find(store, uri):
        agreement = complete.metrics.get("ppo/validation_agreement")
        shown = "" if agreement is None else f", validation agreement {agreement:.3f}"
        say(f"ppo({reward}): already complete{shown}")
        return complete

    with lease.held(store, uri, f"ppo({reward})") as held:
        for item in (prompts, labels, checkpoint, reward_model):
            require(store, item)
        known = {row.prompt_id: row for row in read_rows(store, labels, PseudoLabel)}
        validation, training = _split(read_rows(store, prompts, Prompt), known, reward)
        settings = config.ppo.deepspeed

        def upload(step: int, folder: Path) -> None:
            save_state(store, uri, step, folder, settings.keep_states, held.confirm)

        with (
            tempfile.TemporaryDirectory() as scratch,
            Saver(f"ppo({reward})", settings.checkpoint_seconds, upload) as saver,
        ):
            folder = Path(scratch)
            student = fetch(store, checkpoint, folder / "student")
            reward_folder = fetch(store, reward_model, folder / "reward")
            _check_critic(student, reward_folder, config)
            prompt_ids = open_tokenizer(student)
            kept, rejected = _fitting(training, prompt_ids, config)
            say(
                f"ppo({reward}): {len(kept)} prompts, {len(validation)} for validation, "
                f"{len(rejected)} too long for the context"
            )
            state = load_state(store, uri, folder / "resume")

            def asked(rows: Sequence[Prompt]) -> list[PpoPrompt]:
                return [
                    PpoPrompt(
                        prompt_id=row.prompt_id,
                        message=_message(row, config),
                        label=None if config.task.is_open else known[row.prompt_id].answer,
                    )
                    for row in rows
                ]

            questions = {row.prompt_id: row.prompt for row in kept}
            result = train(
                student=student,
                reward_folder=reward_folder,
                prompts=asked(kept),
                validation=asked(_fitting(validation, prompt_ids, config)[0]),
                reward=reward,
                judging=Judging(teacher.open_sampler, questions, calibration) if teacher else None,
                config=config,
                folder=folder,
                resume_from=state.folder if state else None,
                saver=saver,
            )
            lines = [
                json.dumps({key: value if math.isfinite(value) else None for key, value in entry.items()})
                for entry in result.course.history
            ]
            (result.folder / "history.jsonl").write_text("\n".join(lines) + "\n")
            objects = store.write_folder(result.folder, uri)
        course = result.course
        buys_length = proxy_length_correlation(probes(course.history))
        with_length = {} if math.isnan(buys_length) else {"ppo/proxy_length_correlation": buys_length}
        slow = {"ppo/slow_comparisons": float(result.num_slow)} if config.task.kind == "math" else {}
        return commit(
            store,
            Manifest(
                stage="ppo",
                kind="checkpoint",
                name=name,
                uri=uri,
                objects=objects,
                inputs=inputs,
                config_hash=config_hash,
                code_version=code_version("ppo"),
                num_input_rows=len(training) + len(validation),
                num_rows=len(kept),
                rejected={"prompt too long": len(rejected)} if rejected else {},
                metrics={
                    **_agreements(course, reward, config),
                    "ppo/best_update": float(course.best_update),
                    "ppo/num_updates": float(course.update),
                    "ppo/stopped_by_monitor": float(course.stopped),
                    **with_length,
                    **_of_the_judge(course.history, config),
                    **slow,
                },
                wall_seconds=time.monotonic() - started,
            ),
            held,
        )


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


def _fitting(
    rows: list[Prompt], prompt_ids: Callable[[str], list[int]], config: Config
) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts that leave room for a rollout in the context, and those that do not."""
    room = config.engine.max_model_len - config.ppo.max_tokens
    fits = [len(prompt_ids(_message(row, config))) <= room for row in rows]
    return (
        [row for row, fit in zip(rows, fits, strict=True) if fit],
        [row for row, fit in zip(rows, fits, strict=True) if not fit],
    )


def _message(row: Prompt, config: Config) -> str:
    """The user message of a prompt."""
    return config.task.prompt_template.replace("{prompt}", row.prompt)


def _agreements(course: Course, reward: PpoReward, config: Config) -> dict[str, float]:
    """Tell which policy is kept; its agreement, where anything can agree."""
    if config.task.is_open:
        say(f"ppo({reward}): the policy of update {course.best_update} is kept, by its KL alone")
        return {}
    say(
        f"ppo({reward}): best policy is of update {course.best_update}, validation agreement "
        f"{course.start_agreement:.3f} -> {course.best_agreement:.3f}"
    )
    return {
        "ppo/validation_agreement": course.best_agreement,
        "ppo/start_agreement": course.start_agreement,
    }


class _Round(NamedTuple):
    """What the judge took in one round."""

    num_prompt_tokens: int
    num_tokens: int


def _of_the_judge(history: Sequence[Mapping[str, float]], config: Config) -> dict[str, float]:
    """The judge over all rounds; nothing where none was asked."""
    rounds = [entry for entry in history if "ppo/unjudged" in entry]
    if not rounds:
        return {}
    metrics = {"ppo/unjudged": fmean(entry["ppo/unjudged"] for entry in rounds)}
    if config.asks_a_server("teacher"):
        took = [
            _Round(int(entry["ppo/judge_prompt_tokens"]), int(entry["ppo/judge_tokens"])) for entry in rounds
        ]
        metrics |= spent(SPENT, took, config.openai)
    return metrics


def _check_reward(reward: PpoReward, teacher: Teacher | None, config: Config) -> None:
    """The teacher is there where it is the reward; answers to open questions agree with nothing."""
    if reward == "judge" and teacher is None:
        raise ConfigError(
            "no teacher to judge the rollouts",
            where="ppo, parameter teacher",
            expected="the teacher's Hugging Face folder, or its name at its server (the reward is judge)",
            got="none",
            remedy="Give it, or take another reward",
        )
    if config.task.is_open and reward in BY_AGREEMENT:
        raise ConfigError(
            "open answers cannot be rewarded for agreement",
            where="stage ppo, parameter reward",
            expected="model or judge (task.kind is open: no answer is the same as a label)",
            got=reward,
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
