"""The plan that the report's page sets beside what was measured.

It is the plan of `limbeck plan` once more, with the prompts that `prepare` has kept; nothing else that the
run has measured is in it.
"""

from limbeck.config import Config
from limbeck.data_statistics import FILE, parse_statistics
from limbeck.errors import LimbeckError
from limbeck.manifest import Manifest
from limbeck.planning.asked import kept
from limbeck.planning.making import Wish, planned
from limbeck.planning.model import PlannedTask
from limbeck.planning.outline import Outline
from limbeck.planning.rates import load_rates
from limbeck.preflight.asked import ABLATION
from limbeck.report.model import PlannedRun, PlannedStage
from limbeck.storage import Store


def plan_of_report(
    outlined: Outline, prompts: Manifest | None, heldout: Manifest, config: Config, store: Store
) -> PlannedRun:
    """Plan a finished run; one that cannot be planned is told with the reason, and no error.

    Args:
        outlined: What `preflight` has written.
        prompts: Those to train on, or one row for each of them; None where nothing is trained.
        heldout: The held-out prompts.
        config: The settings of the run.
        store: Where the statistics of the prompts lie.

    Raises:
        DataError: when there are statistics and they cannot be read.
        StorageError: when the store cannot be read.
    """
    # An ablation has its own page; its rows are not in the report.
    shown = outlined.model_copy(update={"stages": tuple(s for s in outlined.stages if s != ABLATION)})
    num_prompts = prompts.num_rows if prompts and shown.trains else 0
    lengths = [found for side in (prompts, heldout) if side and (found := _characters(side, store))]
    counted = kept(config, num_prompts, heldout.num_rows, lengths[0] if lengths else None)
    try:
        plan = planned(shown, config, counted, Wish(load_rates(None)))
    except LimbeckError as error:
        return PlannedRun(gpu=config.report.gpu, missing=str(error))
    return PlannedRun(
        gpu=plan.gpu,
        rates_source=" ".join(plan.rates_source.split()),
        assumptions=plan.assumptions,
        # Its own time is not known yet.
        stages=tuple(_stage(task) for task in plan.tasks if task.stage != "report"),
        gpu_hours=plan.gpu_hours or None,
        accepted=round(plan.accepted) or None,
        accepted_per_gpu_hour=plan.accepted_per_gpu_hour,
    )


def _characters(prompts: Manifest, store: Store) -> int | None:
    """The median length of prompts, where `prepare` has made them."""
    item = next((item for item in prompts.objects if item.uri == f"{prompts.uri}/{FILE}"), None)
    return parse_statistics(store.read_bytes(item.uri), item.uri).characters.median if item else None


def _stage(task: PlannedTask) -> PlannedStage:
    """A task as the page has it: all shards together."""
    return PlannedStage(
        task=task.task,
        stage=task.stage,
        name=task.name,
        wall_seconds=None if task.seconds is None else task.seconds * task.num_tasks,
        gpu_hours=task.gpu_hours or None,
        prompt_tokens=task.prompt_tokens or None,
        completion_tokens=task.completion_tokens or None,
    )
