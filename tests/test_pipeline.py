"""The compiled pipeline from end to end on one machine: real engines, real store, tiny models."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.storage import Store
from tests import tiny
from tests.audit import Access, audited
from tests.security.secrets import found_in_folder, found_in_store, found_in_text

CLI = [sys.executable, "-m", "limbeck.cli"]
STAGES = {
    "preflight",
    "prepare",
    "generate",
    "judge",
    "label",
    "sft",
    "reward",
    "ppo",
    "evaluate",
    "merge",
    "pick",
    "report",
    "shards",
}


def run_file(folder: Path, work_uri: str) -> Path:
    """A run file for own data (two broken rows among them) and two checkpoint folders."""
    random.seed(0)
    letters = "abcdefghijklmnopqrstuvw"
    rows = [
        json.dumps({"prompt": f"sum {' '.join(random.sample(letters, 4))}", "answer": "c"})
        for _ in range(160)
    ]
    # A prompt that fits the file but not the context: it must be set aside, not end the batch.
    rows += ["{not json", json.dumps({"prompt": "sum " + "a " * 200, "answer": "c"})]
    (folder / "prompts.jsonl").write_text("\n".join(rows))
    tiny.checkpoint(folder / "teacher", seed=0, width=64)
    tiny.checkpoint(folder / "student", seed=1)
    settings = {
        "work_uri": work_uri,
        "num_shards": 2,
        "ppo_rewards": ["model", "mixed", "agreement", "judge"],
        "prompts": str(folder / "prompts.jsonl"),
        "teacher": str(folder / "teacher"),
        "student": str(folder / "student"),
        "config": {
            "teacher": {"dtype": "float32"},
            "student": {"dtype": "float32"},
            "task": {"answer_pattern": "([a-w])"},
            "engine": {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True},
            "prepare": {"heldout_fraction": 0.3},
            "generate": {
                "teacher": {"samples_per_prompt": 6, "max_tokens": 8},
                "student": {"samples_per_prompt": 4, "max_tokens": 8},
            },
            "judge": {"template": "judge {prompt} : {completion}"},
            "label": {"min_p_correct": 0.0, "min_vote_share": 0.1, "validation_prompts": 20},
            "sft": {"learning_rate": 3e-3, "num_epochs": 2, "batch_size": 16},
            "reward": {"learning_rate": 3e-3, "min_auc": 0.0, "evaluate_every": 5, "batch_size": 16},
            "ppo": {
                "num_updates": 3,
                "batch_size": 32,
                "max_tokens": 8,
                "evaluate_every": 2,
                "critic_warmup_updates": 1,
            },
            "evaluate": {"max_tokens": 8, "samples_per_prompt": 2},
            "report": {"num_resamples": 200},
        },
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def limbeck(*arguments: str, endpoint: str | None = None) -> "subprocess.Popen[str]":
    """Start the command line in a process group of its own."""
    environment = dict(os.environ) | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})
    return subprocess.Popen(
        [*CLI, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One run, killed between two stages and started again, watched by the auditing proxy."""
    folder = tmp_path_factory.mktemp("run")
    path, out = run_file(folder, "s3://test/pipeline"), folder / "out"
    assert store.endpoint
    with audited(store.endpoint) as (endpoint, accesses):
        first = limbeck("run", str(path), "--out", str(out), endpoint=endpoint)
        assert first.stdout
        early = []
        for line in first.stdout:
            early.append(line)
            if re.match(r"\[ ?\d+/\d+\] label teacher: ", line):
                break
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        second = limbeck("run", str(path), "--out", str(out), endpoint=endpoint)
        output, _ = second.communicate()
        assert second.returncode == 0, f"{output[-3000:]}\n{(out / 'run.log').read_text()[-5000:]}"
        third = limbeck("run", str(path), "--out", str(out), endpoint=endpoint)
        again, _ = third.communicate()
        assert third.returncode == 0, again[-3000:]
        yield {
            "run_file": path,
            "out": out,
            "early": early,
            "output": output,
            "again": again,
            "accesses": accesses,
        }


def test_a_person_can_follow_it(finished: dict[str, Any]) -> None:
    lines = finished["output"].splitlines()
    heads = [re.match(r"\[ *(\d+)/(\d+)\] ", line) for line in lines]
    totals = {match[2] for match in heads if match}
    assert totals == {"42"}
    assert {match[1] for match in heads if match} == {str(n + 1) for n in range(42)}
    assert not [line for line in lines if "KFP Executor" in line or "INFO" in line]
    assert str(finished["out"] / "run.log") in finished["output"]
    assert "KFP Executor" in (finished["out"] / "run.log").read_text()


