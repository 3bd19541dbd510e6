"""A plan beside what came of it: hours and tokens of each task, and accepted completions for a GPU-hour."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from limbeck.errors import DataError
from limbeck.planning.model import Plan, PlannedTask, parse_plan
from limbeck.planning.text import UNKNOWN, hours, number, table
from limbeck.report.model import RunReport, StageRow
from limbeck.status_text import printable

HEADINGS = (
    "task", "time", "planned", "GPU-hours", "planned", "prompt tokens", "planned", "completion tokens",
    "planned",
)  # fmt: skip
SEVERAL_OUTPUTS = ("prepare", "label")
"""Stages whose outputs each bear the time of the whole; one of them is planned."""


def load_plan(path: Path) -> Plan:
    """Read a plan that `limbeck plan --json` has written.

    Raises:
        DataError: when there is none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            "cannot read the plan", where=f"--plan {path}", got=str(error), remedy="Check the path"
        ) from error
    return parse_plan(content, str(path))


def load_report(path: Path) -> RunReport:
    """Read a fetched report.json.

    Raises:
        DataError: when another version of Limbeck has written it.
    """
    try:
        return RunReport.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            "a report that this version cannot compare with a plan",
            where=str(path),
            got=f"{error.errors()[0]['msg']} at {'.'.join(map(str, error.errors()[0]['loc']))}",
            remedy="Use the version of Limbeck that made it",
        ) from error


def text(plan: Plan, report: RunReport) -> str:
    """The comparison for people. Times are sums over shards; a dash is what was not measured or planned."""
    done = {(row.stage, row.name): row for row in report.stages}
    rows = [_row(task, done.pop((task.stage, task.name), None)) for task in plan.tasks]
    lines = [f"plan for {plan.gpu} against what was measured:", *table([HEADINGS, *rows])]
    missed = [key for key in done if key[0] not in SEVERAL_OUTPUTS]
    if missed:
        lines.append(f"not planned: {', '.join(f'{stage} {name}' for stage, name in missed)}")
    lines += _accepted(plan, report)
    return "\n".join(map(printable, lines))


def _row(task: PlannedTask, done: StageRow | None) -> tuple[str, ...]:
    """The cells of a task: each figure as it was measured, and as it was planned."""
    planned = None if task.seconds is None else task.seconds * task.num_tasks
    measured = done or StageRow(
        stage=task.stage, name=task.name, num_parts=0, wall_seconds=0, rows_in=0, rows_kept=0, rejected={}
    )
    return (
        task.task,
        hours(measured.wall_seconds if done else None),
        hours(planned),
        UNKNOWN if measured.gpu_hours is None else f"{measured.gpu_hours:.2f}",
        f"{task.gpu_hours:.2f}" if task.gpus else UNKNOWN,
        _tokens(measured.prompt_tokens),
        _tokens(task.prompt_tokens or None),
        _tokens(measured.completion_tokens),
        _tokens(task.completion_tokens or None),
    )


def _tokens(count: int | None) -> str:
    return UNKNOWN if count is None else number(count)


def _accepted(plan: Plan, report: RunReport) -> Iterator[str]:
    """Accepted completions for a GPU-hour of the teacher's `generate` and of `judge`."""
    measured, planned = report.accepted, plan.accepted_per_gpu_hour
    if measured is None and planned is None:
        return
    was = f"{measured.per_gpu_hour:,.0f} ({measured.completions:,} completions)" if measured else UNKNOWN
    would = f"{planned:,.0f} ({plan.accepted:,.0f})" if planned is not None else UNKNOWN
    yield f"accepted completions for a GPU-hour: {was}, planned {would}"
