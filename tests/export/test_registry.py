"""Registering, with the registry's own client, in a stub of the registry's REST API on loopback.

What only a real registry proves: that it takes these values into its database, and shows them.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from limbeck.errors import ClusterError, ConfigError, GateError
from limbeck.export import Asked, Registry, choose, export_to_store, register
from limbeck.export.registry import TOKEN
from limbeck.manifest import Manifest
from tests import registry_stub
from tests.export.conftest import MadeRun

MakeRun = Callable[..., MadeRun]


@pytest.fixture
def stub() -> Iterator[registry_stub.Registry]:
    with registry_stub.serve() as running:
        yield running


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)


@pytest.fixture
def exported(run: MadeRun) -> Manifest:
    return export_to_store(run.store, choose(run.store, run.report), Asked(), f"{run.work_uri}/export/x")


def test_a_promoted_export_becomes_a_version_with_its_address_and_figures(
    run: MadeRun, exported: Manifest, stub: registry_stub.Registry
) -> None:
    chosen = choose(run.store, run.report)
    register(Registry(stub.url, "sums"), exported, chosen)
    (model,), (version,), (artifact,) = stub.models, stub.versions, stub.artifacts
    assert (model["name"], version["name"]) == ("sums", exported.content_hash)
    assert version["registeredModelId"] == model["id"]
    assert artifact["uri"] == exported.objects[0].uri.rpartition("/")[0]
    assert (artifact["artifactType"], artifact["modelFormatName"]) == ("model-artifact", "safetensors")
    assert chosen.report is not None
    assert version["description"].startswith(chosen.report.decision.headline)
    told = version["customProperties"]
    (row,) = [row for row in chosen.report.rows if (row.name, row.decoding) == ("policy", "sampled")]
    assert told["accuracy_sampled"]["double_value"] == row.accuracy
    assert told["report_uri"]["string_value"] == run.report.uri


def test_the_same_export_is_one_version(
    run: MadeRun, exported: Manifest, stub: registry_stub.Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        register(Registry(stub.url, "sums"), exported, choose(run.store, run.report))
    assert [len(rows) for rows in (stub.models, stub.versions, stub.artifacts)] == [1, 1, 1]
    assert "in the registry already" in capsys.readouterr().out


def test_a_registration_that_was_interrupted_is_completed(
    run: MadeRun, exported: Manifest, stub: registry_stub.Registry
) -> None:
    stub.broken = "/artifacts"
    with pytest.raises(ClusterError, match="the model registry did not take the model"):
        register(Registry(stub.url, "sums"), exported, choose(run.store, run.report))
    assert (len(stub.versions), stub.artifacts) == (1, [])
    stub.broken = ""
    register(Registry(stub.url, "sums"), exported, choose(run.store, run.report))
    assert [len(rows) for rows in (stub.models, stub.versions, stub.artifacts)] == [1, 1, 1]


def test_a_version_with_another_address_is_not_taken_for_this_one(
    run: MadeRun, exported: Manifest, stub: registry_stub.Registry
) -> None:
    register(Registry(stub.url, "sums"), exported, choose(run.store, run.report))
    stub.artifacts[0]["uri"] = "s3://elsewhere/model"
    with pytest.raises(ClusterError, match="there with another address, s3://elsewhere/model"):
        register(Registry(stub.url, "sums"), exported, choose(run.store, run.report))


def test_what_was_not_promoted_never_reaches_the_registry(
    make_run: MakeRun, stub: registry_stub.Registry
) -> None:
    run = make_run(promote=False)
    chosen = choose(run.store, run.report)
    exported = export_to_store(run.store, chosen, Asked(), f"{run.work_uri}/export/x")
    with pytest.raises(GateError, match="so it is not registered"):
        register(Registry(stub.url, "sums"), exported, chosen)
    assert stub.tokens == []  # it was asked nothing


def test_the_token_comes_from_the_environment(
    run: MadeRun, exported: Manifest, stub: registry_stub.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.token = "letmein"
    with pytest.raises(ClusterError, match=TOKEN):
        register(Registry(stub.url, "sums"), exported, choose(run.store, run.report))
    assert set(stub.tokens) == {""}  # nothing was sent that nobody has given
    monkeypatch.setenv(TOKEN, "letmein\n")
    register(Registry(stub.url, "sums"), exported, choose(run.store, run.report))
    assert len(stub.artifacts) == 1


def test_a_token_is_not_sent_in_the_clear(
    run: MadeRun, exported: Manifest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN, "letmein")
    with pytest.raises(ClusterError):
        register(Registry("http://registry.invalid:8080", "sums"), exported, choose(run.store, run.report))
    assert "is no https, so the token" in capsys.readouterr().out


def test_a_registry_that_is_away_is_one_line(run: MadeRun, exported: Manifest) -> None:
    with registry_stub.serve() as closed:
        url = closed.url
    with pytest.raises(ClusterError, match="did not take the model") as error:
        register(Registry(url, "sums"), exported, choose(run.store, run.report))
    assert error.value.exit_code == 7


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://registry.example", ""),
        ("", "sums"),
        ("registry.example:8080", "sums"),
        ("ftp://registry.example", "sums"),
        ("https://me:secret@registry.example", "sums"),
        ("https://registry.example?token=x", "sums"),
    ],
)
def test_half_a_registration_is_refused_before_anything_is_exported(url: str, name: str) -> None:
    with pytest.raises(ConfigError) as error:
        Registry(url, name).check()
    assert "secret" not in str(error.value)


def test_without_the_client_the_error_names_what_to_install() -> None:
    code = (
        "import sys; sys.modules['model_registry'] = None\n"
        "from limbeck.errors import ConfigError\n"
        "from limbeck.export import Registry\n"
        "try: Registry('https://registry.example', 'sums').check()\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'limbeck[registry]'" in done.stdout, done.stderr
