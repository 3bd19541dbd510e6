"""The compiled pipelines: what they take, where their tasks run, and that compiling is stable."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.compiled import SHIPPED, load
from limbeck.config import GPU_STAGES, TRAIN_STAGES
from limbeck.local import task_names
from limbeck.resources import CPU_STAGES, DEFAULTS
from limbeck.run_file import RunFile
from limbeck.stamp import stamp
from limbeck.variants import REWARDS
from pipelines.compile import ROOT, compile_all

Spec = dict[str, Any]
PATHS = sorted(Path("pipelines").glob("*/pipeline.yaml"))
POD_PARAMETERS = {
    "gpus",
    "gpu_resource",
    "resources",
    "node_selector",
    "node_affinity",
    "tolerations",
    "train_jobs",
    "s3_secret",
    "image_pull_secret",
}


def documents(path: Path) -> tuple[Spec, Spec]:
    """The pipeline, and by task what only Kubernetes reads."""
    spec, platform = yaml.load_all(path.read_text(), yaml.CSafeLoader)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def parameters(path: Path) -> Spec:
    found: Spec = documents(path)[0]["root"]["inputDefinitions"]["parameters"]
    return found


def tasks(spec: Spec) -> dict[str, Spec]:
    """Every task that runs a container, by the name of its executor."""
    groups = [spec["root"], *(item for item in spec["components"].values() if "dag" in item)]
    found = {}
    for group in groups:
        for name, task in group["dag"]["tasks"].items():
            if "executorLabel" in spec["components"][task["componentRef"]["name"]]:
                found[f"exec-{name}"] = task
    return found


def stage_of(executor: str) -> str:
    return re.sub(r"-\d+$", "", executor.removeprefix("exec-"))


def test_there_is_a_pipeline_for_each_way_of_starting() -> None:
    assert {path.parent.name for path in PATHS} == {
        "ablation",
        "distill",
        "distill_gold",
        "distill_minimal",
        "distill_open",
        "distill_data",
        "distill_rewards",
        "evaluate",
    }


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_no_pipeline_is_called_like_one_of_its_components(path: Path) -> None:
    """Kubeflow would load that component instead of the pipeline."""
    spec, _ = documents(path)
    assert f"comp-{spec['pipelineInfo']['name']}" not in spec["components"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_parameters_are_those_of_a_run_file_with_its_defaults(path: Path) -> None:
    declared, fields = parameters(path), RunFile.model_fields
    assert set(declared) <= set(fields)
    defaults = RunFile().model_dump(mode="json", exclude_none=True) | {"resources": {}, "train_jobs": {}}
    if path.parent.name == "ablation":
        defaults |= {"ppo_rewards": list(REWARDS)}
    for name, parameter in declared.items():
        if "defaultValue" in parameter and name != "config":
            assert parameter["defaultValue"] == defaults[name], name


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_only_what_has_no_sane_default_must_be_given(path: Path) -> None:
    required = {name for name, item in parameters(path).items() if "defaultValue" not in item}
    assert required == {
        "distill_rewards": {"work_uri", "prepared_uri", "label_uri", "checkpoint"},
        "evaluate": {"work_uri", "heldout", "models"},
    }.get(path.parent.name, {"work_uri", "prompts", "teacher", "student"})


def test_the_minimal_pipeline_has_five_parameters_and_the_tasks_of_the_large_one() -> None:
    minimal, full = Path("pipelines/distill_minimal/pipeline.yaml"), Path("pipelines/distill/pipeline.yaml")
    assert len(parameters(minimal)) == 5
    assert set(documents(minimal)[1]) == set(documents(full)[1])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_where_tasks_run_can_be_chosen_when_a_run_starts(path: Path) -> None:
    chosen = POD_PARAMETERS & set(parameters(path))
    expected = {
        "distill_minimal": {"s3_secret"},
        "evaluate": POD_PARAMETERS - {"train_jobs"},  # it trains nothing
    }
    assert chosen == expected.get(path.parent.name, POD_PARAMETERS)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_every_task_can_reach_the_object_store_and_has_room_to_work(path: Path) -> None:
    spec, pods = documents(path)
    assert set(pods) == set(spec["deploymentSpec"]["executors"])
    for name, pod in pods.items():
        needed, optional, *_ = pod["secretAsEnv"]
        assert {pair["envVar"] for pair in needed["keyToEnv"]} == {
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ENDPOINT_URL",
        }
        # A pod does not start without a secret that it must have; preflight must start, to say so, and
        # cleanup, or the run never ends.
        assert needed["optional"] == (name in ("exec-preflight", "exec-cleanup"))
        # A hub's token is for those alone that read data sets.
        token = ["HF_TOKEN"] if name in ("exec-preflight", "exec-prepare") else []
        assert [pair["envVar"] for pair in optional["keyToEnv"]] == ["AWS_REGION", *token]
        assert optional["optional"]
        assert "secretNameParameter" in pod["imagePullSecret"][0] or path.parent.name == "distill_minimal"
        mounts = {mount["mountPath"]: mount for mount in pod["emptyDirMounts"]}
        assert mounts["/tmp"]["sizeLimit"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_the_key_of_a_black_box_goes_to_the_tasks_that_ask_it_alone_and_need_not_exist(path: Path) -> None:
    spec, pods = documents(path)
    titles = {name: task["taskInfo"]["name"] for name, task in tasks(spec).items()}
    given = {
        titles[name]: source
        for name, pod in pods.items()
        for source in pod["secretAsEnv"]
        if source["keyToEnv"] == [{"envVar": "OPENAI_API_KEY", "secretKey": "OPENAI_API_KEY"}]
    }
    # Others have no settings for it, or no teacher.
    all_tasks = {"preflight", "generate teacher", "judge", "ppo", "evaluate teacher"}
    judges_all = {"judge student", "evaluate student", "evaluate sft", "evaluate ppo"}
    expected = {
        "distill": all_tasks,
        "distill_gold": all_tasks,
        "distill_open": all_tasks | judges_all,
        "distill_data": all_tasks - {"ppo"},
        "distill_rewards": {"preflight", "ppo"},
        "evaluate": {"preflight", "evaluate"},
    }.get(path.parent.name, set())
    assert ("api_secret" in parameters(path)) == bool(expected)
    assert given.keys() == expected
    for source in given.values():
        assert source["optional"]
        assert source["secretNameParameter"]["componentInputParameter"].endswith("api_secret")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_gpu_stages_ask_for_gpus_and_shared_memory_and_the_others_for_none(path: Path) -> None:
    spec, pods = documents(path)
    for name, pod in pods.items():
        asked = spec["deploymentSpec"]["executors"][name]["container"].get("resources", {})
        shared = "/dev/shm" in {mount["mountPath"] for mount in pod["emptyDirMounts"]}
        if stage_of(name) in GPU_STAGES:
            assert asked["accelerator"].keys() >= {"resourceCount", "resourceType"}
            assert shared
            if path.parent.name != "distill_minimal":  # it leaves the choice of nodes to the cluster
                assert {"nodeSelector", "nodeAffinity", "tolerations"} <= pod.keys()
            if stage_of(name) in TRAIN_STAGES:  # what only waits for a TrainJob waits anywhere
                chosen = json.dumps(pod)
                fields = ("node_selector", "node_affinity", "tolerations")
                assert all(f"{stage_of(name)}_{field}" in chosen for field in fields)
        else:
            assert "accelerator" not in asked
            assert shared == (name == "exec-preflight")
            assert not {"nodeSelector", "nodeAffinity", "tolerations"} & pod.keys()
        assert asked["resourceMemoryLimit"] == asked["resourceMemoryRequest"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_each_stage_asks_for_what_preflight_gives_for_it(path: Path) -> None:
    spec, _ = documents(path)
    for name, task in tasks(spec).items():
        stage = stage_of(name)
        if stage in DEFAULTS:
            inputs = json.dumps(task["inputs"]["parameters"])
            # The teacher may be a black box, which needs no GPU where the student does.
            asking = f"{stage}_teacher" if task["taskInfo"]["name"].endswith(" teacher") else stage
            asking = stage if stage == "label" else asking
            assert f"preflight-{asking}_cpu" in inputs
            assert f"preflight-{asking}_memory" in inputs
            assert (f"preflight-{asking}_gpus" in inputs) == (stage in GPU_STAGES)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_a_task_of_many_hours_is_still_retried(path: Path) -> None:
    """Kubeflow's default window closes an hour after the first attempt started."""
    for name, task in tasks(documents(path)[0]).items():
        policy = task["retryPolicy"]
        assert policy["maxRetryCount"] == (1 if name == "exec-preflight" else 5), name
        assert policy["backoffMaxDuration"] == "1209600s", name


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_preflight_comes_first_and_is_never_taken_from_the_cache(path: Path) -> None:
    spec, _ = documents(path)
    found = spec["root"]["dag"]["tasks"]
    if path.parent.name != "evaluate":
        found = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert not found["preflight"]["cachingOptions"].get("enableCache")
    assert "dependentTasks" not in found["preflight"]
    assert all(task["dependentTasks"] for name, task in found.items() if name != "preflight")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_a_run_that_trains_is_tidied_up_however_it_ends(path: Path) -> None:
    spec, _ = documents(path)
    trains = {"sft", "reward", "ppo"} & {stage_of(name) for name in tasks(spec)}
    outer = spec["root"]["dag"]["tasks"]
    assert set(outer) == {"cleanup", "exit-handler-1"} if trains else "cleanup" not in outer
    if trains:
        assert outer["cleanup"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
        assert not outer["cleanup"]["cachingOptions"].get("enableCache")
        assert outer["cleanup"]["inputs"]["parameters"].keys() == {
            "config"
        }  # of no task: any may have failed


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_every_training_gets_what_preflight_says_of_trainjobs(path: Path) -> None:
    by_task = {"taskOutputParameter": {"outputParameterKey": "train_jobs", "producerTask": "preflight"}}
    in_loop = {"componentInputParameter": "pipelinechannel--preflight-train_jobs"}
    for name, task in tasks(documents(path)[0]).items():
        given = task.get("inputs", {}).get("parameters", {}).get("train_jobs", {})
        if stage_of(name) in ("sft", "reward", "ppo"):
            assert given in (by_task, in_loop), name
        else:
            assert not given or name == "exec-preflight"


# Source: kubeflow/pipelines 2.15.0, kubernetes_platform/proto/kubernetes_executor_config.proto; its API
# server refuses a run with any other field (argocompiler/container.go, protojson.Unmarshal).
KNOWN_TO_KFP_2_15 = {
    "secretAsVolume", "secretAsEnv", "pvcMount", "nodeSelector", "podMetadata", "imagePullSecret",
    "imagePullPolicy", "configMapAsVolume", "configMapAsEnv", "activeDeadlineSeconds", "fieldPathAsEnv",
    "tolerations", "genericEphemeralVolume", "nodeAffinity", "podAffinity", "enabledSharedMemory",
    "emptyDirMounts",
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_kubeflow_2_15_gets_no_setting_that_it_refuses(path: Path) -> None:
    pipeline = load(path)
    for settings in stamp(pipeline, kfp="2.15").kubernetes.values():
        assert settings.keys() <= KNOWN_TO_KFP_2_15
    assert stamp(pipeline, kfp="2.16") == pipeline


def test_every_stage_is_of_a_gpu_or_a_cpu() -> None:
    stages = {path.stem for path in Path("src/limbeck/stages").glob("[a-z]*.py")}
    assert set(GPU_STAGES) | set(CPU_STAGES) == stages


def test_of_open_questions_the_teacher_judges_the_students_answers_and_all_held_out_ones() -> None:
    spec, _ = documents(Path("pipelines/distill_open/pipeline.yaml"))
    found = {task["taskInfo"]["name"]: task["inputs"] for task in tasks(spec).values()}
    for name in ("judge", "judge student"):
        assert found[name]["parameters"]["model"] == {"componentInputParameter": "pipelinechannel--teacher"}
    assert {"completions", "judgements", "given_labels"} <= found["label student"]["artifacts"].keys()
    for name in ("evaluate teacher", "evaluate student", "evaluate sft", "evaluate ppo"):
        assert found[name]["parameters"]["judge"]["componentInputParameter"].endswith("teacher")
    assert found["pick policy"]["parameters"]["names"] == {"runtimeValue": {"constant": ["ppo_model"]}}
    compared, _ = documents(Path("pipelines/distill/pipeline.yaml"))
    others = {task["taskInfo"]["name"]: task["inputs"] for task in tasks(compared).values()}
    assert found.keys() - others.keys() == {"judge student", "merge judge student"}
    assert "judgements" not in others["label student"]["artifacts"]
    assert not any("judge" in inputs.get("parameters", {}) for inputs in others.values())


def test_loops_are_unrolled_into_names_for_the_screen() -> None:
    spec, _ = documents(Path("pipelines/distill/pipeline.yaml"))
    names = task_names(spec, {"num_shards": 2, "ppo_rewards": ["model", "mixed"]})
    assert len(names) == 36
    assert names["for-loop-2-iteration-1/generate"] == "generate teacher 2/2"
    assert names["for-loop-5-iteration-0/sft"] == "sft selected"
    assert names["for-loop-8-iteration-1/for-loop-9-iteration-0/evaluate-2"] == "evaluate ppo mixed"
    assert names["for-loop-11-iteration-0/evaluate-4"] == "evaluate student"
    assert names["label-2"] == "label student"


def test_one_loop_goes_over_the_shards_of_all_models() -> None:
    spec, _ = documents(Path("pipelines/evaluate/pipeline.yaml"))
    names = task_names(spec, {"models": ["s3://b/x", "s3://b/y"], "num_evaluate_shards": 3})
    assert [name for name in names.values() if name.startswith("evaluate")] == [
        f"evaluate {number}/6" for number in range(1, 7)
    ]


def test_an_ablation_generates_and_judges_where_distill_does_and_nowhere_else() -> None:
    """So its rows are made of one set of completions: no variant has a task that samples training prompts."""
    asked = {}
    for name in ("distill", "ablation"):
        found = tasks(documents(Path(f"pipelines/{name}/pipeline.yaml"))[0])
        asked[name] = {
            task["taskInfo"]["name"]
            for executor, task in found.items()
            if stage_of(executor) in ("prepare", "generate", "judge")
        }
    assert asked["ablation"] == asked["distill"]
    assert asked["distill"] == {"prepare", "generate teacher", "generate student", "judge"}


def test_compiled_files_are_those_of_the_sources_byte_for_byte(tmp_path: Path) -> None:
    for path in compile_all(tmp_path):
        assert path.read_bytes() == (ROOT / path.relative_to(tmp_path)).read_bytes(), path


@pytest.mark.parametrize("kind", ["pipelines", "components"])
def test_the_installed_package_carries_the_same_files(kind: str) -> None:
    carried = {
        path.stem: path.read_bytes() for path in SHIPPED["distill"].parent.with_name(kind).glob("*.yaml")
    }
    compiled = {path.parent.name: path.read_bytes() for path in Path(kind).glob(f"*/{kind[:-1]}.yaml")}
    assert carried == compiled
