"""How many GPUs a process can see."""

from pathlib import Path

import pytest

from limbeck.devices import num_gpus


@pytest.mark.parametrize(
    ("files", "visible", "expected"),
    [
        (["nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm"], None, 3),
        (["null"], None, 0),
        (["nvidia0", "nvidia1"], "", 0),
        (["nvidia0", "nvidia1"], "-1", 0),
        (["nvidia0", "nvidia1"], "1", 1),
        (["nvidia0", "nvidia1"], "GPU-aa, GPU-bb", 2),
        (["nvidia0", "nvidia1", "nvidia2"], "0,-1,2", 1),
        (["nvidia0"], "0,1,2", 1),
    ],
    ids=[
        "all of the machine",
        "none",
        "all hidden",
        "all hidden by -1",
        "one chosen",
        "chosen by their ids",
        "what stands behind -1 is hidden",
        "no more than there are",
    ],
)
def test_gpus_are_those_that_engines_see(
    files: list[str], visible: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert num_gpus(tmp_path) == expected
