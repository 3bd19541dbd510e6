"""A whole run of `distill` through all stages, with scripted engines and trainers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from limbeck import checkpoints, settings
from limbeck.compiled import find, load
from limbeck.config import Dtype
from limbeck.judged_answers import Judge
from limbeck.manifest import Manifest
from limbeck.planning.making import outline_of
from limbeck.planning.page import plan_of_report
from limbeck.rollout_judge import Teacher
from limbeck.run_file import RunFile
from limbeck.shards import Shard
from limbeck.stages import evaluate, generate, judge, label, ppo, prepare, report, reward, sft
from limbeck.stages.report import ReportInputs
from limbeck.storage import Store
from tests.fakes import ScriptedSampler


def sampler() -> ScriptedSampler:
    def answer(prompt: str, seed: int | None) -> str:
        if "correct?" in prompt:
            return "yes"
        if "Is the proposed answer good" in prompt:
            return "no" if "= x" in prompt else "yes"
        return f"= {prompt.split()[1] if seed is None or seed % 3 else 'x'}"

    return ScriptedSampler(answer)


def trained(**arguments: Any) -> Any:
    """Any training: a folder with weights, and what its stage asks for."""
    folder = arguments["folder"] / "result"
    folder.mkdir()
    (folder / "model.safetensors").write_text(arguments.get("reward", arguments.get("name", "weights")))
    course = {"best_agreement": 0.9, "start_agreement": 0.5, "best_update": 1, "update": 2, "stopped": False}
    scores = [
        item.pseudo_reward for item in arguments.get("validation", ()) if hasattr(item, "pseudo_reward")
    ]
    history = [{"step": 1.0, "sft/loss": 0.5}]
    return SimpleNamespace(
        folder=folder,
        history=history,
        validation_scores=np.array(scores),
        course=SimpleNamespace(history=PPO_HISTORY, **course),
    )


PPO_HISTORY = [{"update": 0.0}]


def run_all(
    store: Store, given: RunFile, until: str = "", pipeline: str = "distill", *, planned: bool = True
) -> Manifest | None:
    """All stages of `distill` in order, as its tasks call them, up to one of them; gives the report."""
    config, work = given.config, given.work_uri
    shards = [Shard(index=index, count=given.num_shards) for index in range(given.num_shards)]

    def engine(content: str, dtype: Dtype) -> str:
        return settings.of_engine(content, dtype, None)

    def model(path: str) -> str:
        return checkpoints.identity(store, path)

    if config.teacher.sampler == "openai":
        teacher = judging = settings.of_black_box(config, given.teacher)
    else:
        teacher = engine(model(given.teacher), config.teacher.dtype)
        judging = settings.of_engine(model(given.teacher), config.teacher.dtype, False)
    made = prepare.run(given.prompts, "", config, store, work)
    if until == "prepare":
        return None

    def measured(name: str, model_hash: str) -> Manifest:
        return evaluate.run(
            made.heldout, made.gold, model_hash, sampler, config, store, work,
            name=name, judge=Judge(judging, sampler),
        )  # fmt: skip

    def answered(role: Any, model_hash: str) -> list[Manifest]:
        parts = [
            generate.run(
                made.prompts, model_hash, sampler, config, store, work, role=role, shard=shard
            )
            for shard in shards
        ]  # fmt: skip
        return [generate.merged(parts, config, store)]

    def judgements(answers: list[Manifest]) -> list[Manifest]:
        (completions,) = answers
        parts = [
            judge.run(made.prompts, completions, judging, sampler, config, store, work, shard=shard)
            for shard in shards
        ]
        return [judge.merged(parts, store)]

    answers = answered("teacher", teacher)
    judged = judgements(answers)
    voted = label.run(made.prompts, answers, judged, None, config, store, work)
    base, dtype = model(given.student), config.student.dtype

    def folder(path: Path) -> Path:
        return path

    tuned = [
        sft.run(voted.labelled, base, folder, trained, config, store, work, selection=selection)
        for selection in ("selected", "all")
    ]
    results = [measured("teacher", teacher), measured("student", engine(base, dtype))]
    results += [measured(item.name, engine(item.content_hash, dtype)) for item in tuned]
    again = answered("student", engine(tuned[0].content_hash, dtype))
    judged_too = judgements(again) if config.task.is_open else []
    compared = label.run(made.prompts, again, judged_too, voted.labels, config, store, work)
    scorer = reward.run(
        voted.labelled, compared.labelled, tuned[0].content_hash, folder, trained, config, store, work
    )
    if until == "reward":
        return None
    policies = [
        ppo.run(
            ppo.PpoInputs(
                prompts=made.prompts, labels=voted.labels, checkpoint=tuned[0], reward_model=scorer,
                reward=kind, teacher=Teacher(judging, sampler) if kind == "judge" else None,
            ),
            lambda _: sampler().prompt_ids, trained, config, store, work,
        )
        for kind in given.ppo_rewards
    ]  # fmt: skip
    results += [measured(item.name, engine(item.content_hash, dtype)) for item in policies]
    inputs = ReportInputs(
        prompts=made.prompts, heldout=made.heldout, gold=made.gold, completions=tuple(answers),
        judgements=tuple(judged), labels=voted.labels, sft_checkpoints=tuple(tuned),
        student_completions=tuple(again), reward_model=scorer, policies=tuple(policies), policy=policies[0],
        results=tuple(results),
    )  # fmt: skip
    outlined = outline_of(given, load(find(pipeline)))
    plan = plan_of_report(outlined, made.prompts, made.heldout, config, store)
    return report.run(inputs, config, store, work, plan if planned else None)
