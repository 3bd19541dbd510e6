"""A component that is fed with the wrong thing says so, with the remedy, before it does anything."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kfp import compiler, components, dsl

from components.render import INPUT_KINDS, ORDER, read_component
from limbeck import local
from limbeck.manifest import Manifest
from limbeck.storage import Store
from limbeck.tasks.artifacts import MADE_BY
from limbeck.tasks.stages import SHARDED
from tests import tiny

COMPONENTS = {name: read_component(Path("components") / name) for name in ORDER}
INPUTS = [
    (item.name, port.name)
    for item in COMPONENTS.values()
    for port in item.inputs
    if port.kind or port.name == "shards"
]
WORK_URI = "s3://test/refusals"
PARAMETERS = {
    "work_uri": WORK_URI,
    "uri": WORK_URI,
    "data": f"{WORK_URI}/data.jsonl",
    "heldout_data": "",
    "num_shards": 1,
    "num_evaluate_shards": 1,
    "role": "teacher",
    "shard": 0,
    "name": "mine",
    "selection": "selected",
    "reward": "model",
    "teacher": "",
    "names": ["sft_selected"],
    "metric": "",
    "kind": "prompts",
    "student": "",
    "base_model": "",
    "datasets": [],
    "even_if_not_promoted": False,
    "register": "",
    "registry": "",
    "variant": "",
    "judge": "",
    "outline": "",
    "train_jobs": {},
    "config": {},
}
OPEN = {"task": {"kind": "open"}, "label": {"rule": "judge"}}
NO_MANIFEST = {
    "another text": "{}",
    "no text": b"\xff\xfe".decode("latin-1"),
    "another version": json.dumps({"schema_version": 2, "kind": "prompts"}),
}


@dataclass(frozen=True)
class Case:
    """A wrong parameter, or a wrong address, and what comes of it."""

    component: str
    given: dict[str, Any]
    exit_code: int
    says: str


CASES = {
    "role": Case("generate", {"role": "teecher"}, 2, "expected teacher or student, got 'teecher'"),
    "shard too high": Case("generate", {"shard": 2, "num_shards": 2}, 2, "expected 0 to 1 (num_shards is 2)"),
    "shard below 0": Case("generate", {"shard": -1}, 2, "expected 0 to 0 (num_shards is 1), got -1"),
    "no model": Case("generate", {"model": "", "checkpoint": None}, 2, "no model to load"),
    "nothing to evaluate": Case(
        "evaluate", {"model": "", "models": [], "checkpoint": None}, 2, "no model to load"
    ),
    "selection": Case("sft", {"selection": "best"}, 2, "expected selected or all, got 'best'"),
    "reward kind": Case("ppo", {"reward": "models"}, 2, "agreement or mixed or judge, got 'models'"),
    "no judge": Case(
        "ppo", {"reward": "judge"}, 2, "no teacher to judge the rollouts in ppo, parameter teacher"
    ),
    "nobody to judge open answers": Case("evaluate", {"config": OPEN}, 2, "nobody judges the answers"),
    "agreement of open answers": Case(
        "ppo", {"reward": "mixed", "config": OPEN}, 2, "expected model or judge (task.kind is open"
    ),
    "no teacher": Case("reward", {"config": {"reward": {"init": "teacher"}}}, 2, "set reward.init: student"),
    "no shards": Case("shards", {"num_shards": 0}, 2, "expected 1 to 10000, got 0"),
    "too many shards": Case("shards", {"num_shards": 10_001}, 2, "expected 1 to 10000, got 10001"),
    "unknown section": Case("prepare", {"config": {"prepair": {}}}, 2, "Did you mean `prepare`?"),
    "unknown setting": Case("judge", {"config": {"judge": {"tempalte": ""}}}, 2, "Did you mean `template`?"),
    "out of range": Case("label", {"config": {"label": {"min_vote_share": 2}}}, 2, "label.min_vote_share"),
    "kind to load": Case("load", {"kind": "prompt"}, 2, "got 'prompt'"),
    "nothing to load": Case("load", {}, 3, "expected a manifest of prompts, got no manifest.json"),
    "no figure to pick by": Case(
        "pick", {"names": ["checkpoint"], "metric": "ppo/kl"}, 3, "expected ppo/kl, got no metrics"
    ),
    "half a registration": Case("export", {"register": "mine"}, 2, "expected a name, and an address such as"),
    "no name of a hub": Case("export", {"base_model": "a/b/c"}, 2, "expected OWNER/NAME, got 'a/b/c'"),
    "half a variant": Case("noise", {"variant": "label.noise"}, 2, "got 'label.noise'"),
    "a variant of no setting": Case("ppo", {"variant": "ppo.kl=1"}, 2, "in config with ppo.kl=1"),
    "whose model to tune": Case("sft", {"role": "both"}, 2, "expected teacher or student, got 'both'"),
    "a black box to tune": Case(
        "sft",
        {"role": "teacher", "config": {"teacher": {"sampler": "openai"}, "openai": {"base_url": "http://x"}}},
        2,
        "a black-box teacher cannot be tuned",
    ),
    "several nodes without a cluster": Case(
        "sft",
        {"config": {"sft": {"deepspeed": {"nodes": 2}}}},
        2,
        "training on several nodes needs a cluster: expected a pod with the token of a service account",
    ),
    "no whole method to match": Case("match", {}, 3, "expected ppo_model, got checkpoint. Add `model`"),
    "no outline": Case(
        "report", {"outline": "{}"}, 3, "not the outline of a run in report, parameter outline"
    ),
    "nothing to pick": Case("pick", {"names": ["sft_all"]}, 3, "expected sft_all, got checkpoint"),
}


class Outcome(NamedTuple):
    """How a task ended."""

    exit_code: int
    message: str


def manifest(kind: str) -> str:
    """A finished manifest without objects."""
    return Manifest(
        stage="test",
        kind=kind,
        name=kind,
        uri="s3://test/elsewhere",
        objects=(),
        inputs={},
        config_hash="",
        code_version="",
    ).to_json()


def arguments(folder: Path, name: str, values: dict[str, Any], wrong: dict[str, str]) -> dict[str, Any]:
    """Arguments of a task: each input artifact of its kind, but those in `wrong` with that text."""
    folder.mkdir()
    made: dict[str, Any] = {
        port.name: {"path": str(folder / port.name)}
        for port in COMPONENTS[name].outputs
        if port.name != "Output"
    }
    for port in COMPONENTS[name].inputs:
        if port.name in values:
            made[port.name] = values[port.name]
            continue
        (folder / port.name).write_text(wrong.get(port.name, manifest(port.kind or "")), encoding="latin-1")
        artifact = {"path": str(folder / port.name)}
        made[port.name] = [artifact] if port.type.startswith("list") else artifact
    return made


@pytest.fixture(scope="module")
def outcomes(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All cases of this file, run by one process."""
    folder = tmp_path_factory.mktemp("refusals")
    files = store.write_folder(tiny.checkpoint(folder / "model"), f"{WORK_URI}/model")
    values = PARAMETERS | {"model": files[0].uri.rpartition("/")[0]}
    cases: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {}
    for name, port in INPUTS:
        other = "prompts" if INPUT_KINDS[port] == "gold" else "gold"
        cases[f"{name} {port}"] = (name, {port: manifest(other)}, {})
    for what, text in NO_MANIFEST.items():
        cases[what] = ("generate", {"prompts": text}, {})
    for what, case in CASES.items():
        cases[what] = (case.component, {}, case.given)

    pairs = []
    for number, (name, wrong, given) in enumerate(cases.values()):
        file = folder / f"{number}.json"
        file.write_text(json.dumps(arguments(folder / str(number), name, values, wrong) | given))
        pairs.append((name, str(file)))
    (folder / "pairs.json").write_text(json.dumps(pairs))
    done = subprocess.run(
        [sys.executable, "-m", "tests.refusals_process", str(folder / "pairs.json")],
        env=local.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(cases, (Outcome(*pair) for pair in json.loads(done.stdout)), strict=True))


