"""Training on several nodes: a task that waits for a TrainJob, and one that leaves none behind after a run.

{work_uri}/train-jobs/{name}/given.json     what the nodes are given: they run `limbeck.tasks.node` on it
{work_uri}/train-jobs/{name}/made.json      the manifest of what they made, written by the first of them
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.config import TRAIN_STAGES, Config, parse_config
from limbeck.errors import DataError
from limbeck.manifest import Manifest, find, parse
from limbeck.progress import say
from limbeck.resources import DEFAULTS, LAUNCHER, StageRequest, processes_of_node
from limbeck.storage import Store
from limbeck.tasks.artifacts import Settings, task
from limbeck.tasks.specs import AnySpec
from limbeck.trainjob import ACCOUNT, TrainJob, name_of, parse_settings

if TYPE_CHECKING:
    from limbeck.cluster_api import Cluster

GIVEN, MADE = "given.json", "made.json"


def num_nodes(config: Config, stage: str) -> int:
    """Over how many nodes a stage trains."""
    return int(getattr(config, stage).deepspeed.nodes)


def shared_out(
    asked: Mapping[str, StageRequest], config: Config
) -> tuple[dict[str, StageRequest], dict[str, StageRequest]]:
    """What the tasks of each stage ask for, and what each node of a training on several does.

    The task of such a training only waits: its wishes are those of its nodes.
    """
    of_nodes = {stage: asked[stage] for stage in TRAIN_STAGES if num_nodes(config, stage) > 1}
    return {**asked, **dict.fromkeys(of_nodes, LAUNCHER)}, of_nodes


def placed(
    node_selector: Settings,
    node_affinity: Settings,
    tolerations: list[Settings],
    of_nodes: Collection[str],
) -> dict[str, Settings | list[Settings]]:
    """On which nodes the tasks of each training run: those of the run; anywhere where they only wait.

    Args:
        node_selector: Of the run, as are the next two.
        node_affinity: Kubernetes nodeAffinity.
        tolerations: Kubernetes tolerations.
        of_nodes: The trainings on several nodes.
    """
    found: dict[str, Settings | list[Settings]] = {}
    for stage in TRAIN_STAGES:
        waits = stage in of_nodes
        found[f"{stage}_node_selector"] = {} if waits else node_selector
        found[f"{stage}_node_affinity"] = {} if waits else node_affinity
        found[f"{stage}_tolerations"] = [] if waits else tolerations
    return found


def launch(spec: AnySpec, config: Config, values: Settings, cluster: "Cluster") -> Manifest:
    """Have a TrainJob do a training, and wait for it.

    Args:
        spec: The training.
        config: Its settings.
        values: The parameter `train_jobs`.
        cluster: Where this process is a pod.

    Raises:
        LimbeckError: when the training fails, or the cluster.
    """
    from limbeck.cluster_api import own_pod
    from limbeck.launcher import train

    settings, store = parse_settings(values), Store()
    pod = own_pod(cluster)
    name = name_of(spec.stage, spec.digest)
    place = f"{spec.work_uri.rstrip('/')}/train-jobs/{name}"
    if complete := made_by(store, place):
        say(f"{spec.stage}: TrainJob {name} has made it already")
        return complete
    store.write_bytes(f"{place}/{GIVEN}", spec.model_dump_json().encode())
    request = settings.nodes.get(spec.stage, DEFAULTS[spec.stage])
    job = TrainJob(
        stage=spec.stage,
        digest=spec.digest,
        spec_uri=f"{place}/{GIVEN}",
        image=pod.image,
        nodes=num_nodes(config, spec.stage),
        processes=processes_of_node(getattr(config, spec.stage).deepspeed, request),
        request=request,
        settings=settings,
        owner=pod.owner,
    )
    train(job, cluster)
    made = made_by(store, place)
    if made is None:
        raise DataError(
            "a TrainJob is complete, and what it made is not there",
            where=f"{place}/{MADE}",
            expected="a manifest whose objects are there",
            remedy=f"Delete it (kubectl delete trainjob {name}) and run the task again",
        )
    return made


def made_by(store: Store, place: str) -> Manifest | None:
    """What a TrainJob has made, if all of it is still there."""
    uri = f"{place}/{MADE}"
    return find(store, parse(store.read_bytes(uri), uri).uri) if store.exists(uri) else None


def cleanup(*, config: Settings) -> None:
    """Delete the TrainJobs of a run that is over: one that failed or was cancelled may have left some."""
    with task("cleanup"):
        tidy(parse_config(config), ACCOUNT)


def tidy(config: Config, account: Path) -> None:
    """The same; those of the run's variants are among them, as they train on as many nodes.

    Args:
        config: The settings of the run.
        account: Where the token of this pod's service account lies.

    Raises:
        ConfigError: when this is no pod.
        ClusterError: when the API refuses, or is away for too long.
    """
    if not any(num_nodes(config, stage) > 1 for stage in TRAIN_STAGES):
        say("cleanup: all trainings were on one node, nothing is left")
        return
    from limbeck.cluster_api import own_cluster, own_pod
    from limbeck.launcher import cancel

    cluster = own_cluster(account=account)
    owner = own_pod(cluster).owner
    count = cancel(cluster, owner.uid) if owner else 0
    say(f"cleanup: {count} TrainJobs of this run deleted")
