"""GPU-hours and tokens of stages, and accepted completions for a GPU-hour."""

import pytest

from limbeck.manifest import Manifest
from limbeck.report.model import Accepted, PlannedRun, RunReport
from limbeck.report.page import html_page, markdown_page
from limbeck.report.spent import accepted
from limbeck.report.training import stage_rows


def made(stage: str, name: str, **values: object) -> Manifest:
    fields = {"kind": "made", "objects": (), "inputs": {}, "config_hash": "", "code_version": ""}
    uri = f"s3://work/{stage}/{name}"
    return Manifest.model_validate({"stage": stage, "name": name, "uri": uri} | fields | values)


TOKENS = {"generate/prompt_tokens": 10.0, "generate/completion_tokens": 30.0}
TEACHER = made("generate", "teacher", num_gpus=2, wall_seconds=1800.0, metrics=TOKENS)
JUDGE = made("judge", "judge", num_gpus=1, wall_seconds=3600.0)
SELECTED = made("sft", "sft_selected", num_gpus=1, wall_seconds=10.0, num_rows=500)


def test_shards_are_added_up() -> None:
    (row,) = stage_rows([TEACHER, TEACHER])
    assert (row.gpu_hours, row.prompt_tokens, row.completion_tokens) == (2.0, 20, 60)


def test_accepted_completions_are_those_that_sft_learnt_from() -> None:
    found = accepted(stage_rows([TEACHER, JUDGE, SELECTED, made("sft", "sft_all", num_gpus=1, num_rows=900)]))
    assert found is not None
    assert (found.completions, found.gpu_hours, found.per_gpu_hour) == (500, 2.0, 250.0)


@pytest.mark.parametrize(
    "manifests",
    [
        [TEACHER.model_copy(update={"num_gpus": None}), JUDGE, SELECTED],
        [TEACHER, JUDGE.model_copy(update={"num_gpus": None}), SELECTED],
        [TEACHER, JUDGE],
        [SELECTED],
        [TEACHER.model_copy(update={"num_gpus": 0}), JUDGE.model_copy(update={"num_gpus": 0}), SELECTED],
        [],
    ],
    ids=["a manifest of before", "another", "nothing learnt", "nothing answered", "no GPU", "nothing at all"],
)
def test_what_is_not_known_is_not_told(manifests: list[Manifest]) -> None:
    assert accepted(stage_rows(manifests)) is None


def test_verdicts_on_held_out_answers_are_in_the_tokens_and_the_cost_of_their_task() -> None:
    kinds = {"prompt_tokens": 1.0, "completion_tokens": 2.0, "cost": 4.0}
    metrics = {f"evaluate/{name}": value for name, value in kinds.items()}
    metrics |= {f"evaluate/judge_{name}": 10 * value for name, value in kinds.items()}
    (row,) = stage_rows([made("evaluate", "teacher", metrics=metrics)])
    assert (row.prompt_tokens, row.completion_tokens, row.cost) == (11, 22, 44.0)


def test_one_shard_of_before_hides_the_figures_of_all() -> None:
    (row,) = stage_rows([TEACHER, TEACHER.model_copy(update={"num_gpus": None, "metrics": {}})])
    assert (row.gpu_hours, row.prompt_tokens, row.completion_tokens) == (None, None, None)


def test_a_stage_without_gpus_has_no_gpu_hours_on_a_machine_that_has_some() -> None:
    (row,) = stage_rows([made("label", "labelled_teacher", num_gpus=8, wall_seconds=10.0)])
    assert row.gpu_hours is None


def test_the_pages_tell_of_gpus_where_something_is_known(report: RunReport) -> None:
    stages = stage_rows([TEACHER, JUDGE, SELECTED])
    found = Accepted(completions=500, gpu_hours=2.0, per_gpu_hour=250.0)
    told = report.model_copy(update={"stages": stages, "accepted": found})
    html, markdown = html_page(told), markdown_page(told)
    assert "judge: <strong>250</strong> (500 that SFT learnt from, 2.00 GPU-hours)" in html
    assert "judge: 250 (500 that SFT learnt from, 2.00 GPU-hours)" in markdown
    for page in (html, markdown):
        assert "GPU-hours" in page
        assert "Completion tokens" in page or "completion tokens |" in page
    teacher = next(line for line in markdown.splitlines() if line.startswith("| `generate`"))
    head = next(line for line in markdown.splitlines() if line.startswith("| stage | name | time"))
    assert teacher.count(" | ") == head.count(" | ")
    assert " | 1.00 | 10 | 30 | " in teacher


def test_the_pages_set_a_plan_beside_what_came_of_it(report: RunReport, hostile: str) -> None:
    task = {"task": "generate teacher", "stage": "generate", "name": "teacher", "wall_seconds": 3600.0}
    tokens = {"gpu_hours": 4.0, "prompt_tokens": 11, "completion_tokens": 33}
    unmade = {"task": hostile, "stage": "ppo", "name": "ppo_none", "wall_seconds": None}
    nothing = dict.fromkeys(tokens)
    plan = PlannedRun.model_validate(
        {"gpu": "H100", "rates_source": "a data sheet", "assumptions": (hostile,)}
        | {"stages": (task | tokens, unmade | nothing), "accepted_per_gpu_hour": 125.0}
    )
    found = Accepted(completions=500, gpu_hours=2.0, per_gpu_hour=250.0)
    told = report.model_copy(update={"stages": stage_rows([TEACHER, JUDGE]), "accepted": found, "plan": plan})
    html, markdown = html_page(told), markdown_page(told)
    assert "for a GPU-hour: 250, planned 125" in html
    assert "for a GPU-hour: 250, planned 125" in markdown
    cells = ["30 min 00 s", "1 h 00 min", "1.00", "4.00", "10", "11", "30", "33"]
    assert "".join(f"<td>{cell}</td>" for cell in cells) in html
    assert f"| `generate teacher` | {' | '.join(cells)} |" in markdown
    assert "".join(["<td>—</td>"] * 8) in html
    for page in (html, markdown):
        assert "<script>" not in page
        assert "a data sheet" in page


def test_the_pages_say_why_there_is_no_plan(report: RunReport, hostile: str) -> None:
    told = report.model_copy(update={"plan": PlannedRun(gpu="H100", missing=f"unknown GPU {hostile}")})
    for page in (html_page(told), markdown_page(told)):
        assert "There is no plan: " in page
        assert "unknown GPU" in page
        assert "<script>" not in page


def test_the_pages_of_before_have_no_such_columns(report: RunReport) -> None:
    for page in (html_page(report), markdown_page(report)):
        assert "GPU-hour" not in page
        assert "Plan and what came of it" not in page
        assert "ompletion tokens |" not in page
