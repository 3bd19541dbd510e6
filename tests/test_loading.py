"""Imports without looks for garbage: what is loaded, what is left as it was; and what is loaded when."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from limbeck.loading import loading
from tests import tiny


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


LAUNCHED = """
import sys
from pathlib import Path
from limbeck import engine_process
from limbeck.config import EngineConfig, ModelConfig

class Process(engine_process.EngineProcess):
    def _launch(self):
        print("transformers" in sys.modules)

    def _wait_until_ready(self):
        pass

Process(Path(sys.argv[1]), ModelConfig(), EngineConfig())
print("transformers" in sys.modules)
"""


def test_an_engine_comes_up_before_its_stage_loads_tokenizers(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", LAUNCHED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["False", "True"]
