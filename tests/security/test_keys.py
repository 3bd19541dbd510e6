"""Object keys, names in manifests and ids in rows cannot leave their prefix or their folder."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from limbeck import checkpoints, local, manifest
from limbeck.config import parse_config
from limbeck.errors import DataError, LimbeckError, StorageError
from limbeck.inputs import stage_inputs
from limbeck.manifest import Manifest
from limbeck.records import Completion, Judgement, Prompt, Row
from limbeck.rows import read_rows, write_rows
from limbeck.run_file import RunFile
from limbeck.shards import Shard
from limbeck.stages.generate import run as generate
from limbeck.stages.label import run as label
from limbeck.storage import Store, StoredObject
from tests import tiny
from tests.fakes import ScriptedSampler
from tests.security.listing import Listing, listing

HOSTILE_NAMES = {
    "up": "../../etc/x",
    "up in the middle": "a/../../../b",
    "up at the end": "a/..",
    "only up": "..",
    "here": "./config.json",
    "absolute": "/etc/x",
    "two slashes": "a//b",
    "backslashes": "a\\..\\..\\x",
    "NUL": "config.json\0",
    "a line": "config\n.json",
    "an escape": "\x1b[2Jconfig.json",
    "turned text": "config\u202enosj.json",
    "long key": "k" * 1100,
}


@pytest.fixture(scope="module")
def forger() -> Iterator[tuple[Listing, Store]]:
    """A server that lists what it is told to, and a client of it."""
    with listing() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in variables(server).items():
            patch.setenv(name, value)
        client = Store()
        patch.undo()
        yield server, client


@pytest.fixture
def server(forger: tuple[Listing, Store]) -> Listing:
    """The server, which has been asked nothing."""
    forger[0].keys.clear()
    forger[0].asked.clear()
    return forger[0]


@pytest.fixture
def client(forger: tuple[Listing, Store]) -> Store:
    """Its client."""
    return forger[1]


def variables(server: Listing) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": server.endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


READERS: dict[str, Callable[[Store, Path], Any]] = {
    "fetch_base": lambda store, folder: checkpoints.fetch_base(store, "s3://bucket/model", folder),
    "wrap": lambda store, folder: checkpoints.wrap(store, "s3://bucket/model", "checkpoint", "given"),
    "identity": lambda store, folder: checkpoints.identity(store, "s3://bucket/model"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_a_hostile_key_in_a_model_folder_is_refused(
    server: Listing, client: Store, tmp_path: Path, name: str, reader: str
) -> None:
    server.keys += ["model/config.json", f"model/{name}"]
    with pytest.raises(StorageError) as caught:
        READERS[reader](client, tmp_path / "deep" / "deeper" / "model")
    assert server.asked == []
    assert files_below(tmp_path) == set()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_what_consoles_make_of_an_empty_folder_is_left_out(
    server: Listing, client: Store, tmp_path: Path
) -> None:
    server.keys += ["model/", "model/config.json", "model/sub/"]
    checkpoints.fetch_base(client, "s3://bucket/model", tmp_path / "model")
    assert files_below(tmp_path) == {"model/config.json"}


def test_signs_of_urls_mean_themselves(store: Store, work_uri: str, tmp_path: Path) -> None:
    """Else `a?b` would be read as `a`, and `%2e%2e` as `..`."""
    names = ["a?b#c.json", "%2e%2e%2fx", "spaces and ümläüts + &"]
    for name in names:
        store.write_bytes(f"{work_uri}/model/{name}", name.encode())
    store.write_bytes(f"{work_uri}/model/a", b"another")
    folder = checkpoints.fetch_base(store, f"{work_uri}/model", tmp_path / "model")
    assert files_below(folder) == {*names, "a"}
    assert all((folder / name).read_text() == name for name in names)


def stored(uri: str) -> StoredObject:
    return StoredObject(uri=uri, bytes=1, sha256=hashlib.sha256(b"x").hexdigest())


def made(uri: str, *objects: str, kind: str = "checkpoint") -> Manifest:
    return Manifest(
        stage="sft",
        kind=kind,
        name="forged",
        uri=uri,
        objects=tuple(map(stored, objects)),
        inputs={},
        config_hash="",
        code_version="",
    )


HOME = "s3://bucket/work/sft/1234"
FORGED = {name: made(HOME, f"{HOME}/abc/{value}") for name, value in HOSTILE_NAMES.items()} | {
    "another bucket": made(HOME, "s3://other/work/sft/1234/abc/x"),
    "another prefix": made(HOME, "s3://bucket/work/sft/9999/abc/x"),
    "a prefix that begins alike": made(HOME, f"{HOME}5/abc/x"),
    "a local file": made("", "/etc/passwd"),
    "a file address": made("file://", "file:///etc/passwd"),
    "a web address": made("http://host/x", "http://host/x/abc/y"),
    "a prefix that walks": made("s3://bucket/a/../../other", "s3://bucket/a/../../other/abc/x"),
    "a key as bucket": made("s3://id:secret@bucket/a", "s3://id:secret@bucket/a/abc/x"),
    "the folder itself": made(HOME, f"{HOME}/abc/"),
    "nothing at all": made(HOME),
    "a file that is a folder": made(HOME, f"{HOME}/abc/x", f"{HOME}/abc/x/y"),
    "a name too long for a disk": made(HOME, f"{HOME}/abc/{'n' * 300}"),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_manifest_fetches_nothing(
    server: Listing, client: Store, tmp_path: Path, forged: Manifest
) -> None:
    folder = tmp_path / "deep" / "deeper" / "model"
    with pytest.raises(LimbeckError):
        checkpoints.fetch(client, manifest.parse(forged.to_json(), "forged"), folder)
    assert server.asked == []
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("name", [*HOSTILE_NAMES.values(), "//other/x"], ids=[*HOSTILE_NAMES, "another host"])
def test_rows_are_not_read_from_elsewhere(server: Listing, client: Store, name: str) -> None:
    part = f"s3://bucket/work/prompts/{name}/part-00000-0123abcd.parquet"
    with pytest.raises(LimbeckError):
        read_rows(client, made("s3://bucket/work/prompts", part, kind="prompts"), Prompt)
    assert server.asked == []


def load(uri: str, server: Listing, folder: Path) -> "subprocess.CompletedProcess[str]":
    """The component `load` in a process of its own, which it ends with an exit code."""
    program = (
        "import sys; from limbeck import tasks; from tests.stage_process import FileArtifact\n"
        "tasks.load(uri=sys.argv[1], kind='checkpoint', loaded=FileArtifact(sys.argv[2]), name='given')"
    )
    return subprocess.run(
        [sys.executable, "-c", program, uri, str(folder / "loaded")],
        cwd=Path(__file__).parents[2],
        env=local.environment() | variables(server),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("uri", "exit_code", "message"),
    [
        # Every HEAD finds an object on this server, so a manifest too; what it holds is none.
        ("s3://bucket/model", 3, "not a Limbeck manifest"),
        ("s3://bucket/model/../../other", 4, "an object key that may leave its prefix"),
    ],
)
def test_the_component_load_refuses_in_one_line(
    server: Listing, tmp_path: Path, uri: str, exit_code: int, message: str
) -> None:
    ended = load(uri, server, tmp_path)
    assert ended.returncode == exit_code, ended.stderr
    assert message in ended.stdout
    assert len(ended.stdout.splitlines()) == 1
    assert "Traceback" not in ended.stderr
    assert files_below(tmp_path) == set()


HOSTILE_IDS = [
    "../../x",
    "/etc/passwd",
    "..",
    "a\\b",
    "s3://other/x",
    "%2e%2e/x",
    "a\0b",
    "i" * 3000,
    "\u202ex",
]


def test_ids_become_neither_keys_nor_paths(store: Store, work_uri: str, tmp_path: Path) -> None:
    """Rows of others may hold any ids; the stage that keeps them all writes below its own prefix."""
    prompts = [Prompt(prompt_id=name, prompt=f"sum {n}") for n, name in enumerate(HOSTILE_IDS)]
    completions = [
        Completion(
            completion_id=f"{prompt.prompt_id}/../{n}",
            prompt_id=prompt.prompt_id,
            source="teacher",
            text="= 1",
            answer="1",
            temperature=1.0,
            sample_index=n,
            seed=n,
            logprob=-1.0,
            num_tokens=2,
            finish_reason="stop",
        )
        for prompt in prompts
        for n in range(3)
    ]
    judgements = [
        Judgement(completion_id=row.completion_id, prompt_id=row.prompt_id, p_correct=1.0)
        for row in completions
    ]

    def given(kind: str, rows: Sequence[Row]) -> Manifest:
        uri = f"{work_uri}/given/{kind}"
        return made(uri, kind=kind).model_copy(update={"objects": (write_rows(store, uri, rows),)})

    before = store.sizes("s3://test")
    asked, config = given("prompts", prompts), parse_config({"label": {"validation_prompts": 2}})
    result = label(
        asked,
        [given("completions", completions)],
        [given("judgements", judgements)],
        None,
        config,
        store,
        f"{work_uri}/out",
    )
    answered = [
        generate(
            asked,
            "model",
            sampler,
            config,
            store,
            f"{work_uri}/out",
            role="teacher",
            shard=Shard(index=n, count=2),
        )
        for n in range(2)
    ]
    new = [uri for uri in store.sizes("s3://test") if uri not in before]
    name = (
        r"[a-z]+/[0-9a-f]{16}/([a-z]+/|shards/[01]-of-2/)?"
        r"([a-z]+-\d{5}-\d+-[0-9a-f]{64}\.parquet|manifest\.json|lease\.json)"
    )
    assert result.labels.num_rows == len(HOSTILE_IDS)
    assert {row.prompt_id for made in answered for row in read_rows(store, made, Completion)} == {
        *HOSTILE_IDS
    }
    assert all(re.fullmatch(rf"{work_uri}/(out/{name}|given/[a-z]+/part-.*)", uri) for uri in new), new


def sampler() -> ScriptedSampler:
    return ScriptedSampler(lambda prompt, seed: "= 1")


def test_every_row_is_read_back_with_its_id_as_it_is(store: Store, work_uri: str) -> None:
    rows: list[Row] = [Prompt(prompt_id=name, prompt="p") for name in HOSTILE_IDS]
    item = write_rows(store, work_uri, rows)
    assert read_rows(store, made(work_uri, item.uri).model_copy(update={"objects": (item,)}), Prompt) == rows


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint."""
    folder = tmp_path / "deep" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def uploaded(store: Store, folder: Path, work_uri: str) -> dict[str, bytes]:
    """What an upload puts below its hash."""
    objects = store.write_folder(folder, work_uri)
    return {
        item.uri.removeprefix(f"{work_uri}/").split("/", 1)[1]: store.read_bytes(item.uri) for item in objects
    }


