"""The plan on the report's page: from what `preflight` hands on and the prompts that there were."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from limbeck.data_statistics import FILE, DataStatistics, quantiles
from limbeck.errors import DataError
from limbeck.manifest import Manifest
from limbeck.planning.asked import Given
from limbeck.planning.making import Wish, make_plan
from limbeck.planning.outline import Outline, outline, parse_outline
from limbeck.planning.page import plan_of_report
from limbeck.planning.rates import load_rates
from limbeck.planning.sizes import read_model
from limbeck.preflight import Asked
from limbeck.preflight.places import Place
from limbeck.storage import Store, StoredObject
from tests.planning.conftest import FOLDERS, changed, compiled, of

STAGES = ("prepare", "generate", "judge", "label", "sft", "reward", "ppo", "evaluate", "report")


def outlined(pipeline: str = "distill", **sections: Any) -> Outline:
    """What `preflight` hands on of the paper's run."""
    run_file = changed(**sections)
    given = run_file.model_dump(mode="json", include=set(Asked.__dataclass_fields__))
    facts = {name: read_model(Place(name, folder, None)) for name, folder in FOLDERS.items()}
    return outline(Asked(stages=compiled(pipeline).stages, **given), facts)


def prompts(name: str, num_rows: int, uri: str = "s3://work/prepare") -> Manifest:
    return Manifest(
        stage="prepare", kind=name, name=name, uri=f"{uri}/{name}", objects=(), inputs={}, config_hash="",
        code_version="", num_rows=num_rows,
    )  # fmt: skip


def test_it_is_the_plan_that_the_command_line_makes_for_as_many_prompts(store: Store, work_uri: str) -> None:
    made = parse_outline(outlined().model_dump_json(), "here")
    run_file, train = changed(), prompts("prompts", 7000, work_uri)
    statistics = DataStatistics(
        side="train", num_prompts=7000, words=quantiles([1]), characters=quantiles([400]),
        numbers=quantiles([1]), num_alike={}, num_from_templates=0, examples=(),
    )  # fmt: skip
    store.write_bytes(f"{train.uri}/{FILE}", statistics.model_dump_json().encode())
    listed = StoredObject(uri=f"{train.uri}/{FILE}", bytes=1, sha256="", rows=0)
    train = train.model_copy(update={"objects": (listed,)})
    page = plan_of_report(made, train, prompts("heldout", 1319), run_file.config, store)

    template = len(run_file.config.task.prompt_template.replace("{prompt}", "")) / 4 + 30
    given = Given(prompts=7000, heldout=1319, prompt_tokens=400 / 4 + template)
    plan = make_plan(run_file, compiled("distill"), Wish(load_rates(None), given, folders=FOLDERS))
    assert page.missing == ""
    assert (page.gpu, page.gpu_hours) == (plan.gpu, plan.gpu_hours)
    assert (page.accepted, page.accepted_per_gpu_hour) == (round(plan.accepted), plan.accepted_per_gpu_hour)
    assert [(row.task, row.gpu_hours or 0.0, row.completion_tokens or 0) for row in page.stages] == [
        (task.task, task.gpu_hours, task.completion_tokens) for task in plan.tasks[:-1]
    ]
    assert plan.tasks[-1].task == "report"
    judge = next(row for row in page.stages if row.task == "judge")
    seconds = of(plan, "judge").seconds
    assert seconds is not None
    assert judge.wall_seconds == pytest.approx(seconds * 8)  # all shards
    assert page.assumptions[0] == "7,000 prompts and 1,319 held-out ones, as the run had them"


def test_the_gpu_is_that_of_the_settings(store: Store) -> None:
    config = changed(report={"gpu": "L40S"}).config
    page = plan_of_report(outlined(), prompts("prompts", 10), prompts("heldout", 5), config, store)
    assert (page.gpu, page.missing) == ("L40S", "")
    assert page.rates_source.startswith("Peaks: NVIDIA L40S")


@pytest.mark.parametrize(
    ("change", "gpu", "said"),
    [
        (lambda made: made.model_copy(update={"shapes": {}}), "H100", "the sizes of a model are not known"),
        (lambda made: made, "GTX", "unknown GPU"),
    ],
    ids=["a model without sizes", "a GPU that is not in the table"],
)
def test_a_run_that_cannot_be_planned_has_a_report_all_the_same(
    change: Callable[[Outline], Outline], gpu: str, said: str, store: Store
) -> None:
    config = changed(report={"gpu": gpu}).config
    page = plan_of_report(change(outlined()), prompts("prompts", 10), prompts("heldout", 5), config, store)
    assert said in page.missing
    assert page.stages == ()


def test_the_rows_of_an_ablation_are_not_those_of_its_report(store: Store) -> None:
    pages = [
        plan_of_report(outlined(name), prompts("prompts", 10), prompts("heldout", 5), changed().config, store)
        for name in ("ablation", "distill")
    ]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"stages": 1}'])
def test_what_is_no_outline_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"not the outline of a run in here: .* `outline` of preflight"):
        parse_outline(text, "here")


def test_the_parameters_may_come_as_kubeflow_sends_them() -> None:
    asked = Asked(work_uri="s3://a/b", stages=list(STAGES), num_shards=2.0, gpus=1.0)  # type: ignore[arg-type]
    numbers = replace(asked, resources={"ppo": {"cpu": 8.0, "gpus": 2.0}})
    made = outline(numbers, {})
    assert (made.num_shards, made.gpus, made.resources.ppo.gpus) == (2, 1, 2)
