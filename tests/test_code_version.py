"""What of the package a stage's result depends on: all of that is in its `code_version`, and nothing else."""

from pathlib import Path

import grimp

from limbeck.manifest import LAUNCHERS

PACKAGE = Path("src/limbeck")
STARTS = (
    "stages",
    "trainer",
    "sampler",
    "refining",
    "engine_process",
    "openai_sampler",
    "engine_worker",
    "compare_worker",
)
SAID = {"progress.py", "lease.py", "saver.py", "processes.py", "warm.py"}
"""What stages reach, and what only says how far they are, who is at work, when a training is saved, and with
whom a child process ends, or begins."""


def test_what_no_stage_reaches_counts_for_no_stage() -> None:
    """Else a changed check of compiled pipelines would throw away every finished checkpoint."""
    graph = grimp.build_graph("limbeck", cache_dir=None)
    starts = [name for name in graph.modules if name.split(".")[1:2] and name.split(".")[1] in STARTS]
    reached = {name for start in starts for name in (start, *graph.find_upstream_modules(start))}
    names = {name.split(".")[1] for name in reached if "." in name}
    reached_files = {name if (PACKAGE / name).is_dir() else f"{name}.py" for name in names}
    all_files = {path.name for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    unreached = all_files - reached_files - {"__init__.py", "__pycache__", "pipelines"}
    assert unreached == set(LAUNCHERS) - SAID
    assert set(LAUNCHERS) & reached_files <= SAID
