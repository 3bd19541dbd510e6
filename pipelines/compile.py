"""Compiles every component and pipeline to the YAML beside it: `python -m pipelines.compile`."""

import importlib
import warnings
from pathlib import Path

from kfp import compiler

ROOT = Path(__file__).parent.parent


def compile_all(target: Path = ROOT) -> list[Path]:
    """Compile every `component.py` and `pipeline.py` to YAML; give the files written.

    Args:
        target: The folder below which the files go, at the same places as their sources.
    """
    written = []
    for source in sorted([*ROOT.glob("components/*/component.py"), *ROOT.glob("pipelines/*/pipeline.py")]):
        relative = source.relative_to(ROOT)
        function = getattr(
            importlib.import_module(".".join(relative.with_suffix("").parts)), source.parent.name
        )
        output = target / relative.with_suffix(".yaml")
        output.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(function, str(output))
        written.append(output)
    return written


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)
    for path in compile_all():
        print(path.relative_to(ROOT))
