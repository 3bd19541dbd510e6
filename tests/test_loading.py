"""Imports without looks for garbage, tokenizers without torch: what is loaded, what is left as it was."""

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck import chat as chats
from limbeck.config import Chat
from limbeck.loading import loading
from tests import families
from tests.families import FAMILIES, QUESTION


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """What was loaded here is no test's to keep."""
    yield
    gc.unfreeze()


@pytest.mark.parametrize("enabled", [True, False], ids=["looks for garbage", "does not"])
def test_python_looks_for_garbage_after_a_load_as_before_it(enabled: bool) -> None:
    if not enabled:
        gc.disable()
    try:
        with pytest.raises(KeyError) as raised, loading():
            raise KeyError(gc.isenabled())
        assert raised.value.args == (False,)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_what_was_loaded_stays_for_good_and_garbage_made_since_does_not(tmp_path: Path) -> None:
    (tmp_path / "loaded_here.py").write_text("made = [[] for _ in range(1000)]")
    sys.path.insert(0, str(tmp_path))
    since = []
    try:
        for keeps in (True, False):
            frozen = gc.get_freeze_count()
            since += [[number] for number in range(1000)]
            with loading():
                import loaded_here  # type: ignore[import-not-found]  # noqa: F401, PLC0415
            assert (gc.get_freeze_count() >= frozen + 1000) == keeps
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["loaded_here"]


LOADED = """
import json, sys
from pathlib import Path
from limbeck import engine_process
from limbeck.config import Chat, EngineConfig, ModelConfig

loaded_first = []

class Process(engine_process.EngineProcess):
    def _launch(self):
        loaded_first.append("transformers" in sys.modules)

    def _wait_until_ready(self):
        pass

model = ModelConfig(trust_remote_code=sys.argv[1] == "trusted")
engines = [Process(Path(folder), model, EngineConfig()) for folder in sys.argv[2:]]
ids = [engine.chat_prompt({question!r}) for engine in engines]
with_torch = "torch" in sys.modules
import torch.nn
print(json.dumps([ids, with_torch, loaded_first[0]]))
"""


@pytest.mark.parametrize("trust", ["trusted", "not trusted"])
def test_a_stage_beside_an_engine_tokenizes_without_torch_as_others_do_with_it(
    tmp_path: Path, trust: str
) -> None:
    """Code that comes with a tokenizer may need torch, though."""
    expected = []
    for number, family in enumerate(FAMILIES.values()):
        tokenizer = families.of_family(family)
        tokenizer.save_pretrained(tmp_path / f"{number:02d}")
        expected.append(chats.prompt_ids(tokenizer, Chat(), QUESTION))
    code = LOADED.replace("{question!r}", repr(QUESTION))
    command = [sys.executable, "-c", code, trust, *map(str, sorted(tmp_path.iterdir()))]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) == [expected, trust == "trusted", False]
    assert "PyTorch" not in ran.stderr
