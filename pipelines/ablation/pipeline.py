"""The `ablation` pipeline: every row to compare the method with, from one set of completions. Wiring only."""

from typing import Any

from kfp import dsl

from components.compare.component import compare
from components.label.component import label
from components.match.component import match
from components.noise.component import noise
from components.ppo.component import ppo
from components.preflight.component import preflight
from components.reward.component import reward
from components.sft.component import sft
from limbeck.variants import REWARDS
from pipelines.distill.pipeline import STAGES as DISTILL
from pipelines.pods import Pods
from pipelines.wiring import (
    Data,
    Rewards,
    Run,
    base_models,
    distil_data,
    distil_rewards,
    evaluated,
    loop_items,
    prepared,
    tidied,
    told,
)

STAGES = [*DISTILL, "ablation"]
GOLD = "label.rule=gold,label.calibrate=none"
"""The variant of the upper bound."""


def once_more(given: Any) -> Any:
    """An input for one more task: Kubeflow wants a `Collected` of its own for each."""
    return dsl.Collected(given.output) if isinstance(given, dsl.Collected) else given


def other_warm_ups(run: Run, data: Any, made: Data, refined: Rewards, teacher: Any, student: Any) -> Any:
    """The teacher tuned on its own selected completions, and SFT at the compute of the whole method."""
    tuned = run.add(sft, "sft teacher selected", labelled=made.labelled, model=teacher, role="teacher")
    matched = match(
        checkpoint=made.student,
        student_labelled=refined.student_labelled,
        reward_model=refined.reward_model,
        policies=once_more(refined.policies),
        config=run.config,
    )
    run.pods.helper(matched, "match compute")
    longer = run.add(sft, "sft equal compute", labelled=made.labelled, model=student, variant=matched.output)
    made_of = {"tuned_teacher": tuned.outputs["checkpoint"], "longer_sft": longer.outputs["checkpoint"]}
    return {
        **made_of,
        "tuned_teacher_results": evaluated(
            run, data, "evaluate teacher selected", checkpoint=made_of["tuned_teacher"], name="teacher"
        ),
        "longer_sft_results": evaluated(
            run, data, "evaluate equal compute", checkpoint=made_of["longer_sft"]
        ),
    }


def gold_reward(run: Run, data: Any, made: Data, refined: Rewards) -> Any:
    """The upper bound: PPO that earns agreement with gold answers. Nothing else is made of these labels."""
    known = run.add(
        label,
        "label gold",
        prompts=data["prompts"],
        completions=once_more(made.teacher_completions),
        gold=data["gold"],
        variant=GOLD,
    )
    policy = run.add(
        ppo,
        "ppo gold",
        prompts=data["prompts"],
        labels=known.outputs["labels"],
        checkpoint=made.student,
        reward_model=refined.reward_model,
        reward="agreement",
        variant=GOLD,
    ).outputs["policy"]
    return {
        "gold_labels": known.outputs["labels"],
        "gold_policy": policy,
        "gold_results": evaluated(run, data, "evaluate gold", checkpoint=policy),
    }


def rewarded_otherwise(
    run: Run, data: Any, made: Data, teacher: Any, variant: Any, labels: Any, labelled: tuple[Any, Any]
) -> tuple[Any, Any, Any]:
    """Reward model, policy and evaluation of one variant, from the same warmed-up student."""
    scorer = run.add(
        reward,
        "reward",
        teacher_labelled=labelled[0],
        student_labelled=labelled[1],
        checkpoint=made.student,
        teacher=teacher,
        variant=variant,
    ).outputs["reward_model"]
    policy = run.add(
        ppo,
        "ppo",
        prompts=data["prompts"],
        labels=labels,
        checkpoint=made.student,
        reward_model=scorer,
        reward="model",
        variant=variant,
    ).outputs["policy"]
    return scorer, policy, evaluated(run, data, "evaluate ppo", checkpoint=policy)


def sweeps(
    run: Run,
    data: Any,
    made: Data,
    refined: Rewards,
    teacher: Any,
    reward_variants: Any,
    noise_variants: Any,
) -> Any:
    """Other settings of the reward model, and labels of which some are wrong."""
    with dsl.ParallelFor(reward_variants, name="reward variants") as variant:
        of_reward = rewarded_otherwise(
            run, data, made, teacher, variant, made.labels, (made.labelled, refined.student_labelled)
        )
    with dsl.ParallelFor(noise_variants, name="noise variants") as variant:
        noisy = run.add(
            noise,
            "noise",
            stage="label",
            labels=made.labels,
            teacher_labelled=made.labelled,
            student_labelled=refined.student_labelled,
            variant=variant,
        ).outputs
        labelled = (noisy["noisy_teacher"], noisy["noisy_student"])
        of_noise = rewarded_otherwise(run, data, made, teacher, variant, noisy["noisy_labels"], labelled)
    names = ("{}_variants", "{}_variant_policies", "{}_variant_results")
    return {
        "noisy_labels": dsl.Collected(noisy["noisy_labels"]),
        **{
            name.format(kind): dsl.Collected(output)
            for kind, outputs in (("reward", of_reward), ("noise", of_noise))
            for name, output in zip(names, outputs, strict=True)
        },
    }


