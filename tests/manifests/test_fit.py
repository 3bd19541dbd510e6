"""The pods that Kubeflow makes of the compiled pipelines fit the namespace, its secret, limits and queues."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.compiled import Compiled, load
from limbeck.stamp import stamp
from manifests.kustomize import ROOT
from tests.manifests.built import example, of_kind, the_one

PIPELINES = sorted(Path("pipelines").glob("*/pipeline.yaml"))
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"  # Kueue's own constant
UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@pytest.fixture(params=PIPELINES, ids=lambda path: path.parent.name)
def pipeline(request: pytest.FixtureRequest) -> Compiled:
    return load(request.param)


def quantity(text: str) -> int:
    """Bytes, or a plain number."""
    found = re.fullmatch(r"(\d+)([KMGT]i)?", text)
    assert found, text
    return int(found[1]) * UNITS[found[2] or ""]


def secret_example() -> dict[str, Any]:
    return example(ROOT / "examples" / "s3-secret.yaml")


def test_there_are_pipelines_to_check() -> None:
    assert "distill" in [path.parent.name for path in PIPELINES]


def test_tasks_read_the_secret_of_the_example_by_default(pipeline: Compiled) -> None:
    secret = secret_example()
    assert pipeline.parameters["s3_secret"]["defaultValue"] == secret["metadata"]["name"]
    for label in pipeline.containers:
        given = pipeline.kubernetes[label]["secretAsEnv"]
        sources = [source for source in given if source["keyToEnv"][0]["envVar"] != "OPENAI_API_KEY"]
        named = {source["secretNameParameter"]["componentInputParameter"] for source in sources}
        assert {name.removeprefix("pipelinechannel--") for name in named} == {"s3_secret"}
        needed = {
            pair["secretKey"]
            for source in sources
            if not source.get("optional")
            for pair in source["keyToEnv"]
        }
        assert needed <= secret["stringData"].keys()


def test_the_example_of_a_black_boxs_key_has_the_name_that_pipelines_ask_for(pipeline: Compiled) -> None:
    secret = example(ROOT / "examples" / "api-secret.yaml")
    if "api_secret" in pipeline.parameters:
        assert pipeline.parameters["api_secret"]["defaultValue"] == secret["metadata"]["name"]
    assert secret["stringData"] == {"OPENAI_API_KEY": "replace-me"}


def test_every_task_runs_as_non_root_as_the_namespace_demands(pipeline: Compiled) -> None:
    """Kubeflow sets all else that `restricted` demands, from 2.16 on, but not this."""
    for label in pipeline.containers:
        assert pipeline.kubernetes[label].get("securityContext") == {"runAsNonRoot": True}, label


def test_scratch_space_stays_below_the_default_limit_of_ephemeral_storage(pipeline: Compiled) -> None:
    (limits,) = the_one("base", "LimitRange")["spec"]["limits"]
    limit = quantity(limits["default"]["ephemeral-storage"])
    for label, settings in pipeline.kubernetes.items():
        on_disk = [mount for mount in settings.get("emptyDirMounts", []) if mount.get("medium") != "Memory"]
        assert sum(quantity(mount["sizeLimit"]) for mount in on_disk) < limit, label


def test_a_queue_that_is_stamped_in_bears_kueues_label_and_the_default_one_exists(
    pipeline: Compiled,
) -> None:
    stamped = stamp(pipeline, queue="default")
    for label in pipeline.containers:
        assert stamped.kubernetes[label]["podMetadata"]["labels"] == {QUEUE_LABEL: "default"}
    assert "default" in of_kind("overlays/kueue", "LocalQueue")


def test_the_gpu_that_pipelines_ask_for_by_default_is_in_quota_and_queue(pipeline: Compiled) -> None:
    if "gpu_resource" in pipeline.parameters:
        gpu = pipeline.parameters["gpu_resource"]["defaultValue"]
        assert f"requests.{gpu}" in the_one("base", "ResourceQuota")["spec"]["hard"]
        assert gpu in covered()


def covered() -> dict[str, str]:
    """What the ClusterQueue admits, with its quota."""
    return {
        resource["name"]: resource["nominalQuota"]
        for group in the_one("overlays/kueue", "ClusterQueue")["spec"]["resourceGroups"]
        for flavor in group["flavors"]
        for resource in flavor["resources"]
    }


def test_no_default_limit_refuses_a_task_that_asks_for_more() -> None:
    (limits,) = the_one("base", "LimitRange")["spec"]["limits"]
    assert limits["type"] == "Container"
    assert set(limits["default"]) == {"ephemeral-storage"}  # tasks cannot say this one themselves


def test_a_container_that_says_nothing_passes_the_quota() -> None:
    (limits,) = the_one("base", "LimitRange")["spec"]["limits"]
    hard = the_one("base", "ResourceQuota")["spec"]["hard"]
    counted = {name.removeprefix("requests.") for name in hard if name.startswith("requests.")}
    assert counted - {"nvidia.com/gpu"} <= set(limits["defaultRequest"])
    assert not [name for name in hard if name.startswith("limits.")]


def test_the_queue_covers_all_that_a_pod_asks_for_by_default() -> None:
    (limits,) = the_one("overlays/kueue", "LimitRange")["spec"]["limits"]
    assert set(limits["defaultRequest"]) <= covered().keys()
    queue = the_one("overlays/kueue", "ClusterQueue")["spec"]
    for group in queue["resourceGroups"]:
        for flavor in group["flavors"]:
            assert [resource["name"] for resource in flavor["resources"]] == group["coveredResources"]


def test_with_a_queue_no_quota_counts_pods_that_wait() -> None:
    hard = the_one("overlays/kueue", "ResourceQuota")["spec"]["hard"]
    assert not [name for name in hard if name.startswith(("requests.", "limits.")) or name == "pods"]


def test_queue_flavors_and_namespace_belong_together() -> None:
    queue = the_one("overlays/kueue", "ClusterQueue")
    assert the_one("overlays/kueue", "LocalQueue")["spec"]["clusterQueue"] == queue["metadata"]["name"]
    named = {flavor["name"] for group in queue["spec"]["resourceGroups"] for flavor in group["flavors"]}
    assert named == of_kind("overlays/kueue", "ResourceFlavor").keys()
    labels = the_one("overlays/kueue", "Namespace")["metadata"]["labels"]
    assert queue["spec"]["namespaceSelector"]["matchLabels"].items() <= labels.items()
    assert labels["managed-by-kueue"] == "true"
    assert "managed-by-kueue" in Path("docs/cluster.md").read_text()


def test_with_the_retries_of_the_example_argo_tries_a_pod_again_that_failed_or_was_lost() -> None:
    """The words are those of Argo 4.0.5; what a task says itself comes before this default."""
    data = example(ROOT / "examples" / "argo-retries.yaml")["data"]
    defaults = yaml.load(data["workflowDefaults"], yaml.CSafeLoader)["spec"]
    assert defaults["templateDefaults"].keys() == {"retryStrategy"}
    retries = defaults["templateDefaults"]["retryStrategy"]
    assert retries.keys() == {"limit", "retryPolicy", "expression"}
    assert retries["retryPolicy"] == "Always"
    assert retries["expression"] == 'lastRetry.status == "Error" || asInt(lastRetry.exitCode) >= 0'


def test_every_task_says_itself_how_often_it_is_tried_again(pipeline: Compiled) -> None:
    for name, task, component in pipeline.tasks():
        if component.get("executorLabel") in pipeline.containers:
            assert task["retryPolicy"]["maxRetryCount"] == (1 if name == "preflight" else 5), name


def test_the_launchers_settings_are_as_kubeflow_reads_them() -> None:
    data = example(ROOT / "examples" / "kfp-launcher.yaml")["data"]
    assert data.keys() == {"defaultPipelineRoot", "providers"}
    assert re.fullmatch(r"s3://[^/?]+/[^?]+", data["defaultPipelineRoot"])
    (provider,) = yaml.load(data["providers"], yaml.CSafeLoader).values()
    default = provider["default"]
    assert default.keys() <= {
        "endpoint",
        "region",
        "disableSSL",
        "forcePathStyle",
        "maxRetries",
        "credentials",
    }
    reference = default["credentials"]["secretRef"]
    assert reference.keys() == {"secretName", "accessKeyKey", "secretKeyKey"}

    secret = secret_example()
    assert reference["secretName"] == secret["metadata"]["name"]
    assert {reference["accessKeyKey"], reference["secretKeyKey"]} < secret["stringData"].keys()
    assert secret["stringData"]["AWS_ENDPOINT_URL"] == f"https://{default['endpoint']}"
