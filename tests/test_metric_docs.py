"""docs/metrics.md explains every metric that the code names, and no other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = "generate|judge|label|sft|reward|ppo|evaluate|report|ablation"
NAME = re.compile(rf'"((?:{STAGES})/[a-z0-9_]+(?:\{{[^"]+?\}}[a-z0-9_]*)*)"')


def named_in_code() -> set[str]:
    """Metric names in the package; what an f-string fills in reads `x`."""
    names = set()
    for path in (ROOT / "src").rglob("*.py"):
        names |= {re.sub(r"\{[^}]*\}", "x", name) for name in NAME.findall(path.read_text())}
    return names


def explained() -> dict[str, re.Pattern[str]]:
    """Names in the first column of the tables, with a pattern for their capital parts."""
    names = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    return {name: re.compile(re.sub(r"[A-Z]+", r"[a-z0-9._]+", name)) for name in names}


def test_every_metric_in_the_code_is_explained() -> None:
    patterns = explained().values()
    unknown = [name for name in named_in_code() if not any(p.fullmatch(name) for p in patterns)]
    assert not unknown


@pytest.mark.parametrize("name", sorted(explained()))
def test_every_explained_metric_is_in_the_code(name: str) -> None:
    assert any(explained()[name].fullmatch(found) for found in named_in_code())
