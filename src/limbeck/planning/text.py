"""A plan for people."""

from collections.abc import Iterator, Sequence

from limbeck.planning.model import Plan, PlannedTask
from limbeck.preflight.memory import GIB
from limbeck.status_text import printable, size

UNKNOWN = "-"
HEADINGS = (
    "task", "tasks x GPUs", "prompt", "completion", "trained", "PFLOP", "GiB of", "fits", "time", "GPU-hours",
    "stored", "objects", "cost",
)  # fmt: skip


def text(plan: Plan) -> str:
    """The page: what is assumed, a line a task, what does not fit and how it would, sums and findings."""
    lines = [
        f"{plan.pipeline} on {plan.gpu}, {plan.gpu_memory_gib:.1f} GiB",
        *(f"  {note}" for note in plan.assumptions),
        f"  rates: {' '.join(plan.rates_source.split())}",
        "",
        *table([HEADINGS, *map(_row, plan.tasks)]),
        "",
        *_memory(plan.tasks),
        *_sums(plan),
        *(f"{finding.severity}: {finding.text}" for finding in plan.findings),
    ]
    return "\n".join(map(printable, lines))


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells under one another: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([f"{first:<{widths[0]}}", *cells]).rstrip()


def number(value: float) -> str:
    """A count with a unit: 1,234 is 1.23 k."""
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.0f}" if not unit else f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} T"


def hours(seconds: float | None) -> str:
    """A time with a unit that keeps it short; a dash for what is not known."""
    if seconds is None:
        return UNKNOWN
    for unit, length in (("s", 60), ("min", 60)):
        if seconds < length:
            return f"{seconds:.0f} {unit}" if unit == "s" else f"{seconds:.1f} {unit}"
        seconds /= length
    return f"{seconds:.1f} h"


def _row(task: PlannedTask) -> tuple[str, ...]:
    """The cells of a task."""
    on_gpus, costs = bool(task.memory), [c for c in (task.cost, task.api_cost) if c is not None]
    return (
        task.task,
        f"{task.num_tasks} x {task.gpus}",
        number(task.prompt_tokens) if task.prompt_tokens else UNKNOWN,
        number(task.completion_tokens) if task.completion_tokens else UNKNOWN,
        number(task.trained_tokens) if task.trained_tokens else UNKNOWN,
        f"{task.flops / 1e15:,.1f}" if task.flops else UNKNOWN,
        f"{task.memory_bytes / GIB:.1f} / {task.room_bytes / GIB:.1f}" if on_gpus else UNKNOWN,
        task.fits or UNKNOWN,
        hours(task.seconds),
        f"{task.gpu_hours:.2f}" if task.gpu_hours else UNKNOWN,
        size(task.bytes),
        f"{task.objects:,}",
        f"{sum(costs):,.2f}" if costs else UNKNOWN,
    )


def _memory(tasks: Sequence[PlannedTask]) -> Iterator[str]:
    """What the memory of a GPU is made of; tasks that fare alike share a line."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        if task.memory:
            parts = ", ".join(f"{name} {part / GIB:.1f}" for name, part in task.memory.items() if part)
            held = f"; holds {task.sequences:,} sequences at once" if task.sequences is not None else ""
            smaller = f"; fits with {task.smallest}" if task.smallest else ""
            alike.setdefault((f"{parts} GiB{held}{smaller}",), []).append(task.task)
    for (words,), names in alike.items():
        yield f"{', '.join(names)}: {words}"
    if alike:
        yield ""


def _sums(plan: Plan) -> Iterator[str]:
    """The whole run."""
    yield (
        f"all: {hours(plan.hours * 3600)}, {plan.gpu_hours:,.2f} GPU-hours, "
        f"{size(plan.bytes)} in {plan.objects:,} objects"
    )
    if plan.accepted_per_gpu_hour is not None:
        yield (
            f"accepted: {plan.accepted:,.0f} completions of the teacher, "
            f"{plan.accepted_per_gpu_hour:,.0f} per GPU-hour of generate and judge"
        )
    if plan.cost is not None:
        yield (
            f"cost: {plan.cost:,.2f} {plan.currency} for GPUs, {plan.storage_cost or 0.0:,.2f} a month "
            f"for what is stored ({plan.price_source})"
        )
    if plan.api_cost is not None:
        yield f"cost of the black box: {plan.api_cost:,.2f} ({plan.api_price_source})"
