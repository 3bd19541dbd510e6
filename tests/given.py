"""Inputs of a task, made by hand: objects in the store, and their manifest in a file, as Kubeflow has it."""

from collections.abc import Iterable
from pathlib import Path

from limbeck.manifest import Manifest, commit
from limbeck.records import Prompt, PseudoLabel
from limbeck.rows import write_rows
from limbeck.storage import Store, StoredObject

LETTERS = "abcdefghijklmnopqrstuvw"


def artifact(
    store: Store, folder: Path, uri: str, kind: str, objects: Iterable[StoredObject]
) -> dict[str, str]:
    """Commit a manifest and put it into an artifact."""
    made = Manifest(
        stage="test",
        kind=kind,
        name=kind,
        uri=uri,
        objects=tuple(objects),
        inputs={},
        config_hash="",
        code_version="",
        num_rows=1,
    )
    path = folder / uri.rpartition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(commit(store, made).to_json())
    return {"path": str(path)}


def some_prompts(count: int) -> list[Prompt]:
    """Prompts that a tiny model knows the words of."""
    return [
        Prompt(prompt_id=f"{n:016x}", prompt=f"sum {LETTERS[n % 23]} {LETTERS[n // 23 % 23]}")
        for n in range(count)
    ]


def prompts(store: Store, work_uri: str, folder: Path, count: int) -> dict[str, str]:
    """An artifact of prompts."""
    uri = f"{work_uri}/prompts"
    return artifact(store, folder, uri, "prompts", [write_rows(store, uri, some_prompts(count))])


def ppo_artifacts(
    store: Store, folder: Path, uri: str, student: Path, reward_model: Path
) -> dict[str, dict[str, str]]:
    """The artifacts that `ppo` takes: 100 prompts, all with one label, ten of them for validation."""
    asked = some_prompts(100)
    labels = [
        PseudoLabel(
            prompt_id=prompt.prompt_id,
            answer="w",
            vote_share=1.0,
            num_votes=3,
            reason="labelled",
            validation=n < 10,
        )
        for n, prompt in enumerate(asked)
    ]

    def model(name: str, kind: str, content: Path) -> dict[str, str]:
        return artifact(store, folder, f"{uri}/{name}", kind, store.write_folder(content, f"{uri}/{name}"))

    return {
        "prompts": prompts(store, uri, folder, len(asked)),
        "labels": artifact(
            store, folder, f"{uri}/labels", "labels", [write_rows(store, f"{uri}/labels", labels)]
        ),
        "checkpoint": model("checkpoint", "checkpoint", student),
        "reward_model": model("reward_model", "reward_model", reward_model),
    }
