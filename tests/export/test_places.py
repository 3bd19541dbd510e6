"""An export in the object store: its manifest comes last, and other stages take it for a checkpoint."""

import pytest

from limbeck import lease
from limbeck.checkpoints import base_uri, fetch
from limbeck.errors import ConfigError, LeaseError, StorageError
from limbeck.export import Asked, choose, export_to_store
from limbeck.manifest import find, load_manifest
from limbeck.status import inspect
from tests.export.conftest import MadeRun


def test_an_export_in_the_store_is_a_checkpoint(
    run: MadeRun, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = export_to_store(run.store, choose(run.store, run.report), Asked(), f"{run.work_uri}/export/x")
    assert (made.stage, made.kind, made.name) == ("export", "checkpoint", "ppo_mixed")
    assert load_manifest(run.store, made.uri, "checkpoint") == made
    folder = fetch(run.store, made, tmp_path_factory.mktemp("fetched"))
    assert (folder / "README.md").read_text().startswith("---\n")
    weights = "model.safetensors"
    assert (folder / weights).read_bytes() == (run.folder / weights).read_bytes()
    assert all(item.uri.startswith(f"{base_uri(made)}/") and item.sha256 for item in made.objects)


def test_it_is_made_once(run: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    chosen, uri = choose(run.store, run.report), f"{run.work_uri}/export/x"
    made = export_to_store(run.store, chosen, Asked(), uri)
    capsys.readouterr()
    assert export_to_store(run.store, chosen, Asked(), uri) == made
    assert "already" in capsys.readouterr().out


def test_among_the_outputs_of_stages_one_attempt_at_a_time_is_at_work(run: MadeRun) -> None:
    chosen, uri = choose(run.store, run.report), f"{run.work_uri}/export/x"
    with lease.held(run.store, uri, "gc"), pytest.raises(LeaseError):
        export_to_store(run.store, chosen, Asked(), uri, leased=True)
    made = export_to_store(run.store, chosen, Asked(), uri, leased=True)
    assert export_to_store(run.store, chosen, Asked(), uri, leased=True) == made
    assert lease.live(run.store, uri) is None
    shown = [state for state in inspect(run.store, run.work_uri).stages if state.stage == "export"]
    assert [(state.state, state.manifest) for state in shown] == [("complete", made)]


def test_another_export_is_not_overwritten(run: MadeRun) -> None:
    chosen, uri = choose(run.store, run.report), f"{run.work_uri}/export/x"
    made = export_to_store(run.store, chosen, Asked(), uri)
    for other, asked in (
        (choose(run.store, run.report, "sft_selected"), Asked()),
        (choose(run.store, run.policy), Asked()),
        (chosen, Asked(base_model="m")),
    ):
        with pytest.raises(ConfigError, match="another export is there already"):
            export_to_store(run.store, other, asked, uri)
    assert find(run.store, uri) == made


def test_a_tampered_checkpoint_leaves_no_manifest(run: MadeRun) -> None:
    weights = next(item for item in run.policy.objects if item.uri.endswith(".safetensors"))
    run.store.write_bytes(weights.uri, b"\0" * weights.bytes)
    with pytest.raises(StorageError):
        export_to_store(run.store, choose(run.store, run.report), Asked(), f"{run.work_uri}/export/x")
    assert run.store.sizes(f"{run.work_uri}/export") == {}