def test_after_a_kill_finished_stages_are_not_done_again(finished: dict[str, Any]) -> None:
    done = [line for line in finished["output"].splitlines() if "already complete" in line]
    for stage in ("prepare", "generate teacher", "judge", "label teacher"):
        assert any(stage in line for line in done), (stage, done)
    # A merge of one shard finds the whole that this shard has just made.
    assert not any("ppo" in line for line in done if "merge" not in line)


def test_a_second_run_does_nothing_but_say_so(finished: dict[str, Any]) -> None:
    lines = finished["again"].splitlines()
    assert "limbeck: all results are there already, so nothing runs" in lines
    assert not [line for line in lines if re.match(r"\[ *\d+/\d+\] ", line)]
    assert lines[-2:] == finished["output"].splitlines()[-2:], "the verdict, and where the report is"


def test_the_report_has_what_it_promises(finished: dict[str, Any]) -> None:
    out = finished["out"]
    report = json.loads((out / "report.json").read_text())
    planned = {(task["stage"], task["name"]): task for task in report["plan"]["stages"]}
    made = {(stage["stage"], stage["name"]) for stage in report["stages"]}
    # Of the three outputs of `prepare`, which bear the time of the whole, one is planned.
    assert made - planned.keys() == {("prepare", "heldout"), ("prepare", "gold")}
    assert planned["generate", "teacher"]["completion_tokens"] > 0
    assert "Plan and what came of it" in (out / "report.html").read_text()
    names = {row["name"] for row in report["rows"]}
    assert names == {
        "teacher",
        "student",
        "sft_all",
        "sft_selected",
        "ppo_model",
        "ppo_mixed",
        "ppo_agreement",
        "ppo_judge",
        "policy",
    }
    assert {row["decoding"] for row in report["rows"]} == {"greedy", "sampled", "majority"}
    assert {(row["a"], row["b"]) for row in report["comparisons"]} >= {
        ("policy", "sft_selected"),
        ("policy", "teacher"),
    }
    assert {"coverage", "precision", "judge"} <= report["labels"].keys()
    assert set(report["reward"]["by_source"]) == {"teacher", "student"}
    assert {run["name"] for run in report["ppo"].values()} == {f"ppo_{kind}" for kind in report["ppo"]}
    assert set(report["ppo"]) == {"model", "mixed", "agreement", "judge"}
    assert all(run["steps"] for run in report["ppo"].values())
    assert {row["stage"] for row in report["stages"]} == STAGES - {
        "preflight",
        "shards",
        "merge",
        "pick",
        "report",
    }
    assert isinstance(report["decision"]["promote"], bool)
    assert "<html" in (out / "report.html").read_text()
    assert "policy" in (out / "report.md").read_text()


def test_broken_rows_and_a_prompt_too_long_are_set_aside_and_counted(finished: dict[str, Any]) -> None:
    report = (finished["out"] / "report.json").read_text()
    assert "not JSON" in report
    assert "prompt too long" in report


def test_gold_is_opened_by_evaluate_and_report_alone(finished: dict[str, Any]) -> None:
    """Every request of the run, as the store saw it."""
    accesses: list[Access] = finished["accesses"]
    assert {access.task for access in accesses} >= STAGES - {"pick", "preflight", "shards"}
    reads = {
        access.task for access in accesses if access.method == "GET" and re.search("/gold/part-", access.path)
    }
    assert reads == {"evaluate", "report"}
    # The data set itself holds the answers too; `prepare` opens it, and `preflight` looks at its first rows.
    raw = {
        access.task for access in accesses if access.method == "GET" and access.path.endswith("prompts.jsonl")
    }
    assert raw == {"preflight", "prepare"}


def test_no_credential_is_left_anywhere(finished: dict[str, Any], store: Store) -> None:
    """In what the runs printed, in logs and artifacts, in every object of the store, packed or not."""
    secrets = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    printed = "".join([*finished["early"], finished["output"], finished["again"]])
    assert not found_in_text(secrets, printed, "the screen")
    assert not found_in_folder(secrets, finished["out"].parent)
    assert not found_in_store(secrets, store, "s3://test/pipeline")


