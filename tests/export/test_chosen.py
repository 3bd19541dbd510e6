"""Which checkpoint of a run goes out, and the gate before it."""

import json
from collections.abc import Callable

import pytest

from limbeck.errors import DataError, GateError, StorageError
from limbeck.export import choose
from limbeck.export.chosen import read_report
from limbeck.manifest import MANIFEST
from limbeck.report.training import provenance
from limbeck.storage import Store
from tests.export.conftest import MadeRun, put, put_report

MakeRun = Callable[..., MadeRun]


def test_the_picked_policy_is_chosen_and_is_the_row_called_policy(run: MadeRun) -> None:
    chosen = choose(run.store, run.report)
    assert (chosen.checkpoint, chosen.promoted, chosen.row) == (run.policy, True, "policy")
    chosen.check(even_if_not_promoted=False, registering=True)


@pytest.mark.parametrize("registering", [False, True])
def test_what_was_not_promoted_is_stopped_with_the_reason(make_run: MakeRun, *, registering: bool) -> None:
    run = make_run(promote=False)
    chosen = choose(run.store, run.report)
    with pytest.raises(
        GateError, match=r"ppo_mixed was not promoted.*do not promote: On 60 held-out"
    ) as error:
        chosen.check(even_if_not_promoted=False, registering=registering)
    assert error.value.exit_code == 6


def test_it_can_be_exported_all_the_same_but_never_registered(make_run: MakeRun) -> None:
    run = make_run(promote=False)
    chosen = choose(run.store, run.report)
    chosen.check(even_if_not_promoted=True, registering=False)
    with pytest.raises(GateError, match=r"so it is not registered"):
        chosen.check(even_if_not_promoted=True, registering=True)


def test_another_checkpoint_of_a_promoted_run_was_not_promoted(run: MadeRun) -> None:
    chosen = choose(run.store, run.report, "sft_selected")
    assert (chosen.checkpoint, chosen.promoted, chosen.row) == (run.sft, False, "sft_selected")
    with pytest.raises(GateError):
        chosen.check(even_if_not_promoted=False, registering=False)


def test_a_checkpoint_without_a_report_was_not_promoted(run: MadeRun) -> None:
    chosen = choose(run.store, run.policy)
    assert (chosen.report, chosen.promoted, chosen.row) == (None, False, "ppo_mixed")
    with pytest.raises(GateError, match=r"got a checkpoint without a report"):
        chosen.check(even_if_not_promoted=False, registering=False)


def test_what_is_not_there_is_refused_with_what_is(run: MadeRun) -> None:
    with pytest.raises(
        DataError, match=r"no such checkpoint .*expected sft_selected or ppo_mixed, got teacher"
    ):
        choose(run.store, run.report, "teacher")
    with pytest.raises(DataError, match=r"nothing to export .*checkpoint sft_all, got checkpoint ppo_mixed"):
        choose(run.store, run.policy, "sft_all")


def test_a_checkpoint_that_has_changed_since_the_report_is_refused(run: MadeRun) -> None:
    where = f"{run.policy.uri}/{MANIFEST}"
    other = run.policy.model_copy(update={"objects": run.policy.objects[1:]})
    run.store.write_bytes(where, other.to_json().encode())
    with pytest.raises(DataError, match=r"ppo_mixed is not what the report was made from"):
        choose(run.store, run.report)
    run.store.delete([where])
    with pytest.raises(DataError, match=r"got no manifest\.json"):
        choose(run.store, run.report)


def test_a_forged_report_does_not_promote(make_run: MakeRun) -> None:
    """Its manifest knows the report by its sha256."""
    run = make_run(promote=False)
    (item,) = run.report.objects
    report = json.loads(run.store.read_bytes(item.uri))
    report["decision"]["promote"] = True
    run.store.write_bytes(item.uri, json.dumps(report).encode())
    with pytest.raises(StorageError, match=r"report\.json"):
        choose(run.store, run.report)


def test_a_report_that_nobody_vouches_for_does_not_promote(run: MadeRun) -> None:
    (item,) = run.report.objects
    bare = run.report.model_copy(update={"objects": (item.model_copy(update={"sha256": ""}),)})
    with pytest.raises(DataError, match=r"without its figures"):
        choose(run.store, bare)


def test_a_student_that_was_brought_in_is_a_checkpoint_of_the_run(run: MadeRun) -> None:
    made = put(run.store, "load", "checkpoint", "sft_mine", f"{run.work_uri}/load/e", run.folder)
    report = read_report(run.store, run.report).model_copy(update={"provenance": provenance([made])})
    brought = put_report(run.store, f"{run.work_uri}/report/e", report)
    assert choose(run.store, brought, "sft_mine").checkpoint == made


def test_a_report_of_another_version_is_refused(store: Store, run: MadeRun) -> None:
    (item,) = run.report.objects
    report = json.loads(store.read_bytes(item.uri))
    del report["lengths"]
    data = json.dumps(report).encode()
    store.write_bytes(item.uri, data)
    known = store.stored(item.uri)
    assert known is not None
    manifest = run.report.model_copy(update={"objects": (known,)})
    with pytest.raises(DataError, match=r"does not read .*Field required at lengths"):
        read_report(store, manifest)