@dsl.pipeline(name="ablation")
def ablation(
    work_uri: str,
    prompts: str,
    teacher: str,
    student: str,
    heldout: str = "",
    config: dict[str, Any] = {},
    num_shards: int = 1,
    ppo_rewards: list[str] = list(REWARDS),
    reward_variants: list[str] = [
        "reward.source_weight=0",
        "reward.source_weight=0.25",
        "reward.source_weight=0.75",
        "reward.source_weight=1",
    ],
    noise_variants: list[str] = ["label.noise=0.1", "label.noise=0.2", "label.noise=0.4"],
    gpus: int = 1,
    gpu_resource: str = "nvidia.com/gpu",
    resources: dict[str, Any] = {},
    train_jobs: dict[str, Any] = {},
    node_selector: dict[str, Any] = {},
    node_affinity: dict[str, Any] = {},
    tolerations: list[dict[str, Any]] = [],
    s3_secret: str = "limbeck-s3",
    image_pull_secret: str = "limbeck-pull",
) -> None:
    """Run `distill`, and every row to compare it with, from the same completions; one page shows them all.

    The teacher tuned on its own answers, SFT at equal compute, gold labels as an upper bound, a sweep of the
    reward model's settings, and a sweep of label noise. Nothing is generated twice.

    Args:
        work_uri: Prefix in the object store for all results; the same one finds finished stages again.
        prompts: Data set: a file or folder (JSONL, JSON, Parquet, CSV) or `hf://`; columns `prompt` and, to
            measure with, `answer`.
        teacher: URI of the larger model's Hugging Face folder.
        student: URI of the smaller model's Hugging Face folder.
        heldout: The same for held-out prompts; empty holds out a part of `prompts`.
        config: Settings of all stages, as under `config` in a run file.
        num_shards: Into how many tasks generating and judging are split.
        ppo_rewards: One PPO run for each: `model`, which must be there, `mixed`, `agreement`, `judge`.
        reward_variants: A reward model and a PPO run for each: `section.field=value`.
        noise_variants: The same from labels of which a share is made wrong: `label.noise=SHARE`.
        gpus: GPUs of each task that uses some; 0 asks for none.
        gpu_resource: What the cluster calls its GPUs.
        resources: CPU, memory and GPUs by stage, where the defaults do not fit:
            `{"ppo": {"cpu": "16", "memory": "256Gi", "gpus": 2}}`.
        train_jobs: Kueue's queue and priority, and the runtime, of trainings on several nodes:
            `{"queue": "gpus", "priority_class": "limbeck-batch", "runtime": "limbeck"}`.
        node_selector: Labels that the nodes of GPU tasks must have, such as the GPU's model.
        node_affinity: Kubernetes nodeAffinity of GPU tasks.
        tolerations: Kubernetes tolerations of GPU tasks.
        s3_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and, optional,
            AWS_REGION.
        image_pull_secret: Secret for pulling images; it need not exist where the registry is open.
    """
    pods = Pods(
        s3_secret=s3_secret,
        image_pull_secret=image_pull_secret,
        gpu_resource=gpu_resource,
        node_selector=node_selector,
        node_affinity=node_affinity,
        tolerations=tolerations,
        train_jobs=train_jobs,
    )
    with tidied(pods, config):
        checked = pods.first(
            preflight(
                work_uri=work_uri,
                stages=STAGES,
                prompts=prompts,
                heldout=heldout,
                teacher=teacher,
                student=student,
                gpus=gpus,
                resources=resources,
                config=config,
                ppo_rewards=ppo_rewards,
                reward_variants=reward_variants,
                noise_variants=noise_variants,
                num_shards=num_shards,
                **pods.nodes,
            )
        )
        run = Run(pods, checked.outputs, work_uri, config)
        data = prepared(run, checked, prompts, heldout)
        shard_items = loop_items(run, checked, num_shards)
        made = distil_data(run, data, shard_items, num_shards, teacher, student)
        refined = distil_rewards(
            run,
            data,
            shard_items,
            num_shards,
            ppo_rewards,
            teacher=teacher,
            labels=made.labels,
            labelled=made.labelled,
            student=made.student,
        )
        shared = {
            "completions": made.teacher_completions,
            "judgements": made.judgements,
            "labels": made.labels,
            "student_completions": refined.student_completions,
            "sft_checkpoints": made.sft_checkpoints,
            "reward_model": refined.reward_model,
            "policies": refined.policies,
            "policy_results": refined.policy_results,
            **base_models(run, data, teacher, student),
        }
        told(run, data, made.sft_results, prompts=data["prompts"], policy=refined.policy, **shared)
        rows = {
            **other_warm_ups(run, data, made, refined, teacher, student),
            **gold_reward(run, data, made, refined),
            **sweeps(run, data, made, refined, teacher, reward_variants, noise_variants),
        }
        given = {"sft_results": made.sft_results, **shared, **rows}
        run.add(
            compare, "compare rows", stage="report", **{name: once_more(item) for name, item in given.items()}
        )