def test_data_and_checkpoints_pass_through_the_store_alone(finished: dict[str, Any]) -> None:
    """What lies in Kubeflow's own folder are manifests: small files."""
    files = [path for path in (finished["out"] / "kfp").rglob("*") if path.is_file()]
    assert files
    pages = {"page", "summary", "label_page"}
    assert max(path.stat().st_size for path in files if path.name not in pages) < 64_000


def artifact(out: Path, place: str) -> dict[str, Any]:
    """The manifest that a task of the run gave on."""
    (path,) = (out / "kfp").glob(f"*/{place}")
    made: dict[str, Any] = json.loads(path.read_text())
    return made


def run_another(
    finished: dict[str, Any], pipeline: str, out: Path, **parameters: Any
) -> tuple[str, dict[str, Any]]:
    """Run another pipeline over the same work; gives its output and its report."""
    given = yaml.safe_load(finished["run_file"].read_text())
    path = out / "run.yaml"
    kept = {name: given[name] for name in ("work_uri", "config")}
    path.write_text(yaml.safe_dump(kept | {key: given[key] for key in parameters.pop("same")} | parameters))
    process = limbeck("run", str(path), "--out", str(out), "--pipeline", pipeline)
    output, _ = process.communicate()
    assert process.returncode == 0, f"{output[-3000:]}\n{(out / 'run.log').read_text()[-5000:]}"
    return output, json.loads((out / "report.json").read_text())


def fresh_stages(output: str) -> set[str]:
    """The stages that did some work, by the first word of their name."""
    ended = [line for line in output.splitlines() if re.match(r"\[ *\d+/\d+\] .*: .* s", line)]
    return {line.split("] ")[1].split(" ")[0].rstrip(":") for line in ended if "already complete" not in line}


def test_data_distillation_alone_ends_with_the_warmed_up_student(
    finished: dict[str, Any], tmp_path: Path
) -> None:
    output, report = run_another(
        finished,
        "distill_data",
        tmp_path,
        same=("prompts", "teacher", "student"),
        num_shards=3,  # all is found again, whatever the number was
        num_evaluate_shards=2,
    )
    assert fresh_stages(output) == {"preflight", "shards", "pick", "report", "cleanup"}
    assert {row["name"] for row in report["rows"]} == {
        "teacher",
        "student",
        "sft_all",
        "sft_selected",
    }
    assert report["decision"]["policy"] == "sft_selected"
    assert not report["ppo"]


def test_rewards_start_from_a_checkpoint_and_labelled_data(finished: dict[str, Any], tmp_path: Path) -> None:
    prompts = artifact(finished["out"], "prepare/prompts")["uri"]
    labels = artifact(finished["out"], "label/labels")["uri"]
    student = artifact(finished["out"], "pick/picked")["uri"]
    output, report = run_another(
        finished,
        "distill_rewards",
        tmp_path,
        same=("num_shards", "ppo_rewards", "teacher"),
        prepared_uri=prompts.removesuffix("/prompts"),
        label_uri=labels.removesuffix("/labels"),
        checkpoint=student,
    )
    assert fresh_stages(output) == {"preflight", "shards", "load", "pick", "report", "cleanup"}
    assert {row["name"] for row in report["rows"]} == {
        "sft_selected",
        "ppo_model",
        "ppo_mixed",
        "ppo_agreement",
        "ppo_judge",
        "policy",
    }


def test_any_models_can_be_compared_on_heldout_prompts(finished: dict[str, Any], tmp_path: Path) -> None:
    given = yaml.safe_load(finished["run_file"].read_text())
    output, report = run_another(
        finished,
        "evaluate",
        tmp_path,
        same=(),
        heldout=given["prompts"],
        models=[given["teacher"], given["student"]],
        num_evaluate_shards=2,
    )
    assert fresh_stages(output) == {"preflight", "prepare", "shards", "evaluate", "report"}
    merged = re.findall(r"merge of evaluate\((\w+)\): \d+ rows", (tmp_path / "run.log").read_text())
    assert merged == [given[role].rpartition("/")[2] for role in ("teacher", "student")]
    names = {row["name"] for row in report["rows"]}
    assert len(names) == 2
    assert {(row["a"], row["b"]) for row in report["comparisons"]} & {
        tuple(sorted(names)),
        tuple(sorted(names))[::-1],
    }
