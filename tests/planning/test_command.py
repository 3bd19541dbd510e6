"""`limbeck plan` and `limbeck report --plan`, as people type them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from limbeck.config import Config
from limbeck.planning import against
from limbeck.planning.model import Plan
from limbeck.report.model import Accepted, Decision, RunReport, StageRow
from tests.planning.conftest import FOLDERS, PAPER

PLAN = [
    sys.executable, "-m", "limbeck.cli", "plan", str(PAPER / "gsm8k-llama.yaml"), "--prompts", "7473",
    "--heldout", "1319", "--teacher", FOLDERS["teacher"], "--student", FOLDERS["student"],
]  # fmt: skip


def limbeck(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PLAN, *arguments], capture_output=True, text=True, check=False)


def test_a_plan_for_people_says_what_it_assumes_and_ends_well() -> None:
    done = limbeck("--completion-tokens", "150")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "distill on H100, 79.6 GiB"
    assert "  7,473 prompts, as given" in lines
    assert "  150 tokens a completion, as given; max_tokens if that is less" in lines
    assert "  50% of the teacher's completions are selected (assumed)" in lines
    assert any(line.startswith("  rates: Peaks: NVIDIA H100 data sheet") for line in lines)
    heads = next(line for line in lines if line.startswith("task "))
    judge = next(line for line in lines if line.startswith("judge "))
    assert heads.split()[:3] == ["task", "tasks", "x"]
    assert judge.split()[1:4] == ["8", "x", "1"]
    assert lines[-2].startswith("all: ")
    assert lines[-1].startswith("accepted: 34,865 completions of the teacher, ")


def test_a_plan_of_what_surely_fails_says_all_of_it_and_ends_as_preflight_does() -> None:
    done = limbeck("--gpu", "L4")
    assert done.returncode == 2
    assert "fits with sft.deepspeed.lora_rank: 16, or one A100-40GB of 40 GiB as it is" in done.stdout
    errors = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert done.stderr.startswith("limbeck: error 2: the plan found 3 errors in ")


def test_prices_and_json(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        yaml.safe_dump({"currency": "EUR", "source": "a list of May", "gpu_hour": {"H100": 2.0}})
    )
    plan = Plan.model_validate_json(limbeck("--prices", str(prices), "--json").stdout)
    assert (plan.currency, plan.price_source) == ("EUR", "a list of May")
    assert plan.cost == pytest.approx(2 * plan.gpu_hours)
    assert "EUR for GPUs" in limbeck("--prices", str(prices)).stdout


@pytest.mark.parametrize(
    ("arguments", "content", "said"),
    [
        (["--gpu", "H1000"], None, "unknown GPU in --gpu: expected H100, H200, A100-80GB"),
        (["--prices"], "gpu_hour: {H100: -1}\ncurrency: EUR\nsource: x\n", "bad setting `gpu_hour.H100`"),
        (["--prices"], "currency: EUR\nsource: x\n", "missing setting `gpu_hour`"),
        (["--prices"], "- 1\n", "not a file of prices"),
        (["--rates"], "gpus: {}\n", "bad setting `gpus`"),
    ],
    ids=["an unknown GPU", "a price below 0", "no prices", "no mapping", "no rates"],
)
def test_what_cannot_be_planned_is_one_line(
    arguments: list[str], content: str | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "given").write_text(content)
        arguments = [*arguments, str(tmp_path / "given")]
    done = limbeck(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"limbeck: error 2: {said}")
    assert done.stderr.count("\n") == 1


def test_a_plan_beside_what_came_of_it(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(limbeck("--json").stdout)
    plan = against.load_plan(tmp_path / "plan.json")
    (tmp_path / "report.json").write_text(made_report().model_dump_json())
    said = against.text(plan, against.load_report(tmp_path / "report.json"))
    rows = {line.split("  ")[0]: line.split() for line in said.splitlines()}
    # Two hours on one GPU, 20 million tokens; the plan's figures stand beside them.
    teacher = next(task for task in plan.tasks if task.task == "generate teacher")
    assert rows["generate teacher"][2:4] == ["2.0", "h"]
    assert rows["generate teacher"][6:8] == ["2.00", f"{teacher.gpu_hours:.2f}"]
    assert rows["generate teacher"][-4:-2] == ["20", "M"]
    assert "not planned: evaluate sft_odd" in said
    assert f"for a GPU-hour: 4,000 (12,000 completions), planned {plan.accepted_per_gpu_hour:,.0f}" in said


def test_a_report_of_before_and_a_plan_agree_on_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(limbeck("--json").stdout)
    old = json.loads(made_report().model_dump_json(exclude={"accepted"}))
    for row in old["stages"]:
        for name in ("gpu_hours", "prompt_tokens", "completion_tokens"):
            del row[name]
    (tmp_path / "report.json").write_text(json.dumps(old))
    plan = against.load_plan(tmp_path / "plan.json")
    said = against.text(plan, against.load_report(tmp_path / "report.json"))
    assert next(line for line in said.splitlines() if line.startswith("generate teacher")).split()[6] == "-"
    assert "for a GPU-hour: -, planned" in said


def made_report() -> RunReport:
    """A report of a few stages."""

    def row(stage: str, name: str, **values: object) -> StageRow:
        shown = {"num_parts": 1, "wall_seconds": 7200.0, "rows_in": 1, "rows_kept": 1, "rejected": {}}
        return StageRow.model_validate({"stage": stage, "name": name} | shown | values)

    decision = Decision(
        promote=False, outcome="not decided", headline="", reason="", policy=None, checkpoint_uri=None
    )
    return RunReport(
        decision=decision,
        rows=(),
        comparisons=(),
        fidelity=(),
        lengths=(),
        labels=None,
        reward=None,
        ppo={},
        data=(),
        stages=(
            row("prepare", "gold"),
            row("generate", "teacher", gpu_hours=2.0, prompt_tokens=10, completion_tokens=20_000_000),
            row("judge", "judge", gpu_hours=1.0),
            row("evaluate", "sft_odd"),
        ),
        accepted=Accepted(completions=12_000, gpu_hours=3.0, per_gpu_hour=4000.0),
        examples=(),
        provenance=(),
        settings=Config(),
    )
