"""The tasks that the pipeline `ablation` adds: the rows that the method is compared with.

What only moves rows (`noise`, `compare`) is left without a time: none was measured.
"""

from collections.abc import Iterator
from dataclasses import replace

from limbeck.ablation.compute import Counts, equal_epochs
from limbeck.config import parse_config
from limbeck.planning.workload import Run, Work, accepted, evaluation, policy, reward_model, warm_up
from limbeck.variants import named

GOLD = "label.rule=gold,label.calibrate=none"
"""The variant of the upper bound, as `pipelines/ablation` names it."""


def compared_rows(run: Run) -> Iterator[Work]:
    """All of them; none where the pipeline makes no ablation."""
    if not run.outline.ablates:
        return
    selected = accepted(run)
    yield warm_up(run, "sft teacher_selected", "teacher_selected", 5, selected, model="teacher")
    yield evaluation(run, "teacher_selected", "teacher")
    epochs = round(equal_epochs(_counts(run)), 2)
    longer = named("sft_selected", f"sft.num_epochs={epochs:.2f}")
    yield warm_up(run, "sft at equal compute", longer, 11, selected, epochs=epochs)
    yield evaluation(run, longer, "student", 12)
    samples = run.config.generate
    answers = run.asked.prompts * samples.teacher.samples_per_prompt
    yield Work("label gold", "label", named("labels_teacher", GOLD), 4, run.requests["label"], rows=answers)
    yield from _under(run, GOLD, [replace(policy(run, "agreement", 10), task="ppo gold")])
    for variant in run.outline.reward_variants:
        varied = _varied(run, variant)
        yield from _under(varied, variant, [reward_model(varied, 9), policy(varied, "model", 10)])
    rows = answers + run.asked.prompts * samples.student.samples_per_prompt
    for variant in run.outline.noise_variants:
        varied = _varied(run, variant)
        yield Work(f"noise {variant}", "noise", "noise", 9, run.requests["label"], rows=rows)
        yield from _under(varied, variant, [reward_model(varied, 10), policy(varied, "model", 11)])
    yield Work("compare rows", "ablation", "ablation", 13, run.requests["report"])


def _varied(run: Run, variant: str) -> Run:
    """The run with the settings of a variant."""
    return replace(run, config=parse_config(run.config.model_dump(mode="json"), variant))


def _under(run: Run, variant: str, trainings: list[Work]) -> Iterator[Work]:
    """Trainings of a variant under its name, and the evaluation of the last one."""
    for work in trainings:
        task = work.task if variant == GOLD else f"{work.task} {variant}"
        yield replace(work, task=task, name=named(work.name, variant), config=run.config)
    last = trainings[-1]
    yield evaluation(run, named(last.name, variant), "student", last.step + 1)


def _counts(run: Run) -> Counts:
    """What the method's own row takes, as the component `match` counts it."""
    config, asked = run.config, run.asked
    ppo, samples = config.ppo, config.generate
    student, scorer = run.models["student"].shape.parameters, run.base.shape.parameters
    trained = asked.prompts - run.validation
    checks = ppo.num_updates // ppo.evaluate_every + 1 + bool(ppo.num_updates % ppo.evaluate_every)
    critic = {"reward": scorer, "student": student}[ppo.value_init] if ppo.algorithm == "ppo" else 0
    return Counts(
        student=student,
        scorer=scorer,
        critic=critic,
        sft_rows=round(accepted(run)),
        sft_epochs=config.sft.num_epochs,
        student_rows=asked.prompts * samples.student.samples_per_prompt,
        reward_rows=trained * (samples.teacher.samples_per_prompt + samples.student.samples_per_prompt),
        reward_epochs=config.reward.num_epochs,
        rollouts=ppo.num_updates * ppo.batch_size,
        ppo_epochs=ppo.num_ppo_epochs,
        checked=checks * run.validation * ppo.validation_samples,
    )
