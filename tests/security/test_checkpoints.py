"""Checkpoints are data: no code in them runs, no pickle of theirs is opened, nor one of a forged state."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from limbeck import local
from limbeck.checkpoints import base_uri, load_state, save_state
from limbeck.config import DeepSpeedConfig, parse_config
from limbeck.errors import DataError, LimbeckError
from limbeck.manifest import Manifest
from limbeck.models import check_folder
from limbeck.records import LabelledCompletion
from limbeck.storage import Store
from limbeck.trainer.networks import Scorer, load_frozen_policy, load_policy, load_tokenizer
from limbeck.trainer.reward import train_reward
from limbeck.trainer.sft import train_sft
from tests import saving, tiny
from tests.engines import open_sampler

CODE = "modeling_given.py"
PICKLES = ("pytorch_model.bin", "model.pt", "consolidated.00.pth")
ESCAPES = {
    "a shell": "{{ cycler.__init__.__globals__.os.system('touch MARKER') }}",
    "a file": "{{ ''.__class__.__mro__[1].__subclasses__() }}{% include 'MARKER' %}",
    "a change of the messages": "{{ messages.append('x') }}",
}


@dataclass(frozen=True)
class Marked:
    """A checkpoint folder, and the file that its code makes when it runs."""

    folder: Path
    marker: Path


class Opens:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        """What unpickling calls."""
        return open, (self.path, "w")


def plant_pickles(folder: Path, marker: Path) -> None:
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Opens(marker)))


def plant_code(folder: Path, marker: Path, *files: str) -> None:
    """Name classes of a module of the folder in some of its settings."""
    (folder / CODE).write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast as GivenTokenizer\n"
        "class GivenConfig(LlamaConfig):\n    model_type = 'given'\n"
        "class GivenModel(LlamaForCausalLM):\n    config_class = GivenConfig\n"
    )
    given = {
        "config.json": {
            "model_type": "given",
            "auto_map": {
                "AutoConfig": "modeling_given.GivenConfig",
                "AutoModelForCausalLM": "modeling_given.GivenModel",
                "AutoModelForSequenceClassification": "modeling_given.GivenModel",
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "GivenTokenizer",
            "auto_map": {"AutoTokenizer": [None, "modeling_given.GivenTokenizer"]},
        },
    }
    for file in files:
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(settings | given[file]))


@pytest.fixture
def base(tmp_path: Path) -> Marked:
    """A checkpoint without malice."""
    return Marked(tiny.checkpoint(tmp_path / "model"), tmp_path / "marker")


LOADERS: dict[str, Callable[[Path], Any]] = {
    "policy": lambda folder: load_policy(folder, "float32", DeepSpeedConfig()),
    "reference": lambda folder: load_frozen_policy(folder, "float32"),
    "scorer": lambda folder: Scorer(folder, "float32", None),
    "sampler": open_sampler,
}
TOKENIZER: dict[str, Callable[[Path], Any]] = {"tokenizer": load_tokenizer, "sampler": open_sampler}


def refused(load: Callable[[Path], Any], marked: Marked) -> str:
    with pytest.raises(LimbeckError) as caught:
        load(marked.folder)
    assert not marked.marker.exists()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_the_model_code_of_a_checkpoint_is_not_run(base: Marked, load: Callable[[Path], Any]) -> None:
    plant_code(base.folder, base.marker, "config.json")
    assert "contains custom code" in refused(load, base)


@pytest.mark.parametrize("load", TOKENIZER.values(), ids=TOKENIZER)
def test_the_tokenizer_code_of_a_checkpoint_is_not_run(base: Marked, load: Callable[[Path], Any]) -> None:
    plant_code(base.folder, base.marker, "tokenizer_config.json")
    assert "contains custom code" in refused(load, base)


def test_code_runs_when_it_is_asked_for_by_name(base: Marked, tmp_path: Path) -> None:
    """Else the tests above would pass with code that never runs. In a process with a home of its own."""
    plant_code(base.folder, base.marker, "config.json", "tokenizer_config.json")
    program = (
        "import sys; from pathlib import Path; from limbeck.config import ModelConfig\n"
        "from limbeck.sampler import VllmSampler; from tests.engines import ENGINE\n"
        "VllmSampler(Path(sys.argv[1]), ModelConfig(dtype='float32', trust_remote_code=True), ENGINE)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(base.folder)],
        cwd=Path(__file__).parents[2],
        env=local.environment() | {"HF_HOME": str(tmp_path / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert base.marker.exists()


def test_the_planted_pickle_makes_its_marker_when_opened(base: Marked) -> None:
    """Else the tests below would pass with a harmless pickle."""
    plant_pickles(base.folder, base.marker)
    pickle.loads((base.folder / PICKLES[0]).read_bytes()).close()  # noqa: S301 - made here
    assert base.marker.exists()


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_a_checkpoint_of_pickles_is_refused(base: Marked, load: Callable[[Path], Any]) -> None:
    plant_pickles(base.folder, base.marker)
    (base.folder / "model.safetensors").unlink()
    refused(load, base)


def test_a_checkpoint_of_pickles_is_refused_before_any_engine_starts(base: Marked) -> None:
    plant_pickles(base.folder, base.marker)
    (base.folder / "model.safetensors").unlink()
    assert "weights in a pickle file" in refused(lambda folder: check_folder(folder, "there"), base)


def test_pickles_beside_safetensors_are_not_opened(base: Marked) -> None:
    plant_pickles(base.folder, base.marker)
    check_folder(base.folder, "there")
    for load in LOADERS.values():
        loaded = load(base.folder)
        if hasattr(loaded, "prompt_ids"):
            assert loaded.prompt_ids("sum a")
    assert not base.marker.exists()


@pytest.mark.parametrize("template", ESCAPES.values(), ids=ESCAPES)
def test_a_chat_template_cannot_leave_its_sandbox(base: Marked, template: str) -> None:
    (base.folder / "chat_template.jinja").write_text(template.replace("MARKER", str(base.marker)))
    tokenizer = load_tokenizer(base.folder)
    with pytest.raises(Exception, match=r"(?i)unsafe|undefined|no loader|append"):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert not base.marker.exists()


def forge(state: Path, marker: Path) -> int:
    """Replace every file of tensors in a training state; gives how many there were."""
    files = [path for path in state.rglob("*") if path.is_file() and path.suffix != ".json"]
    for path in files:
        path.write_bytes(pickle.dumps(Opens(marker)))
    return len(files)


def train(folder: Path, base: Path, resume: Path | None, kept: list[Path]) -> Any:
    """A short training of a reward model that adds its states to a list."""
    config = parse_config(
        {
            "student": {"dtype": "float32"},
            "reward": {
                "batch_size": 4,
                "evaluate_every": 1,
                "deepspeed": {"zero_stage": 2},
            },
        }
    )
    rows = [
        LabelledCompletion(
            completion_id=f"{n}",
            prompt_id=f"{n % 3}",
            prompt="sum a",
            source="student",
            text="= w" if n % 2 else "= v",
            pseudo_reward=float(n % 2),
            vote_share=1.0,
            selected=True,
            validation=False,
        )
        for n in range(12)
    ]

    folder.mkdir()
    with saving.keeping(folder / "kept") as (saver, states):
        run = train_reward(base, rows, rows, config, folder, resume, saver)
    kept += states.values()
    return run


def test_a_forged_state_of_the_reward_model_runs_no_code(base: Marked, tmp_path: Path) -> None:
    kept: list[Path] = []
    train(tmp_path / "whole", base.folder, None, kept)
    assert train(tmp_path / "resumed", base.folder, kept[0], kept).history
    assert forge(kept[0], base.marker) >= 1
    with pytest.raises(SafetensorError):
        train(tmp_path / "forged", base.folder, kept[0], kept)
    assert not base.marker.exists()


def test_a_forged_state_of_sft_runs_no_code(base: Marked, tmp_path: Path) -> None:
    config = parse_config(
        {
            "student": {"dtype": "float32"},
            "sft": {"batch_size": 4},
        }
    )
    kept: list[Path] = []
    pairs = [("sum a", "= w")] * 12

    def run(name: str, resume: Path | None) -> None:
        (tmp_path / name).mkdir()
        with saving.keeping(tmp_path / name / "kept") as (saver, states):
            train_sft(base.folder, pairs, config, tmp_path / name, name, resume, saver)
        kept.extend(states.values())

    run("whole", None)
    run("resumed", kept[0])
    assert forge(kept[0], base.marker) >= 1
    with pytest.raises(SafetensorError):
        run("forged", kept[0])
    assert not base.marker.exists()


def test_a_state_that_points_elsewhere_is_refused(store: Store, work_uri: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "course.json").write_text("{}")
    save_state(store, f"{work_uri}/ppo/1", 5, tmp_path / "state")
    mine = json.loads(store.read_bytes(f"{work_uri}/ppo/1/state/LATEST"))
    mine["objects"][0]["uri"] = mine["objects"][0]["uri"].replace("/ppo/1/", "/ppo/2/")
    store.write_bytes(f"{work_uri}/ppo/1/state/LATEST", json.dumps(mine).encode())
    with pytest.raises(LimbeckError, match="outside its folder"):
        load_state(store, f"{work_uri}/ppo/1", tmp_path / "out")


def test_a_checkpoint_manifest_without_files_is_refused() -> None:
    empty = Manifest(
        stage="sft", kind="checkpoint", name="x", uri="s3://b/x", objects=(), inputs={}, config_hash="",
        code_version="",
    )  # fmt: skip
    with pytest.raises(DataError, match="without files"):
        base_uri(empty)
