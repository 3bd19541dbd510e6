"""How the stages hang together: functions that the pipelines share. Wiring only.

Each takes the pods' settings and the pipeline's parameters, adds tasks to the pipeline being defined, and
gives what later tasks need of them. They are called inside a `@dsl.pipeline` function.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kfp import dsl

from components.cleanup.component import cleanup
from components.evaluate.component import evaluate
from components.generate.component import generate
from components.judge.component import judge
from components.label.component import label
from components.load.component import load
from components.merge.component import merge
from components.pick.component import pick
from components.ppo.component import ppo
from components.prepare.component import prepare
from components.report.component import report
from components.reward.component import reward
from components.sft.component import sft
from components.shards.component import shards
from pipelines.pods import Pods

TRAININGS = (sft, reward, ppo)
"""What may train on several nodes."""


@contextmanager
def tidied(pods: Pods, config: Any) -> Iterator[None]:
    """All tasks of a run; `cleanup` comes after them, however they end."""
    with dsl.ExitHandler(pods.last(cleanup(config=config)), name="run"):
        yield


@dataclass(frozen=True)
class Run:
    """What all tasks of a run share."""

    pods: Pods
    requests: Any
    """The outputs of `preflight`: what each stage asks for, and the run's outline."""
    work_uri: Any
    config: Any
    shards: Any
    """The shards of `generate` and `judge` to loop over."""
    num_shards: Any
    evaluate_shards: Any
    """Those of `evaluate`."""
    num_evaluate_shards: Any
    judge: Any = None
    """The teacher, where it judges all answers (the student's, held-out ones): of open questions."""

    def add(
        self,
        component: Any,
        title: str,
        stage: str = "",
        *,
        of_teacher: bool = False,
        asks_teacher: bool = False,
        **inputs: Any,
    ) -> Any:
        """Add a task of a stage, by default the one that the title begins with.

        One in which the teacher answers or judges may ask a server.
        """
        if component in TRAININGS:
            # On a laptop kfp 2.17 puts the item of a loop there; it is read on clusters alone.
            inputs["train_jobs"] = self.requests["train_jobs"]
        task = component(work_uri=self.work_uri, config=self.config, **inputs)
        return self.pods.stage(
            task, title, self.requests, stage, of_teacher=of_teacher, asks_teacher=asks_teacher
        )

    def judged(self, title: str, prompts: Any, completions: Any, teacher: Any) -> Any:
        """The teacher's judgements of completions."""
        with dsl.ParallelFor(self.shards, name=f"{title} shards") as shard:
            task = self.add(
                judge,
                title,
                of_teacher=True,
                prompts=prompts,
                completions=completions,
                model=teacher,
                shard=shard,
                num_shards=self.num_shards,
            )
        return self.merged(title, task.outputs["judgements"])

    def merged(self, title: str, output: Any) -> Any:
        """What all shards of a loop have made, as one."""
        task = merge(shards=dsl.Collected(output), config=self.config)
        return self.pods.helper(task, f"merge {title}").outputs["merged"]


@dataclass(frozen=True)
class Data:
    """What data distillation gives on."""

    teacher_completions: Any
    judgements: Any
    labels: Any
    labelled: Any
    sft_checkpoints: Any
    sft_results: Any
    student: Any
    """The student warmed up on selected completions."""


@dataclass(frozen=True)
class Rewards:
    """What reward distillation gives on."""

    student_completions: Any
    student_labelled: Any
    reward_model: Any
    policies: Any
    policy: Any
    """The best of the policies that may be chosen."""
    policy_results: Any


def prepared(run: Run, after: dsl.PipelineTask, data: Any, heldout_data: Any) -> Any:
    """Prompts, held-out prompts and gold answers: the outputs of `prepare`."""
    task = run.add(prepare, "prepare", data=data, heldout_data=heldout_data)
    return task.after(after).outputs


def begun(
    pods: Pods,
    checked: dsl.PipelineTask,
    work_uri: Any,
    config: Any,
    num_shards: Any,
    num_evaluate_shards: Any,
    judge: Any = None,
    models: Any = None,
) -> Run:
    """What the tasks of a run share, once `preflight` has passed; without a number nothing is shared.

    With `models` one loop goes over the shards of all their evaluations: see `evaluated_all`.
    """

    def items(number: Any, name: str, **of: Any) -> Any:
        return pods.helper(shards(num_shards=number, **of), name).after(checked).output

    of_models = {} if models is None else {"for_each": models}

    return Run(
        pods=pods,
        requests=checked.outputs,
        work_uri=work_uri,
        config=config,
        shards=None if num_shards is None else items(num_shards, "shards"),
        num_shards=num_shards,
        evaluate_shards=items(num_evaluate_shards, "shards of evaluate", **of_models),
        num_evaluate_shards=num_evaluate_shards,
        judge=judge,
    )


def generated(run: Run, prompts: Any, role: str, **model: Any) -> Any:
    """The completions of teacher or student."""
    with dsl.ParallelFor(run.shards, name=f"{role} shards") as shard:
        answered = run.add(
            generate,
            f"generate {role}",
            of_teacher=role == "teacher",
            prompts=prompts,
            role=role,
            shard=shard,
            num_shards=run.num_shards,
            **model,
        )
    return run.merged(f"generate {role}", answered.outputs["completions"])


def evaluation(run: Run, prepare_outputs: Any, title: str, *, of_teacher: bool = False, **inputs: Any) -> Any:
    """One task of an evaluation."""
    inputs |= {name: prepare_outputs[name] for name in ("heldout", "gold")}
    if run.judge is not None:
        inputs["judge"] = run.judge
    task = run.add(evaluate, title, of_teacher=of_teacher, asks_teacher=run.judge is not None, **inputs)
    return task.outputs["results"]


