"""Model folders: complete, of one piece, and with no code that runs unasked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from limbeck.config import ModelConfig
from limbeck.preflight.models import check_model
from limbeck.preflight.places import Place
from limbeck.preflight.probes import ProbedStore
from tests.preflight.conftest import lines

SAFE, TRUSTING = ModelConfig(), ModelConfig(trust_remote_code=True)


def change(name: str, **values: Any) -> Callable[[Path], object]:
    """Change keys of a JSON file of the folder."""

    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return apply


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def weights(header: dict[str, Any]) -> Callable[[Path], object]:
    """A weight file that is its header alone."""
    text = json.dumps(header).encode()
    return write("model.safetensors", len(text).to_bytes(8, "little") + text)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def both(first: Callable[[Path], object], second: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: (first(folder), second(folder))


def shard(*present: int) -> Callable[[Path], object]:
    """Weights in two files, of which some are there."""

    def apply(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        names = [f"model-{number}.safetensors" for number in (1, 2)]
        for number in present:
            save_file({f"w{number}": np.zeros((2, 3), np.float32)}, folder / names[number - 1])
        index = {"weight_map": {f"w{number}": names[number - 1] for number in (1, 2)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return apply


FOLDERS: dict[str, tuple[Callable[[Path], object], ModelConfig, list[str]]] = {
    "whole": (lambda _: None, SAFE, []),
    "whole in two files": (shard(1, 2), SAFE, []),
    "not there": (shutil.rmtree, SAFE, ["error: no such folder in `student`"]),
    "no config": (remove("config.json"), SAFE, ["error: not a Hugging Face checkpoint in "]),
    "a config that is no JSON": (write("config.json", b"{"), SAFE, ["error: cannot read config.json in "]),
    "two broken files": (
        both(write("config.json", b"[]"), write("tokenizer_config.json", b"[]")),
        SAFE,
        ["error: cannot read config.json in ", "error: cannot read tokenizer_config.json in "],
    ),
    "a config without sense": (
        change("config.json", num_hidden_layers=-2),
        SAFE,
        ["error: a config.json that describes no model in "],
    ),
    "no tokenizer": (remove("tokenizer.json"), SAFE, ["error: a checkpoint without a tokenizer in "]),
    "no chat template": (
        remove("chat_template.jinja"),
        SAFE,
        ["error: a tokenizer without a chat template in "],
    ),
    "no weights": (remove("model.safetensors"), SAFE, ["error: a checkpoint without all its weights in "]),
    "a shard that is missing": (shard(1), SAFE, ["error: a checkpoint without all its weights in "]),
    **{
        f"an index of {json.dumps(weight_map)}": (
            write("model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode()),
            SAFE,
            ["error: an index that does not say which file a weight is in in "],
        )
        for weight_map in (["model.safetensors"], None, {"w": 1}, {"w": ["model.safetensors"]})
    },
    "more heads than width": (
        change("config.json", num_attention_heads=64, head_dim=None),
        SAFE,
        ["error: a config.json that describes no model in "],
    ),
    "sizes beyond all measure": (
        change("config.json", intermediate_size=10**400),
        SAFE,
        ["error: a config.json that describes no model in "],
    ),
    "pickled weights alone": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        SAFE,
        ["error: weights in a pickle file"],
    ),
    "empty weights": (write("model.safetensors", b""), SAFE, ["error: a damaged weight file in "]),
    "weights cut short": (cut, SAFE, ["error: a damaged weight file in "]),
    "weights that are something else": (
        write("model.safetensors", b"\x10\0\0\0\0\0\0\0not a JSON header"),
        SAFE,
        ["error: a damaged weight file in "],
    ),
    "a header longer than any memory": (
        write("model.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\0{}"),
        SAFE,
        ["error: a damaged weight file in "],
    ),
    "a header without shapes": (weights({"a": {}}), SAFE, ["error: a damaged weight file in "]),
    **{
        f"a weight with {called}": (
            weights({"a": {"shape": shape, "data_offsets": [0, 0]}}),
            SAFE,
            ["error: a damaged weight file in "],
        )
        for called, shape in {
            "no end": [float("inf")],
            "less than nothing": [-1],
            "more than its file": [1 << 2000],
        }.items()
    },
    "several faults": (
        both(both(remove("tokenizer.json"), remove("chat_template.jinja")), cut),
        SAFE,
        [
            "error: a checkpoint without a tokenizer in ",
            "error: a tokenizer without a chat template in ",
            "error: a damaged weight file in ",
        ],
    ),
    "code nobody asked for": (
        change("config.json", auto_map={"AutoModel": "modeling.Mine"}),
        SAFE,
        ["error: a checkpoint with code of its own, which does not run unasked in auto_map in "],
    ),
    "code that was asked for": (
        change("config.json", auto_map={"AutoModel": "modeling.Mine"}),
        TRUSTING,
        ["warning: code inside this checkpoint may run"],
    ),
}


@pytest.mark.parametrize(("spoil", "settings", "messages"), FOLDERS.values(), ids=FOLDERS)
def test_each_fault_of_a_folder_has_its_line(
    spoil: Callable[[Path], object], settings: ModelConfig, messages: list[str], folder: Path
) -> None:
    spoil(folder)
    _, findings = check_model(Place("student", str(folder), None), settings, "config.student")
    found = lines(findings)
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert line.startswith(message)
        assert str(folder) in line


def test_a_stored_model_is_known_without_its_weights(inputs: str, made: Path) -> None:
    place = Place("student", f"{inputs}/student", ProbedStore())
    facts, findings = check_model(place, SAFE, "config.student")
    assert findings == []
    assert facts is not None
    assert facts.shape is not None
    # Llama of one layer: embedding 34 x 32; q, k, v, o 4 x 32 x 32; MLP 3 x 32 x 64; three norms of 32.
    assert facts.shape.parameters == 34 * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32
    assert facts.shape.linear_widths == 4 * (32 + 32) + 3 * (32 + 64)
    assert facts.stored_bytes == (made / "model.safetensors").stat().st_size


def test_a_name_with_escape_codes_cannot_reach_the_terminal(folder: Path) -> None:
    change("config.json", num_hidden_layers="\x1b[2J")(folder)
    _, findings = check_model(Place("student", f"{folder}\x1b[31m", None), SAFE, "config.student")
    assert "\x1b" not in "".join(lines(findings))
