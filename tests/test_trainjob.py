"""Every TrainJob that can be made fits Kubeflow Trainer 2.0 to 2.3; and what one says is read rightly."""

import re
from itertools import product
from typing import Any

import jsonschema
import pytest

from limbeck.config import Config
from limbeck.errors import ConfigError, DataError
from limbeck.manifest import Manifest
from limbeck.resources import Resources, StageRequest, StageResources, requests
from limbeck.tasks.launching import placed, shared_out
from limbeck.tasks.specs import SftSpec, parse_spec
from limbeck.trainjob import (
    Owner,
    TrainJob,
    TrainJobSettings,
    adoption,
    manifest,
    parse_settings,
    read_state,
)
from tests.manifests.schemas import check, custom_schemas

OWNER = Owner("distill-abcde", "0a1b2c3d-0000-4000-8000-000000000000")
OPTIONS = product(
    ("sft", "reward", "ppo"),
    (None, "gpus"),
    (None, "limbeck-batch"),
    (None, OWNER),
    (StageRequest(cpu="500m", memory="1Gi", gpus=0), StageRequest(cpu="96", memory="2000000000", gpus=8)),
    ("nvidia.com/gpu", "amd.com/gpu"),
    (1, 8),
)


def made(stage: str = "sft", **changed: Any) -> TrainJob:
    given: dict[str, Any] = {
        "digest": "0123456789abcdef" * 4,
        "spec_uri": "s3://b/work/train-jobs/x.json",
        "image": "registry.invalid/limbeck-train:0.1.0",
        "nodes": 2,
        "processes": 8,
        "request": StageRequest(cpu="8", memory="64Gi", gpus=8),
        "settings": TrainJobSettings(),
        "owner": OWNER,
    }
    return TrainJob(stage=stage, **given | changed)


def test_every_trainjob_fits_the_schemas_of_all_supported_releases_of_trainer() -> None:
    schemas = custom_schemas()["trainer.kubeflow.org/v1alpha1", "TrainJob"]
    assert len(schemas) == 4  # 2.0 to 2.3
    for stage, queue, priority, owner, request, gpu, processes in OPTIONS:
        settings = TrainJobSettings(queue=queue, priority_class=priority, gpu_resource=gpu)
        job = made(stage, settings=settings, owner=owner, request=request, processes=processes)
        made_of_it = manifest(job)
        check(made_of_it)
        # What only the API server and Trainer's webhook check: they refuse what the schema lets pass.
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job.name)
        assert len(f"{job.name}-node-0-1000") <= 63
        trainer = made_of_it["spec"]["trainer"]
        assert isinstance(trainer["numProcPerNode"], int)
        assert not [item for item in trainer["env"] if item["name"].startswith("PET_")]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.trainer.numProcPerNode", "auto"),  # 2.0 knows the word, 2.3 wants a number
        ("spec.labels", {"a": "b"}),  # gone since 2.2
        ("spec.podTemplateOverrides", []),  # unknown to 2.0
        ("spec.trainer.numNodes", "two"),
        ("spec.runtimeRef", {"kind": "TrainingRuntime"}),
    ],
)
def test_a_field_that_only_some_releases_know_is_refused(path: str, value: object) -> None:
    job = manifest(made())
    *parents, last = path.split(".")
    node = job
    for part in parents:
        node = node[part]
    node[last] = value
    with pytest.raises(jsonschema.ValidationError):
        check(job)


def test_a_trainjob_names_its_secrets_and_holds_none() -> None:
    settings = TrainJobSettings(s3_secret="team-s3", api_secret="team-api")
    variables = manifest(made(settings=settings))["spec"]["trainer"]["env"]
    env = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in variables}
    assert env["AWS_SECRET_ACCESS_KEY"] == {
        "name": "team-s3",
        "key": "AWS_SECRET_ACCESS_KEY",
        "optional": False,
    }
    assert [name for name, source in env.items() if source["optional"]] == ["AWS_REGION", "OPENAI_API_KEY"]


