"""Where the tasks of a pipeline run and what they are given there: resources, nodes, secrets, retries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl import pipeline_channel, structures

from limbeck.config import GPU_STAGES, TRAIN_STAGES

S3_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
S3_OPTIONAL = ("AWS_REGION",)
HUB_OPTIONAL = ("HF_TOKEN",)
READS_DATA = ("preflight", "prepare")
"""Tasks that may have to ask a hub of data sets; no other one gets its token."""
API_VARIABLES = ("OPENAI_API_KEY",)
OWN_REQUESTS = ("judge", "ppo")
"""Stages of the teacher that have one size: it always judges, or only beside what is trained."""

# Kubeflow knows these only when a pipeline is compiled; `limbeck compile` sets others.
SHARED_MEMORY_PATH = "/dev/shm"  # noqa: S108 - a volume of the pod
SCRATCH_PATH = "/tmp"  # noqa: S108 - a volume of the pod
SHARED_MEMORY = "16Gi"  # NCCL and vLLM's workers; what is used of it counts as the task's memory
GPU_SCRATCH = "200Gi"  # checkpoints on their way from and to the object store
CPU_SCRATCH = "20Gi"
NUM_RETRIES = 5
SMALL = ("500m", "1Gi")  # a task that only reads and writes manifests
# Kubeflow's own limit is an hour from the first attempt's start: a longer stage would never be retried.
RETRY_WINDOW = "1209600s"


@dataclass(frozen=True)
class Pods:
    """The choices of a run that concern its pods; values are strings or the pipeline's parameters."""

    s3_secret: Any
    image_pull_secret: Any
    gpu_resource: Any
    node_selector: Any
    node_affinity: Any
    tolerations: Any
    train_jobs: Any = field(default_factory=dict)
    api_secret: Any = None
    """None where a pipeline asks no teacher, or only one that it loads."""

    @property
    def nodes(self) -> dict[str, Any]:
        """What `preflight` checks of them, and gives on to TrainJobs."""
        secrets = {"s3_secret": self.s3_secret, "api_secret": self.api_secret}
        return {name: secret for name, secret in secrets.items() if secret is not None} | {
            "gpu_resource": self.gpu_resource,
            "node_selector": self.node_selector,
            "node_affinity": self.node_affinity,
            "tolerations": self.tolerations,
            "train_jobs": self.train_jobs,
        }

    def helper(self, task: dsl.PipelineTask, name: str) -> dsl.PipelineTask:
        """Set up a task that only reads and writes manifests."""
        self._size(task, *SMALL)
        return self._common(task, name, CPU_SCRATCH)

    def first(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Set up `preflight`: it starts even without the secret, to say so, and sees the shared memory.

        It is tried again once: what it finds should not wait for a row of retries.
        """
        task.set_caching_options(enable_caching=False)  # it looks at the world, not at its inputs
        kubernetes.empty_dir_mount(task, "shm", SHARED_MEMORY_PATH, medium="Memory", size_limit=SHARED_MEMORY)
        self._size(task, *SMALL)
        self._common(task, "preflight", CPU_SCRATCH, secret_is_optional=True, num_retries=1)
        return self._api_key(task)

    def last(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Set up `cleanup`: it starts even without the secret, or a run that lacks it would never end."""
        task.set_caching_options(enable_caching=False)
        self._size(task, *SMALL)
        return self._common(task, "cleanup", CPU_SCRATCH, secret_is_optional=True)

    def stage(
        self,
        task: dsl.PipelineTask,
        name: str,
        requests: Mapping[str, Any],
        stage: str = "",
        *,
        of_teacher: bool = False,
        asks_teacher: bool = False,
    ) -> dsl.PipelineTask:
        """Set up a task of a stage.

        Args:
            task: The task.
            name: What people see.
            requests: The outputs of `preflight`.
            stage: The stage's word; by default the first of `name`.
            of_teacher: Whether the teacher answers, which may be a black box: then the task needs the key of
                its server, and no GPU unless it trains.
            asks_teacher: Whether the teacher judges what another model answers there: then it needs both.
        """
        stage = stage or name.split(maxsplit=1)[0]
        asking = f"{stage}_teacher" if of_teacher and stage not in OWN_REQUESTS else stage
        cpu, memory = requests[f"{asking}_cpu"], requests[f"{asking}_memory"]
        gpus = requests[f"{asking}_gpus"] if stage in GPU_STAGES else None
        self._size(task, cpu, memory, gpus)
        chosen = [cpu, memory]
        if stage in GPU_STAGES:
            chosen += [gpus, self.gpu_resource]
            # A training on several nodes needs no GPU for the task that waits for it.
            trains = stage in TRAIN_STAGES
            selector = requests[f"{stage}_node_selector"] if trains else self.node_selector
            affinity = requests[f"{stage}_node_affinity"] if trains else self.node_affinity
            tolerations = requests[f"{stage}_tolerations"] if trains else self.tolerations
            kubernetes.add_node_selector_json(task, selector)
            kubernetes.add_node_affinity_json(task, affinity)
            kubernetes.add_toleration_json(task, tolerations)
            kubernetes.empty_dir_mount(
                task, "shm", SHARED_MEMORY_PATH, medium="Memory", size_limit=SHARED_MEMORY
            )
        # Kubeflow 2.17 forgets to bring the values of resources into loops unless they are registered.
        task.register_pipeline_channels(
            [value for value in chosen if isinstance(value, pipeline_channel.PipelineChannel)]
        )
        self._common(task, name, GPU_SCRATCH if stage in GPU_STAGES else CPU_SCRATCH)
        return self._api_key(task) if of_teacher or asks_teacher else task

    def _api_key(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Give a task the key of the teacher's server, if there is one."""
        if self.api_secret is not None:
            variables = {key: key for key in API_VARIABLES}
            kubernetes.use_secret_as_env(task, self.api_secret, variables, optional=True)
        return task

    def _size(self, task: dsl.PipelineTask, cpu: Any, memory: Any, gpus: Any = None) -> None:
        """Ask for CPU and memory and be held to it: what is promised is there, and quotas see all of it."""
        # Each of Kubeflow's setters looks at the whole stack of calls first: a tenth of a second, which grows
        # with what is imported. By them all pipelines took minutes to compile.
        task.container_spec.resources = structures.ResourceSpec(
            cpu_request=str(cpu),
            cpu_limit=str(cpu),
            memory_request=str(memory),
            memory_limit=str(memory),
            accelerator_type=str(self.gpu_resource) if gpus is not None else None,
            accelerator_count=str(gpus) if gpus is not None else None,
        )

    def _common(
        self,
        task: dsl.PipelineTask,
        name: str,
        scratch: str,
        *,
        secret_is_optional: bool = False,
        num_retries: int = NUM_RETRIES,
    ) -> dsl.PipelineTask:
        """What every task gets: a name, the object store's secret, scratch space, retries."""
        task.set_display_name(name)
        task.set_retry(
            num_retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration=RETRY_WINDOW
        )
        variables = {key: key for key in S3_VARIABLES}
        kubernetes.use_secret_as_env(task, self.s3_secret, variables, optional=secret_is_optional)
        optional_keys = S3_OPTIONAL + (HUB_OPTIONAL if name in READS_DATA else ())
        kubernetes.use_secret_as_env(task, self.s3_secret, {key: key for key in optional_keys}, optional=True)
        kubernetes.set_security_context(
            task, run_as_non_root=True
        )  # `limbeck compile --kfp 2.15` takes it out
        kubernetes.set_image_pull_secrets(task, [self.image_pull_secret])
        kubernetes.empty_dir_mount(task, "scratch", SCRATCH_PATH, size_limit=scratch)
        return task
