"""The `distill` pipeline: data and rewards from a teacher into a student. Wiring only."""

from typing import Any

from kfp import dsl, kubernetes

from components.evaluate.component import evaluate
from components.generate.component import generate
from components.judge.component import judge
from components.label.component import label
from components.pick.component import pick
from components.ppo.component import ppo
from components.preflight.component import preflight
from components.prepare.component import prepare
from components.report.component import report
from components.reward.component import reward
from components.sft.component import sft

S3_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")


@dsl.pipeline(name="distill")
def distill(
    work_uri: str,
    config: dict[str, Any],
    num_shards: int = 1,
    ppo_rewards: list[str] = ["model", "mixed", "agreement"],  # noqa: B006 - Kubeflow reads it, nothing changes it
    s3_secret: str = "limbeck-s3",  # noqa: S107 - the name of a secret
) -> None:
    """Teach a small model what a large one knows, and how it judges, without any gold answer.

    The teacher answers and judges; judged votes give pseudo labels; the student is warmed up on the
    selected completions; a reward model learns from both models' completions; PPO refines the student.

    Args:
        work_uri: Prefix in the object store for all results; the same one finds finished stages again.
        config: Settings of all stages, as under `config` in a run file.
        num_shards: Into how many tasks generating and judging are split.
        ppo_rewards: One PPO run for each: `model`, `mixed`, `agreement`.
        s3_secret: Secret with the keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL.
    """

    def on_store(task: dsl.PipelineTask, name: str) -> Any:
        """Name a task for people and let it reach the object store."""
        task.set_display_name(name)
        return kubernetes.use_secret_as_env(task, s3_secret, {key: key for key in S3_VARIABLES})

    shards = on_store(preflight(work_uri=work_uri, config=config, num_shards=num_shards), "preflight")
    shards.set_caching_options(enable_caching=False)  # it looks at the world, not at its inputs

    data = on_store(prepare(work_uri=work_uri, config=config).after(shards), "prepare")
    prompts, heldout, gold = data.outputs["prompts"], data.outputs["heldout"], data.outputs["gold"]

    with dsl.ParallelFor(shards.output, name="teacher shards") as shard:
        teacher = on_store(
            generate(
                prompts=prompts,
                work_uri=work_uri,
                config=config,
                role="teacher",
                shard=shard,
                num_shards=num_shards,
            ),
            "generate teacher",
        )
        judged = on_store(
            judge(
                prompts=prompts,
                completions=teacher.outputs["completions"],
                work_uri=work_uri,
                config=config,
            ),
            "judge",
        )
    voted = on_store(
        label(
            prompts=prompts,
            completions=dsl.Collected(teacher.outputs["completions"]),
            judgements=dsl.Collected(judged.outputs["judgements"]),
            work_uri=work_uri,
            config=config,
        ),
        "label teacher",
    )

    with dsl.ParallelFor(["selected", "all"], name="warm-ups") as selection:
        warmed_up = on_store(
            sft(
                labelled=voted.outputs["labelled"],
                work_uri=work_uri,
                config=config,
                selection=selection,
            ),
            "sft",
        )
        warmed_up_result = on_store(
            evaluate(
                heldout=heldout,
                gold=gold,
                checkpoint=warmed_up.outputs["checkpoint"],
                work_uri=work_uri,
                config=config,
            ),
            "evaluate sft",
        )
    student = pick(checkpoints=dsl.Collected(warmed_up.outputs["checkpoint"]), names=["sft_selected"])
    on_store(student, "pick student")

    with dsl.ParallelFor(shards.output, name="student shards") as shard:
        answered = on_store(
            generate(
                prompts=prompts,
                work_uri=work_uri,
                config=config,
                role="student",
                shard=shard,
                num_shards=num_shards,
                checkpoint=student.outputs["picked"],
            ),
            "generate student",
        )
    student_labelled = on_store(
        label(
            prompts=prompts,
            completions=dsl.Collected(answered.outputs["completions"]),
            given_labels=voted.outputs["labels"],
            work_uri=work_uri,
            config=config,
        ),
        "label student",
    )
    rewarded = on_store(
        reward(
            teacher_labelled=voted.outputs["labelled"],
            student_labelled=student_labelled.outputs["labelled"],
            checkpoint=student.outputs["picked"],
            work_uri=work_uri,
            config=config,
        ),
        "reward",
    )

    with dsl.ParallelFor(ppo_rewards, name="policies") as kind:
        refined = on_store(
            ppo(
                prompts=prompts,
                labels=voted.outputs["labels"],
                checkpoint=student.outputs["picked"],
                reward_model=rewarded.outputs["reward_model"],
                work_uri=work_uri,
                config=config,
                reward=kind,
            ),
            "ppo",
        )
        refined_result = on_store(
            evaluate(
                heldout=heldout,
                gold=gold,
                checkpoint=refined.outputs["policy"],
                work_uri=work_uri,
                config=config,
            ),
            "evaluate ppo",
        )
    policy = pick(
        checkpoints=dsl.Collected(refined.outputs["policy"]),
        names=["ppo_model", "ppo_mixed"],
        metric="ppo/validation_agreement",
    )
    on_store(policy, "pick policy")

    with dsl.ParallelFor(["teacher", "student"], name="base models") as name:
        base_result = on_store(
            evaluate(heldout=heldout, gold=gold, name=name, work_uri=work_uri, config=config),
            "evaluate",
        )

    on_store(
        report(
            prompts=prompts,
            heldout=heldout,
            gold=gold,
            completions=dsl.Collected(teacher.outputs["completions"]),
            judgements=dsl.Collected(judged.outputs["judgements"]),
            labels=voted.outputs["labels"],
            student_completions=dsl.Collected(answered.outputs["completions"]),
            sft_checkpoints=dsl.Collected(warmed_up.outputs["checkpoint"]),
            reward_model=rewarded.outputs["reward_model"],
            policies=dsl.Collected(refined.outputs["policy"]),
            policy=policy.outputs["picked"],
            base_results=dsl.Collected(base_result.outputs["results"]),
            sft_results=dsl.Collected(warmed_up_result.outputs["results"]),
            policy_results=dsl.Collected(refined_result.outputs["results"]),
            work_uri=work_uri,
            config=config,
        ),
        "report",
    )
