"""`limbeck export` and the component `export`, each in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limbeck.export.registry import TOKEN
from limbeck.manifest import find, parse
from tests import registry_stub, stage_process
from tests.export.conftest import MadeRun

MakeRun = Callable[..., MadeRun]


def limbeck(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "limbeck.cli", "export", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_report_or_its_work_uri_is_exported_to_a_folder_or_the_store(run: MadeRun, tmp_path: Path) -> None:
    done = limbeck(run.report.uri, "--to", str(tmp_path / "model"), "--base-model", "org/small")
    assert done.returncode == 0, done.stderr
    assert "base_model: org/small" in (tmp_path / "model" / "README.md").read_text()
    to = f"{run.work_uri}/models/mine"
    done = limbeck(f"{run.work_uri}/", "--to", to)
    assert done.returncode == 0, done.stderr
    made = find(run.store, to)
    assert made is not None
    assert made.name == "ppo_mixed"


def test_what_was_not_promoted_ends_with_6_unless_it_is_asked_for(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(promote=False)
    done = limbeck(run.report.uri, "--to", str(tmp_path / "model"))
    assert (done.returncode, (tmp_path / "model").exists()) == (6, False)
    assert "limbeck: error 6: ppo_mixed was not promoted" in done.stderr
    done = limbeck(run.report.uri, "--to", str(tmp_path / "model"), "--even-if-not-promoted")
    assert done.returncode == 0, done.stderr
    assert "**Not promoted.**" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "exit_code", "says"),
    [
        (("--register", "sums", "--registry", "https://registry.example"), 2, "cannot be registered"),
        (("--base-model", "../x"), 2, "not the name of a model or data set"),
        (("--checkpoint", "sft_all"), 3, "no such checkpoint"),
        (("--student", "s3://test/nothing"), 3, "not the student of this run"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(
    run: MadeRun, tmp_path: Path, options: tuple[str, ...], exit_code: int, says: str
) -> None:
    done = limbeck(run.report.uri, "--to", str(tmp_path / "out" / "model"), *options)
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    assert says in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def component(run: MadeRun, folder: Path, url: str, **changed: object) -> dict[str, Any]:
    """What the component is given."""
    (folder / "report").write_text(run.report.to_json())
    usual: dict[str, Any] = {
        "run_report": {"path": str(folder / "report")},
        "work_uri": run.work_uri,
        "exported": {"path": str(folder / "exported")},
        "name": "",
        "student": "",
        "teacher": "",
        "base_model": "",
        "datasets": ["org/questions"],
        "even_if_not_promoted": False,
        "register": "sums",
        "registry": url,
    }
    return usual | changed


def test_the_component_exports_registers_and_gives_a_checkpoint_on(
    run: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry_stub.serve() as registry:
        registry.token = "letmein"
        monkeypatch.setenv(TOKEN, "letmein")
        for _ in range(2):  # a retried task finds what it has done
            stage_process.finish("export", tmp_path, **component(run, tmp_path, registry.url))
    made = parse((tmp_path / "exported").read_text(), "exported")
    assert made.uri.startswith(f"{run.work_uri}/export/")
    assert (made.kind, find(run.store, made.uri)) == ("checkpoint", made)
    assert [row["name"] for row in registry.versions] == [made.content_hash]
    assert len(registry.artifacts) == 1


@pytest.mark.parametrize("registers", [False, True])
def test_the_component_lets_nothing_out_that_was_not_promoted(
    make_run: MakeRun, tmp_path: Path, *, registers: bool
) -> None:
    run = make_run(promote=False)
    with registry_stub.serve() as registry:
        names = {} if registers else {"register": "", "registry": ""}
        task = stage_process.start("export", tmp_path, **component(run, tmp_path, registry.url, **names))
        said, _ = task.communicate()
    assert task.returncode == 6, said
    assert "ppo_mixed was not promoted" in said
    assert not (tmp_path / "exported").exists()
    assert run.store.sizes(f"{run.work_uri}/export") == {}
    assert registry.tokens == []  # it was asked nothing
