"""The status of the stages as text and as JSON. Names may come from anyone: nothing in them acts."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from limbeck.lineage import Chain
from limbeck.shard_status import ShardState
from limbeck.status import StageState, WorkState

METRICS = {
    "label": ("label/coverage", "label/agreement"),
    "sft": ("sft/loss",),
    "reward": ("reward/auc_student", "reward/pair_accuracy_student"),
    "ppo": ("ppo/validation_agreement", "ppo/start_agreement", "ppo/stopped_by_monitor"),
    "evaluate": ("evaluate/accuracy_sampled", "evaluate/accuracy_greedy"),
    "report": ("report/promote", "report/label_coverage", "report/label_precision"),
}
"""What of a stage's metrics is worth a line."""
MAX_LINE = 1000
MAX_SHARDS = 32
"""Of more shards only those that straggle have a line; `--json` has all."""
HEADINGS = ("state", "name", "rows", "size", "took", "written (UTC)", "address")
ROW = "{mark} {:11}  {:16}  {:>13}  {:>8}  {:>7}  {:16}  {}"
DETAIL = " " * 15


def text(work: WorkState, chain: Chain | None, now: datetime) -> str:
    """The page for people.

    Args:
        work: What is there.
        chain: What belongs together; its outputs are marked.
        now: For the ages of what is unfinished; with its time zone.
    """
    lines = [f"{work.work_uri}: {counts(work.stages)}; {work.num_objects:,} objects, {size(work.bytes)}"]
    if chain is not None:
        lines.append(f"* {chain.head.address} and what it was made from")
    if work.stages:
        lines += ["", ROW.format(*HEADINGS, mark=" ")]
    for state in work.stages:
        lines += _lines(state, marked=chain is not None and state.uri in chain.uris, now=now)
    return "\n".join(map(printable, lines))


def as_json(work: WorkState, chain: Chain | None) -> str:
    """The same for machines, in ASCII: the fields of `WorkState`, and `chain` with addresses.

    The objects that manifests list are left out.
    """
    fields = json.loads(work.model_dump_json(exclude={"stages": {"__all__": {"manifest": {"objects"}}}}))
    fields["chain"] = [state.uri for state in work.stages if chain is not None and state.uri in chain.uris]
    return json.dumps(fields, indent=1)


def counts(states: Iterable[StageState]) -> str:
    """How many outputs are in which state."""
    found = Counter(state.state for state in states)
    return ", ".join(f"{number} {name}" for name, number in found.items()) or "no stage has written anything"


def printable(line: str) -> str:
    """A line that a terminal shows and does not obey: it is cut, and what is not printable is spelt out."""
    letters = (a if a.isprintable() else a.encode("unicode_escape").decode() for a in line[:MAX_LINE])
    return "".join(letters) + (" ..." if len(line) > MAX_LINE else "")


def size(number: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds with a unit that keeps them short."""
    for unit, length in (("s", 60), ("min", 60), ("h", 24)):
        if seconds < length:
            return f"{seconds:.1f} {unit}"
        seconds /= length
    return f"{seconds:.1f} d"


def minute(moment: datetime) -> str:
    """A moment in UTC, to the minute."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _lines(state: StageState, *, marked: bool, now: datetime) -> list[str]:
    """One row of the table and, below it, what does not fit."""
    made = state.manifest
    row = ROW.format(
        state.state,
        made.name[:16] if made else "",
        "" if state.rows is None else f"{state.rows:,}",
        size(state.bytes),
        duration(made.wall_seconds) if made else "",
        minute(state.modified),
        state.address,
        mark="*" if marked else " ",
    )
    holder = f"at work: {state.holder}" if state.holder else ""
    details = [state.reason, _done(state, now), holder, *_shards(state.shards), "; ".join(_figures(state))]
    if made:
        details.append(f"code {made.code_version[:30]}, config {made.config_hash[:30]}")
    return [row, *(DETAIL + detail for detail in details if detail)]


def _done(state: StageState, now: datetime) -> str:
    """How far an unfinished output has come, and when it was last written."""
    if state.state not in ("in progress", "started"):
        return ""
    parts = f"{state.num_parts} finished parts, " if state.num_parts else ""
    loose = f"up to {state.loose_rows:,} rows of parts that are not whole yet, " if state.loose_rows else ""
    step = f"training state of step {state.step}, " if state.step is not None else ""
    age = max(0.0, (now - state.modified).total_seconds())
    return f"{parts}{loose}{step}last written {duration(age)} ago"


def _shards(shards: Sequence[ShardState]) -> list[str]:
    """How far each shard has come; of very many, those that straggle."""
    if not shards:
        return []
    if len(shards) == 1:
        return [_rows(shards[0].rows, shards[0].expected, shards[0].rows_per_second)]
    counted = Counter(shard.state for shard in shards)
    states = ", ".join(f"{number} {name}" for name, number in counted.items())
    known = [shard.expected for shard in shards if shard.expected is not None]
    total = sum(known) if len(known) == len(shards) else None
    rate = sum(shard.rows_per_second for shard in shards)
    lines = [f"{len(shards)} shards: {states}; {_rows(sum(shard.rows for shard in shards), total, rate)}"]
    shown = shards if len(shards) <= MAX_SHARDS else [shard for shard in shards if shard.straggles]
    for shard in shown[:MAX_SHARDS]:
        mark = ", far behind the others" if shard.straggles else ""
        rows = (
            ""
            if shard.state == "waiting"
            else f": {_rows(shard.rows, shard.expected, shard.rows_per_second)}"
        )
        lines.append(f"  {shard.index + 1}/{shard.count} {shard.state}{rows}{mark}")
    if len(shown) > MAX_SHARDS:
        lines.append(f"  and {len(shown) - MAX_SHARDS} more that are far behind")
    return lines


def _rows(done: int, expected: int | None, rate: float) -> str:
    """`1,200 of 6,000 rows, 12.0/s`."""
    of = "" if expected is None else f" of {expected:,}"
    return f"{done:,}{of} rows" + (f", {rate:,.1f}/s" if rate else "")


def _figures(state: StageState) -> list[str]:
    """The metrics worth a line, and how many rows were left out."""
    if state.manifest is None:
        return []
    metrics = state.manifest.metrics
    wanted = [name for name in METRICS.get(state.stage, ()) if name in metrics]
    shown = [f"{name.partition('/')[2]} {_figure(metrics[name])}" for name in wanted]
    left_out = [f"{count:,} {reason[:60]}" for reason, count in state.manifest.rejected.items()]
    figures = [", ".join(shown), f"left out: {', '.join(left_out)}" if left_out else ""]
    return [figure for figure in figures if figure]


def _figure(value: float) -> str:
    """A metric: three places, none where it is whole."""
    return f"{value:.0f}" if value.is_integer() else f"{value:.3f}"


def reports_text(reports: Iterable[StageState]) -> str:
    """One line for each report, the newest first."""
    lines = []
    for state in reports:
        promote = state.manifest.metrics.get("report/promote") if state.manifest else None
        decided = {None: "", 0.0: "do not promote", 1.0: "promote"}.get(promote, "")
        lines.append(f"{minute(state.modified)} UTC  {state.state:11}  {decided:14}  {state.uri}")
        lines += [DETAIL + state.reason] if state.reason else []
    return "\n".join(map(printable, lines))
