"""Another team's pipeline of our components, made and compiled where nothing of Limbeck can be imported."""

import json
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kfp import components, dsl
from kfp.dsl.types.type_utils import InconsistentTypeException

from limbeck import local
from limbeck.manifest import load_manifest
from limbeck.records import Prompt
from limbeck.rows import read_rows
from limbeck.storage import Store
from tests import tiny

EXAMPLE = Path("examples/reuse/pipeline.py").absolute()
COMPONENTS = Path("components").absolute()
SHOW = """
import json, sys
from kfp import components
loaded = components.load_component_from_url(sys.argv[1])
root = loaded.pipeline_spec.root
print(json.dumps({
    "types": {name: str(item.type) for name, item in loaded.component_spec.inputs.items()},
    "optional": [name for name, item in loaded.component_spec.inputs.items() if item.optional],
    "outputs": {name: str(item.type) for name, item in loaded.component_spec.outputs.items()},
    "descriptions": {
        name: item.description
        for side in (root.input_definitions, root.output_definitions)
        for group in (side.artifacts, side.parameters)
        for name, item in group.items()
    },
    "text": loaded.description,
}))
"""
RUN = """
import json, sys
from kfp import components, local
pipeline, root, arguments = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
done = components.load_component_from_file(pipeline)(**json.loads(arguments))
print("OUTPUTS", json.dumps(done.outputs))
"""


def foreign(folder: Path, *arguments: str) -> str:
    """Run Python as another team has it: kfp and its like are there, Limbeck and this repository are not.

    Without `site` no .pth file is read, which is how an editable installation gets onto the path.
    """
    done = subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={"PYTHONPATH": sysconfig.get_path("purelib"), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The components folder over HTTP, as a repository host serves it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(COMPONENTS))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def compiled(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline of examples/reuse, with one of our components by file and one by URL."""
    folder = tmp_path_factory.mktemp("other team")
    by_file, by_url = COMPONENTS / "prepare/component.yaml", f"{url}/generate/component.yaml"
    foreign(folder, str(EXAMPLE), str(by_file), by_url, "reuse.yaml")
    return folder / "reuse.yaml"


def test_where_it_is_compiled_nothing_of_limbeck_can_be_imported(tmp_path: Path) -> None:
    code = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    found = foreign(tmp_path, "-c", code, "limbeck", "components", "images", "pipelines", "kfp")
    assert found.strip() == "['kfp']"


def test_a_loaded_component_shows_types_and_descriptions(url: str, tmp_path: Path) -> None:
    shown = json.loads(foreign(tmp_path, "-c", SHOW, f"{url}/generate/component.yaml"))
    assert shown["types"] == {
        "prompts": "system.Dataset@0.0.1",
        "work_uri": "String",
        "model": "String",
        "role": "String",
        "shard": "Integer",
        "num_shards": "Integer",
        "checkpoint": "system.Model@0.0.1",
        "config": "Dict",
    }
    assert set(shown["types"]) - set(shown["optional"]) == {"prompts", "work_uri"}
    assert shown["outputs"] == {"completions": "system.Dataset@0.0.1"}
    assert set(shown["descriptions"]) == set(shown["types"]) | set(shown["outputs"])
    # Kubeflow's loader also gives the whole docstring.
    for name, description in shown["descriptions"].items():
        assert description, name
        assert f"{name}: {description}" in shown["text"]


def test_another_teams_pipeline_of_our_components_runs(
    compiled: Path, store: Store, work_uri: str, tmp_path: Path
) -> None:
    files = store.write_folder(tiny.checkpoint(tmp_path / "model"), f"{work_uri}/model")
    arguments = {
        "questions": [f"sum {a} {b}" for a in "abcdef" for b in "abcdef"],
        "model": files[0].uri.rpartition("/")[0],
        "work_uri": work_uri,
        "config": {
            "teacher": {"dtype": "float32"},
            "engine": {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True},
            "prepare": {"heldout_fraction": 0.3},
            "generate": {"teacher": {"samples_per_prompt": 3, "max_tokens": 4}},
        },
    }
    root = tmp_path / "kfp"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(compiled), str(root), json.dumps(arguments)],
        cwd=tmp_path,
        env=local.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    outputs = json.loads(done.stdout.rpartition("OUTPUTS ")[2])

    (prepared,) = (uri for uri in store.sizes(f"{work_uri}/prepare") if uri.endswith("prompts/manifest.json"))
    manifest = load_manifest(store, prepared, "prompts")
    assert manifest is not None
    asked = {row.prompt for row in read_rows(store, manifest, Prompt)}
    assert 0 < len(asked) < 36
    assert asked < set(arguments["questions"])
    assert outputs == {"Output": 3 * len(asked)}


def test_what_the_other_team_wrote_imports_nothing_of_ours() -> None:
    assert not [line for line in EXAMPLE.read_text().splitlines() if "import" in line and "limbeck" in line]


def test_kubeflow_itself_refuses_a_data_set_where_a_model_is_wanted() -> None:
    prepare, generate = (
        components.load_component_from_file(f"components/{name}/component.yaml")
        for name in ("prepare", "generate")
    )

    def mistaken(work_uri: str, data: str) -> None:
        prompts = prepare(data=data, work_uri=work_uri).outputs["prompts"]
        generate(prompts=prompts, checkpoint=prompts, work_uri=work_uri)

    with pytest.raises(InconsistentTypeException, match=r"'checkpoint'.*system\.Model"):
        dsl.pipeline(name="mistaken")(mistaken)