def evaluated(run: Run, prepare_outputs: Any, title: str, *, of_teacher: bool = False, **model: Any) -> Any:
    """The evaluation of one model."""
    with dsl.ParallelFor(run.evaluate_shards, name=f"{title} shards") as shard:
        results = evaluation(
            run,
            prepare_outputs,
            title,
            of_teacher=of_teacher,
            shard=shard,
            num_shards=run.num_evaluate_shards,
            **model,
        )
    return run.merged(title, results)


def evaluated_all(run: Run, prepare_outputs: Any, models: Any) -> Any:
    """The evaluations of several models, each named after its folder; `report` merges their shards.

    One loop, not one over shards within one over models: in that Kubeflow's local runner (2.17) gives the
    inner loop's item for the outer one's.
    """
    with dsl.ParallelFor(run.evaluate_shards, name="models and shards") as shard:
        results = evaluation(
            run,
            prepare_outputs,
            "evaluate",
            models=models,
            shard=shard,
            num_shards=run.num_evaluate_shards,
        )
    return dsl.Collected(results)


def base_models(run: Run, prepare_outputs: Any, teacher: Any, student: Any) -> dict[str, Any]:
    """Evaluations of teacher and student as they came, under the report's names for them."""
    return {
        f"{name}_results": evaluated(
            run, prepare_outputs, f"evaluate {name}", of_teacher=name == "teacher", name=name, model=model
        )
        for name, model in (("teacher", teacher), ("student", student))
    }


def distil_data(
    run: Run,
    prepare_outputs: Any,
    teacher: Any,
    student: Any,
    *,
    gold_labels: bool = False,
) -> Data:
    """The teacher answers and judges, votes make labels, the student is warmed up and evaluated.

    With `gold_labels` the labels are gold answers: an upper bound. Nothing else gives these to `label`.
    """
    prompts = prepare_outputs["prompts"]
    completions = generated(run, prompts, "teacher", model=teacher)
    judgements = run.judged("judge", prompts, completions, teacher)
    voted = run.add(
        label,
        "label teacher",
        prompts=prompts,
        completions=completions,
        judgements=judgements,
        **({"gold": prepare_outputs["gold"]} if gold_labels else {}),
    )
    with dsl.ParallelFor(["selected", "all"], name="warm-ups") as selection:
        warmed_up = run.add(
            sft, "sft", labelled=voted.outputs["labelled"], model=student, selection=selection
        )
        result = evaluated(run, prepare_outputs, "evaluate sft", checkpoint=warmed_up.outputs["checkpoint"])
    picked = pick(checkpoints=dsl.Collected(warmed_up.outputs["checkpoint"]), names=["sft_selected"])
    run.pods.helper(picked, "pick student")
    return Data(
        teacher_completions=completions,
        judgements=judgements,
        labels=voted.outputs["labels"],
        labelled=voted.outputs["labelled"],
        sft_checkpoints=dsl.Collected(warmed_up.outputs["checkpoint"]),
        sft_results=dsl.Collected(result),
        student=picked.outputs["picked"],
    )


def distil_rewards(
    run: Run,
    prepare_outputs: Any,
    ppo_rewards: Any,
    teacher: Any,
    labels: Any,
    labelled: Any,
    student: Any,
) -> Rewards:
    """The warmed-up student answers, a reward model learns from both, and PPO refines the student.

    Where the teacher judges all answers there are no labels to compare with: it judges the student's too, and
    nothing can tell two policies apart.
    """
    prompts = prepare_outputs["prompts"]
    is_open = run.judge is not None
    completions = generated(run, prompts, "student", checkpoint=student)
    judged = {"judgements": run.judged("judge student", prompts, completions, run.judge)} if is_open else {}
    compared = run.add(
        label, "label student", prompts=prompts, completions=completions, given_labels=labels, **judged
    )
    rewarded = run.add(
        reward,
        "reward",
        teacher_labelled=labelled,
        student_labelled=compared.outputs["labelled"],
        checkpoint=student,
        teacher=teacher,
    )
    with dsl.ParallelFor(ppo_rewards, name="policies") as kind:
        refined = run.add(
            ppo,
            "ppo",
            of_teacher=True,
            prompts=prompts,
            labels=labels,
            checkpoint=student,
            reward_model=rewarded.outputs["reward_model"],
            reward=kind,
            teacher=teacher,
        )
        result = evaluated(run, prepare_outputs, "evaluate ppo", checkpoint=refined.outputs["policy"])
    picked = pick(
        checkpoints=dsl.Collected(refined.outputs["policy"]),
        names=["ppo_model"] if is_open else ["ppo_model", "ppo_mixed"],
        metric="" if is_open else "ppo/validation_agreement",
    )
    run.pods.helper(picked, "pick policy")
    return Rewards(
        student_completions=completions,
        student_labelled=compared.outputs["labelled"],
        reward_model=rewarded.outputs["reward_model"],
        policies=dsl.Collected(refined.outputs["policy"]),
        policy=picked.outputs["picked"],
        policy_results=dsl.Collected(result),
    )


def loaded(run: Run, after: dsl.PipelineTask, uri: Any, kind: str) -> Any:
    """What an earlier run made."""
    return run.pods.helper(load(uri=uri, kind=kind), f"load {kind}").after(after).outputs["loaded"]


def told(run: Run, prepare_outputs: Any, results: Any, **inputs: Any) -> None:
    """The report of whatever was made."""
    run.add(
        report,
        "report",
        heldout=prepare_outputs["heldout"],
        gold=prepare_outputs["gold"],
        results=results,
        outline=run.requests["outline"],
        **inputs,
    )