def test_hidden_files_stay_on_this_machine(store: Store, work_uri: str, model: Path) -> None:
    for name in (".git/config", ".cache/huggingface/token", ".env", "sub/.DS_Store", "sub/weights"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("secret")
    assert set(uploaded(store, model, work_uri)) == {"config.json", "sub/weights"}


def test_a_snapshot_of_the_hugging_face_cache_is_uploaded_with_its_content(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    """Such a folder is made of links into the cache's own blobs; a link to it works too."""
    cache = tmp_path / "models--org--name"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / "0123").write_text("{}")
    snapshot = cache / "snapshots" / "rev"
    (snapshot / "sub").mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    (snapshot / "sub" / "again.json").symlink_to("../../../blobs/0123")
    (snapshot / "alias.json").symlink_to("config.json")
    (tmp_path / "model").symlink_to(snapshot)
    expected = {"config.json": b"{}", "sub/again.json": b"{}", "alias.json": b"{}"}
    assert uploaded(store, snapshot, work_uri) == expected
    assert uploaded(store, tmp_path / "model", work_uri) == expected


LINKS: dict[str, Callable[[Path], str]] = {
    "a file outside": lambda folder: str(folder.parent / "outside"),
    "a file outside, relative": lambda folder: "../outside",
    "a folder": lambda folder: str(folder.parent / "private"),
    "its own folder": lambda folder: ".",
    "nowhere": lambda folder: "nothing",
    "itself": lambda folder: "link",
    "blobs that are not the cache's": lambda folder: "../../blobs/x",
    "a device": lambda folder: "/dev/zero",
}


@pytest.mark.parametrize("target", LINKS.values(), ids=LINKS)
def test_a_link_out_of_a_model_folder_is_refused_before_anything_is_sent(
    store: Store, work_uri: str, model: Path, target: Callable[[Path], str]
) -> None:
    (model.parent / "outside").write_text("private")
    (model.parent / "private").mkdir()
    (model.parent / "private" / "file").write_text("private")
    (model.parent.parent / "blobs").mkdir(exist_ok=True)
    (model.parent.parent / "blobs" / "x").write_text("private")
    (model / "link").symlink_to(target(model))
    with pytest.raises(StorageError, match=r"a link that leads out .*model/link.*cp -rL"):
        store.write_folder(model, work_uri)
    assert store.sizes(work_uri) == {}


def test_a_model_with_a_link_to_nowhere_is_refused_in_one_line(
    store: Store, work_uri: str, tmp_path: Path
) -> None:
    folder = tiny.checkpoint(tmp_path / "model")
    (folder / "README.md").symlink_to("nothing")
    with pytest.raises(StorageError, match="to a folder, or nowhere"):
        stage_inputs(RunFile(work_uri=work_uri, student=str(folder)), store)


def test_a_manifest_that_was_moved_is_refused(store: Store, work_uri: str) -> None:
    """It would send whoever loads it to the prefix that it names."""
    honest = made(f"{work_uri}/sft/1", f"{work_uri}/sft/1/abc/x")
    store.write_bytes(f"{work_uri}/sft/1/manifest.json", honest.to_json().encode())
    store.write_bytes(f"{work_uri}/sft/2/manifest.json", honest.to_json().encode())
    assert manifest.load_manifest(store, f"{work_uri}/sft/1", "checkpoint") == honest
    assert (
        manifest.load_manifest(store, f"{work_uri.replace('s3', 'minio', 1)}/sft/1", "checkpoint") == honest
    )
    with pytest.raises(DataError, match="lies elsewhere than it says"):
        manifest.load_manifest(store, f"{work_uri}/sft/2", "checkpoint")


def test_the_metadata_of_others_is_no_number_of_rows(client: Store) -> None:
    assert client.stored("s3://bucket/x") == StoredObject(uri="s3://bucket/x", bytes=1, sha256="", rows=0)


def test_the_manifest_of_a_run_names_hashes_alone(store: Store, work_uri: str) -> None:
    """Nothing that a user or a model wrote is part of a stage's own prefix."""
    uri = manifest.stage_uri(work_uri, "label", {"prompts": "../../x"}, json.dumps("../.."))
    assert re.fullmatch(rf"{work_uri}/label/[0-9a-f]{{16}}", uri)