def test_a_queue_holds_a_trainjob_until_kueue_lets_it_go() -> None:
    waits = manifest(made(settings=TrainJobSettings(queue="gpus", priority_class="limbeck-batch")))
    assert waits["spec"]["suspend"] is True
    assert waits["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert waits["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "limbeck-batch"
    starts = manifest(made())
    assert starts["spec"]["suspend"] is False
    assert not [key for key in starts["metadata"]["labels"] if key.startswith("kueue")]


def test_who_takes_a_trainjob_over_becomes_its_owner() -> None:
    patch = adoption(made(owner=Owner("next-run", "uid-2")))
    assert [step["path"] for step in patch] == ["/metadata/labels", "/metadata/ownerReferences"]
    assert patch[0]["value"]["limbeck/run"] == "uid-2"
    assert patch[1]["value"][0]["uid"] == "uid-2"


def found(**status: object) -> dict[str, Any]:
    """A TrainJob as the API gives it."""
    job = manifest(made(settings=TrainJobSettings(queue="gpus")))
    job["metadata"]["resourceVersion"] = "7"
    job["spec"]["suspend"] = False
    return job | {"status": status}


CONDITION = {"type": "Failed", "status": "True", "reason": "FailedJobs", "message": "a job\nhas failed"}
UP = [{"name": "node", "ready": 1, "succeeded": 0}]
STATES: dict[str, tuple[dict[str, Any], tuple[bool, str, str]]] = {
    "just made": (found(), (False, "", "until all of its 2 nodes are up")),
    "its nodes are up": (found(jobsStatus=UP), (False, "", "")),
    "one has not started": (
        found(jobsStatus=[{"name": "node", "ready": 0}]),
        (False, "", "until all of its 2 nodes are up"),
    ),
    "complete": (found(jobsStatus=UP, conditions=[{"type": "Complete", "status": "True"}]), (True, "", "")),
    "failed": (found(jobsStatus=UP, conditions=[CONDITION]), (True, "FailedJobs: a job has failed", "")),
    "failed once, no more": (
        found(jobsStatus=UP, conditions=[CONDITION | {"status": "False"}]),
        (False, "", ""),
    ),
    "failed without a reason": (
        found(jobsStatus=UP, conditions=[{"type": "Failed", "status": "True"}]),
        (True, "no reason given", ""),
    ),
    "suspended": (
        manifest(made(settings=TrainJobSettings(queue="gpus"))),
        (False, "", "in queue gpus until there is room"),
    ),
}


@pytest.mark.parametrize(("job", "expected"), STATES.values(), ids=STATES)
def test_the_state_of_a_trainjob_that_is(job: dict[str, Any], expected: tuple[bool, str, str]) -> None:
    state = read_state(job)
    assert (state.ended, state.failure, state.waiting) == expected
    assert state.digest == made().digest


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"que": "gpus"}, "Did you mean `queue`"),
        ({"runtime": "Not A Name"}, "bad setting `runtime`"),
        ({"nodes": {"sft": {"cpu": "8"}}}, "missing setting `nodes.sft.memory`"),
        ({"gpu_resource": "a b"}, "bad setting `gpu_resource`"),
    ],
)
def test_a_wrong_train_jobs_is_refused(given: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ConfigError, match=refusal):
        parse_settings(given)


def test_a_training_on_several_nodes_leaves_its_wishes_to_them_and_waits_on_a_cpu() -> None:
    asked = requests(Resources(sft=StageResources(gpus=4, memory="200Gi")), gpus=8)
    config = Config.model_validate({"sft": {"deepspeed": {"nodes": 2}}})
    of_tasks, of_nodes = shared_out(asked, config)
    assert of_nodes == {"sft": StageRequest(cpu="8", memory="200Gi", gpus=4)}
    assert of_tasks == asked | {"sft": StageRequest(cpu="500m", memory="1Gi", gpus=0)}
    assert shared_out(asked, Config()) == (asked, {})
    selector: dict[str, Any] = {"gpu": "h100"}
    affinity: dict[str, Any] = {"required": {}}
    tolerations: list[dict[str, Any]] = [{"key": "gpu"}]
    places = placed(selector, affinity, tolerations, of_nodes)
    for stage, given in (("sft", ({}, {}, [])), ("ppo", (selector, affinity, tolerations))):
        fields = ("node_selector", "node_affinity", "tolerations")
        assert tuple(places[f"{stage}_{field}"] for field in fields) == given


def spec(**changed: Any) -> SftSpec:
    labelled = Manifest(
        stage="label", kind="labelled", name="teacher", uri="s3://b/w/label/1", objects=(), inputs={},
        config_hash="", code_version="",
    )  # fmt: skip
    given: dict[str, Any] = {"work_uri": "s3://b/w", "config": {"seed": 1, "sft": {"batch_size": 8}}}
    given |= {"labelled": labelled, "model": "s3://b/m", "selection": "all", "role": "student"}
    return SftSpec(**given | changed)


def test_what_a_launcher_writes_its_nodes_read_and_nothing_else() -> None:
    assert parse_spec(spec().model_dump_json().encode(), "here") == spec()
    text = spec().model_dump_json()
    for wrong in (b"{}", b"no json", text.replace('"stage":"sft"', '"stage":"label"').encode()):
        with pytest.raises(DataError, match="not what a training is given in here"):
            parse_spec(wrong, "here")


def test_a_training_keeps_its_name_in_whatever_order_kubeflow_hands_its_settings_over() -> None:
    assert spec().digest == spec(config={"sft": {"batch_size": 8}, "seed": 1}).digest
    others = [
        spec(config={"seed": 2}),
        spec(selection="selected"),
        spec(variant="sft.num_epochs=4"),
        spec(work_uri="s3://b/other"),
    ]
    assert len({made.digest for made in (spec(), *others)}) == 5