@pytest.mark.parametrize(("name", "port"), INPUTS, ids=[" ".join(pair) for pair in INPUTS])
def test_an_artifact_of_another_kind_is_refused_with_what_to_wire_instead(
    outcomes: dict[str, Outcome], name: str, port: str
) -> None:
    kind, outcome = INPUT_KINDS[port], outcomes[f"{name} {port}"]
    kinds = [kind] if kind else list(SHARDED)
    assert outcome.exit_code == 3, outcome.message
    assert f"wrong kind in input {port}: expected a manifest of {' or '.join(kinds)}, got" in outcome.message
    assert f"Wire it to {' or '.join(MADE_BY[kind] for kind in kinds)}" in outcome.message


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("another text", "not a Limbeck manifest in input prompts"),
        ("no text", "holds no manifest in input prompts: expected the manifest of prompts"),
        ("another version", "another schema version in input prompts: expected version 1, got 2"),
    ],
)
def test_what_is_no_manifest_of_this_version_is_refused(
    outcomes: dict[str, Outcome], what: str, says: str
) -> None:
    assert outcomes[what].exit_code == 3
    assert says in outcomes[what].message


@pytest.mark.parametrize("what", CASES)
def test_a_wrong_parameter_is_refused_with_what_would_be_right(
    outcomes: dict[str, Outcome], what: str
) -> None:
    outcome = outcomes[what]
    assert outcome.exit_code == CASES[what].exit_code, outcome.message
    assert CASES[what].says in outcome.message


def test_nothing_was_written_by_any_of_them(outcomes: dict[str, Outcome], store: Store) -> None:
    assert outcomes
    assert not [uri for uri in store.sizes(WORK_URI) if not uri.startswith(f"{WORK_URI}/model/")]


def another_tool(made: dsl.Output[dsl.Dataset]) -> None:
    from pathlib import Path  # noqa: PLC0415 - Kubeflow ships the function alone

    Path(made.path).write_text("prompt,answer\n1 + 1,2\n")


def test_a_compiled_pipeline_ends_with_the_message_and_its_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    merge = components.load_component_from_file("components/merge/component.yaml")
    tool = dsl.component(another_tool, base_image="python", install_kfp_package=False)

    def mistaken(work_uri: str) -> None:
        with dsl.ParallelFor(["one"]):
            completions = tool().outputs["made"]
        merge(shards=dsl.Collected(completions))

    pipeline = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="mistaken")(mistaken), str(pipeline))
    assert local.run(pipeline, {"work_uri": "s3://test/mistaken"}, tmp_path / "out") == 3
    shown = capfd.readouterr().out
    assert "error 3: not a Limbeck manifest in input" in shown
    assert "Give the manifest of a finished stage" in shown
