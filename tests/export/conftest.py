"""A finished run with a tiny student in the store: two models, a warmed-up student, a policy, a report."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from limbeck.checkpoints import identity
from limbeck.config import Dtype
from limbeck.manifest import Manifest, commit
from limbeck.report.model import RunReport
from limbeck.report.training import provenance
from limbeck.settings import of_engine
from limbeck.storage import Store
from tests import tiny
from tests.report.conftest import made_report

README = "---\nlicense: apache-2.0\n---\n# A model\n"


@dataclass(frozen=True)
class MadeRun:
    """What a run has left in the store."""

    store: Store
    work_uri: str
    report: Manifest
    policy: Manifest
    sft: Manifest
    folder: Path
    """The policy's checkpoint on this machine."""


def put(store: Store, stage: str, kind: str, name: str, uri: str, folder: Path, **values: object) -> Manifest:
    """Upload a folder as what a stage has made."""
    made: dict[str, object] = {"inputs": {}, "config_hash": "c0ffee", "code_version": "0.1.0+1234abcd"}
    objects = store.write_folder(folder, uri)
    made |= {"stage": stage, "kind": kind, "name": name, "uri": uri, "objects": objects, **values}
    return commit(store, Manifest.model_validate(made))


def put_report(store: Store, uri: str, report: RunReport) -> Manifest:
    """Upload a report as the stage does, but for its pages."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "report.json").write_text(report.model_dump_json())
        return put(store, "report", "report", "report", uri, Path(folder))


@pytest.fixture
def make_run(store: Store, work_uri: str, tmp_path: Path) -> Callable[..., MadeRun]:
    """Make a run whose policy is this folder; what else can differ between runs can be chosen."""

    def make(
        folder: Path | None = None,
        *,
        promote: bool = True,
        licence: str = "Apache License\n",
        dtype: Dtype = "float32",
        thinking: bool | None = None,
    ) -> MadeRun:
        source = tmp_path / "student"
        tiny.checkpoint(source, seed=1)
        (source / "README.md").write_text(README)
        (source / "LICENSE").write_text(licence)
        for role in ("student", "teacher"):
            store.write_folder(source, f"{work_uri}/models/{role}", role)
        models = {
            role: next(iter(store.sizes(f"{work_uri}/models/{role}"))).rpartition("/")[0]
            for role in ("student", "teacher")
        }
        student, teacher = (identity(store, models[role]) for role in ("student", "teacher"))
        answered = put(
            store, "generate", "completions", "teacher", f"{work_uri}/generate/a", source,
            inputs={"model": of_engine(teacher, dtype, thinking)},
        )  # fmt: skip
        sft = put(
            store,
            "sft",
            "checkpoint",
            "sft_selected",
            f"{work_uri}/sft/b",
            source,
            inputs={"student": student},
        )
        folder = folder or tiny.checkpoint(tmp_path / "policy", seed=2)
        (folder / "history.jsonl").write_text('{"update": 1}\n')
        policy = put(
            store, "ppo", "checkpoint", "ppo_mixed", f"{work_uri}/ppo/c", folder,
            inputs={"checkpoint": sft.content_hash},
        )  # fmt: skip
        made = made_report(num_prompts=60)
        decision = made.decision.model_copy(
            update={"promote": promote, "outcome": "promote" if promote else "do not promote"}
        )
        report = made.model_copy(
            update={"decision": decision, "provenance": provenance([answered, sft, policy])}
        )
        put_report(store, f"{work_uri}/report/d", report)
        return replace(
            MadeRun(store, work_uri, put_report(store, f"{work_uri}/report/d", report), policy, sft, folder)
        )

    return make


@pytest.fixture
def run(make_run: Callable[..., MadeRun]) -> MadeRun:
    """A run that promoted its policy."""
    return make_run()
