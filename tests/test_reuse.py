"""`limbeck status --against`: what a run would reuse, on all stages with scripted engines and trainers."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from limbeck.cli.work import init, status
from limbeck.compiled import find, load
from limbeck.inputs import stage_inputs
from limbeck.reuse import Expected, Outlook, finished_report
from limbeck.run_file import load_run_file
from limbeck.status import inspect
from limbeck.storage import Store
from tests.scripted_run import run_all

app = typer.Typer()
app.command("status")(status)
app.command("init")(init)

SETTINGS: dict[str, Any] = {
    "task": {"answer_pattern": r"= (\w+)"},
    "prepare": {"heldout_fraction": 0.3},
    "generate": {"teacher": {"samples_per_prompt": 3}, "student": {"samples_per_prompt": 4}},
    "label": {"validation_prompts": 8, "min_vote_share": 0.0, "rule": "majority"},
    "reward": {"min_auc": 0.0},
    "report": {"num_resamples": 100},
}
SIZES = {
    "model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "vocab_size": 64,
}  # fmt: skip
TASKS = [
    "prepare", "generate teacher", "judge", "label teacher",
    "sft selected", "evaluate sft_selected", "sft all", "evaluate sft_all", "evaluate teacher",
    "evaluate student", "generate student", "label student", "reward",
    "ppo model", "evaluate ppo_model", "ppo mixed", "evaluate ppo_mixed", "report",
]  # fmt: skip


ROWS = ["sft_selected", "sft_all", "teacher", "student", "ppo_model"]


@pytest.fixture
def run_path(tmp_path: Path, work_uri: str) -> Path:
    """A run file of local data and models."""
    rows = [json.dumps({"prompt": f"sum {n}", "answer": n}) for n in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    for name in ("teacher", "student"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(SIZES | {"of": name}))
        (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
        for file in ("tokenizer.json", "model.safetensors"):
            (folder / file).write_text("{}")
    path = tmp_path / "run.yaml"
    write(path, work_uri, SETTINGS)
    return path


def write(path: Path, work_uri: str, settings: dict[str, Any], **more: Any) -> None:
    folder = path.parent
    given = {
        "work_uri": work_uri, "prompts": str(folder / "data.jsonl"), "teacher": str(folder / "teacher"),
        "student": str(folder / "student"), "num_shards": 2, "ppo_rewards": ["model", "mixed"],
        "config": settings,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(given | more))


def expected(store: Store, path: Path, pipeline: str = "distill") -> dict[str, Expected]:
    given = load_run_file(path)
    states = inspect(store, given.work_uri).stages
    return {task.task: task for task in Outlook(store, given, load(find(pipeline)), states).follow()}


def verdicts(tasks: dict[str, Expected]) -> dict[str, str]:
    return {name: task.verdict for name, task in tasks.items()}


def test_the_same_run_again_finds_everything_finished(store: Store, run_path: Path) -> None:
    run_all(store, stage_inputs(load_run_file(run_path), store))
    tasks = expected(store, run_path)
    assert list(tasks) == TASKS
    assert {name: task for name, task in tasks.items() if task.verdict != "reused"} == {}
    states = {state.address: state for state in inspect(store, load_run_file(run_path).work_uri).stages}
    assert states[tasks["sft all"].why].manifest is not None
    leases = {uri.split("/")[-3] for uri in store.listing(load_run_file(run_path).work_uri) if "lease" in uri}
    assert leases >= {"prepare", "label", "report"}

    # One change each.
    config = SETTINGS | {"judge": {"yes": "true"}}
    write(run_path, load_run_file(run_path).work_uri, config)
    tasks = expected(store, run_path)
    assert verdicts(tasks)["generate teacher"] == "reused"
    assert (tasks["judge"].verdict, tasks["judge"].why[-10:]) == ("runs", ": settings")
    assert tasks["label teacher"].verdict == "not known"
    assert "its judgements must be made first; all else is as in label/" in tasks["label teacher"].why
    assert tasks["sft all"].why.startswith("its labelled must be made first; all else is as in sft/")
    assert tasks["evaluate teacher"].verdict == "reused"
    assert tasks["report"].verdict == "runs"
    assert tasks["report"].why.endswith(": settings")

    write(run_path, load_run_file(run_path).work_uri, SETTINGS | {"sft": {"learning_rate": 0.5}})
    tasks = expected(store, run_path)
    assert tasks["label teacher"].verdict == "reused"
    assert tasks["sft all"].why.endswith(": settings")
    assert tasks["ppo model"].verdict == "not known"

    checkpointed = {"sft": {"deepspeed": {"checkpoint_seconds": 5}}, "reward": {"min_auc": 0.1}}
    write(run_path, load_run_file(run_path).work_uri, SETTINGS | checkpointed)
    assert {*verdicts(expected(store, run_path)).values(), "runs"} == {"reused", "runs"}
    assert verdicts(expected(store, run_path))["reward"] == "reused"

    write(run_path, load_run_file(run_path).work_uri, SETTINGS)
    weights = run_path.parent / "student" / "model.safetensors"
    weights.write_text("[]")
    tasks = expected(store, run_path)
    assert tasks["label teacher"].verdict == "reused"
    assert tasks["sft selected"].why.endswith(": inputs (student)")
    assert tasks["evaluate student"].why.endswith(": inputs (model)")
    weights.write_text("{}")

    (run_path.parent / "data.jsonl").write_text('{"prompt": "another"}\n')
    tasks = expected(store, run_path)
    assert tasks["prepare"].why.endswith(": inputs (prompts)")
    assert tasks["generate teacher"].why.startswith("its prompts must be made first; all else is as in")
    assert "reused" not in verdicts(tasks).values()


def test_a_run_with_nothing_left_to_do_has_its_report_and_any_other_has_none(
    store: Store, run_path: Path
) -> None:
    work_uri, shipped = load_run_file(run_path).work_uri, find("distill")
    given = stage_inputs(load_run_file(run_path), store)
    assert finished_report(store, given, shipped) is None
    made = run_all(store, given)
    assert made
    assert finished_report(store, given, shipped) == made

    # Of these rewards too all is finished but a report that has no more than them.
    fewer = given.model_copy(update={"ppo_rewards": ("model",)})
    assert finished_report(store, fewer, shipped) is None
    alone = run_all(store, fewer)
    assert alone not in (None, made)
    assert finished_report(store, fewer, shipped) == alone
    assert finished_report(store, given, shipped) == made

    # The plan on its page would be another one.
    assert finished_report(store, given.model_copy(update={"gpus": 2}), shipped) is None

    # What a pipeline of others does, or the ablation besides, is not known.
    own = run_path.parent / "distill.yaml"
    own.write_text(shipped.read_text())
    assert finished_report(store, given, own) is None
    assert finished_report(store, given, find("ablation")) is None

    (part, *_) = (uri for uri in store.sizes(f"{work_uri}/judge") if "/part-" in uri)
    store.delete([part])
    assert finished_report(store, given, shipped) is None


def test_a_report_of_other_rows_is_not_taken_for_this_runs_where_no_plan_tells_them_apart(
    store: Store, run_path: Path
) -> None:
    given = stage_inputs(load_run_file(run_path), store)
    made = run_all(store, given, planned=False)
    assert finished_report(store, given, find("distill")) == made
    fewer = given.model_copy(update={"ppo_rewards": ("model",)})
    assert finished_report(store, fewer, find("distill")) is None


def test_a_black_box_is_known_by_its_server_and_its_name(store: Store, run_path: Path) -> None:
    """Its name is no folder that is uploaded, and its number type decides nothing."""
    work_uri = load_run_file(run_path).work_uri
    server = {"base_url": "https://host.example/v1"}
    black_box = SETTINGS | {"teacher": {"sampler": "openai", "dtype": "bfloat16"}, "openai": server}
    write(run_path, work_uri, black_box, teacher="no-such-folder")
    run_all(store, stage_inputs(load_run_file(run_path), store))
    assert set(verdicts(expected(store, run_path)).values()) == {"reused"}

    as_fast = black_box | {"openai": server | {"max_concurrent": 1}, "teacher": {"sampler": "openai"}}
    write(run_path, work_uri, as_fast, teacher="no-such-folder")
    assert verdicts(expected(store, run_path))["judge"] == "reused"
    for changed in (black_box | {"openai": server | {"revision": "2"}}, black_box):
        write(run_path, work_uri, changed, teacher="another" if changed is black_box else "no-such-folder")
        tasks = expected(store, run_path)
        assert tasks["generate teacher"].why.endswith(": inputs (model)")
        assert tasks["evaluate teacher"].why.endswith(": inputs (model)")
        assert tasks["evaluate student"].verdict == "reused"


def test_of_open_questions_the_judge_is_asked_about_all_answers(store: Store, run_path: Path) -> None:
    work_uri = load_run_file(run_path).work_uri
    of_judge = {"rule": "judge", "validation_prompts": 8}
    opened = SETTINGS | {"task": {"kind": "open"}, "label": of_judge}
    write(run_path, work_uri, opened, ppo_rewards=["model"])
    run_all(store, stage_inputs(load_run_file(run_path), store), pipeline="distill_open")
    tasks = expected(store, run_path, "distill_open")
    judged = [f"{name}, judge" for name in tasks if f"{name}, judge" in tasks]
    assert judged == [f"evaluate {name}, judge" for name in ROWS]
    assert {"judge student", "ppo model"} <= set(tasks)
    assert "ppo mixed" not in tasks
    assert {name: task for name, task in tasks.items() if task.verdict != "reused"} == {}

    stricter = opened | {"label": of_judge | {"min_p_correct": 0.6}}
    write(run_path, work_uri, stricter, ppo_rewards=["model"])
    tasks = expected(store, run_path, "distill_open")
    assert tasks["evaluate teacher"].verdict == tasks["judge"].verdict == "reused"
    assert "its completions must be made first" in tasks["judge student"].why
    assert tasks["evaluate teacher, judge"].why.endswith(": settings")


def test_other_code_is_named(store: Store, run_path: Path) -> None:
    given = stage_inputs(load_run_file(run_path), store)
    run_all(store, given, until="prepare")
    for state in inspect(store, given.work_uri).stages:
        assert state.manifest
        old = state.manifest.model_copy(update={"code_version": "0.0.9+abc"})
        moved = json.loads(old.to_json().replace(state.key, "0123456789abcdef"))
        for item in old.objects:
            copy = item.uri.replace(state.key, "0123456789abcdef")
            store.write_bytes(copy, store.read_bytes(item.uri))
        store.write_bytes(f"{moved['uri']}/manifest.json", json.dumps(moved).encode())
        store.delete([*store.sizes(state.uri)])
    (_, verdict, why) = expected(store, run_path)["prepare"]
    assert verdict == "runs"
    assert why.startswith("changed since prepare/0123456789abcdef/")
    assert ": code (0.0.9+abc, now 0." in why


def test_a_folder_of_data_is_known_before_it_is_uploaded(store: Store, run_path: Path, work_uri: str) -> None:
    folder = run_path.parent / "rows"
    for name in ("b-c.jsonl", "b/d.jsonl"):  # in another order than their paths have
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("\n".join(json.dumps({"prompt": f"{name} {n}"}) for n in range(20)))
    write(run_path, work_uri, SETTINGS, prompts=str(folder))
    run_all(store, stage_inputs(load_run_file(run_path), store), until="prepare")
    assert expected(store, run_path)["prepare"].verdict == "reused"
    (folder / "b-c.jsonl").write_text('{"prompt": "another"}\n')
    assert expected(store, run_path)["prepare"].why.endswith(": inputs (prompts)")


def test_nothing_is_promised_of_what_was_never_made(store: Store, run_path: Path) -> None:
    store.make_bucket(load_run_file(run_path).work_uri)
    tasks = expected(store, run_path)
    assert set(verdicts(tasks).values()) == {"runs"}
    assert tasks["prepare"].why == "nothing of the kind is finished"
    assert tasks["sft all"].why == "its labelled must be made first; nothing of the kind is finished"


def test_unfinished_and_broken_outputs_are_told_apart(store: Store, run_path: Path) -> None:
    given = stage_inputs(load_run_file(run_path), store)
    run_all(store, given, until="reward")
    tasks = expected(store, run_path)
    assert tasks["ppo model"].verdict == "runs"
    first, second = (f"{given.work_uri}/{tasks[name].why}" for name in ("generate student", "judge"))
    store.delete([f"{first}/manifest.json"])
    tasks = expected(store, run_path)
    address = first.removeprefix(f"{given.work_uri}/")
    assert tasks["generate student"][1:] == ("goes on", f"{address}, 1 finished parts")
    store.delete([uri for uri in store.sizes(second) if "/part-" in uri])
    tasks = expected(store, run_path)
    assert tasks["judge"].verdict == "runs"
    assert " is broken: part-00000-" in tasks["judge"].why


def test_a_policy_that_the_teacher_has_judged_is_found_again_with_its_calibration(
    store: Store, run_path: Path, work_uri: str
) -> None:
    calibrated = SETTINGS["label"] | {
        "rule": "judged_majority",
        "calibrate": "majority",
        "min_p_correct": 0.0,
    }
    write(run_path, work_uri, SETTINGS | {"label": calibrated}, ppo_rewards=["model", "judge"])
    run_all(store, stage_inputs(load_run_file(run_path), store))
    tasks = expected(store, run_path)
    assert {name: task for name, task in tasks.items() if task.verdict != "reused"} == {}
    assert {"ppo judge", "evaluate ppo_judge"} <= set(tasks)


@pytest.mark.parametrize(
    ("pipeline", "more", "names"),
    [
        ("distill_data", {}, {"prepare", "sft all", "evaluate teacher", "report"}),
        ("distill_minimal", {}, {"prepare", "sft all", "ppo mixed", "report"}),
        ("evaluate", {"models": 2}, {"prepare", "evaluate teacher", "evaluate student", "report"}),
        ("distill_open", {}, {"prepare", "judge", "ppo model", "report"}),
        ("distill_rewards", {"checkpoint": 1}, {"generate student", "reward", "ppo model", "report"}),
    ],
)
def test_every_pipeline_has_its_own_tasks(
    store: Store, run_path: Path, work_uri: str, pipeline: str, more: dict[str, Any], names: set[str]
) -> None:
    folder = run_path.parent
    given: dict[str, Any] = {"ppo_rewards": ["model", "mixed", "agreement"]}
    if "models" in more:
        given["models"] = [str(folder / "teacher"), str(folder / "student")]
    given |= {"checkpoint": str(folder / "student")} if "checkpoint" in more else {}
    write(run_path, work_uri, SETTINGS, **given)
    tasks = expected(store, run_path, pipeline)
    assert names <= set(tasks)
    assert ("ppo agreement" in tasks) == (pipeline == "distill_rewards"), (
        "distill_minimal has its own rewards"
    )
    stages = {name.split()[0] for name in tasks}
    assert stages == set(load(find(pipeline)).stages)


def test_the_command_shows_a_line_for_each_task(store: Store, run_path: Path) -> None:
    given = stage_inputs(load_run_file(run_path), store)
    run_all(store, given, until="prepare")
    shown = CliRunner().invoke(app, ["status", given.work_uri, "--against", str(run_path)])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[0] == f"{run_path}: 1 of 18 tasks are finished already"
    assert lines[2].split()[:2] == ["reused", "prepare"]
    assert lines[3].split()[:2] == ["runs", "generate"]
    machine = CliRunner().invoke(app, ["status", given.work_uri, "--against", str(run_path), "--json"])
    assert [task["task"] for task in json.loads(machine.output)] == TASKS
    missing = CliRunner().invoke(app, ["status", given.work_uri, "--against", "missing.yaml"])
    assert missing.exit_code == 2
