"""An export on this machine: it loads, it is whole, and what is no whole model is refused."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from limbeck.errors import ConfigError, DataError, StorageError
from limbeck.export import Asked, choose, export_to_folder
from limbeck.sampling import SampleRequest
from limbeck.storage import Store, StoredObject
from tests import tiny
from tests.engines import open_sampler
from tests.export.conftest import MadeRun

MakeRun = Callable[..., MadeRun]


def export(run: MadeRun, folder: Path, asked: Asked | None = None) -> Path:
    export_to_folder(run.store, choose(run.store, run.report), asked or Asked(), folder)
    return folder


def test_an_export_holds_the_model_and_its_card_and_checks_out(run: MadeRun, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "out" / "model")
    assert folder.stat().st_mode & 0o777 == 0o755
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md",
        "checksums.sha256",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "checksums.sha256"],  # noqa: S607 - of any system
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count(": OK") == len(names) - 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]  # no scratch is left


def test_transformers_and_vllm_load_it_and_say_what_the_checkpoint_says(run: MadeRun, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "model")
    ids = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "sum a b"}], add_generation_prompt=True, return_dict=False
    )
    with torch.no_grad():
        ours, theirs = (
            AutoModelForCausalLM.from_pretrained(path)(torch.tensor([ids])).logits
            for path in (folder, run.folder)
        )
    assert torch.equal(ours, theirs)
    sampler = open_sampler(folder)
    try:
        (sample,) = sampler.sample([SampleRequest(ids, 0.0, 1)])
        assert sampler.prompt_ids("sum a b") == ids
    finally:
        sampler.close()
    assert sample.token_ids == [int(theirs[0, -1].argmax())]


def test_it_generates_as_it_was_evaluated(run: MadeRun, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "model")
    settings = GenerationConfig.from_pretrained(folder)
    assert (settings.do_sample, settings.temperature, settings.top_p, settings.top_k) == (True, 1.0, 1.0, 0)
    assert settings.max_new_tokens == 512
    assert settings.eos_token_id == tiny.END
    assert settings.pad_token_id == 0


def test_every_token_that_ended_an_answer_ends_it_again(make_run: MakeRun, tmp_path: Path) -> None:
    """The engine stops at those of both configurations and at the tokenizer's."""
    checkpoint = tiny.checkpoint(tmp_path / "ends")
    path = checkpoint / "generation_config.json"
    path.write_text(
        json.dumps({"eos_token_id": [9, 10], "pad_token_id": 7, "top_k": 50, "repetition_penalty": 1.3})
    )
    written = json.loads((export(make_run(checkpoint), tmp_path / "model") / path.name).read_text())
    assert written["eos_token_id"] == [9, 10, tiny.END]
    assert (written["top_k"], written["pad_token_id"]) == (0, 7)  # its own before the model's, which is 0
    assert "repetition_penalty" not in written  # it was evaluated without


def test_all_files_of_a_tokenizer_go_along_and_what_else_a_trainer_left_stays(
    make_run: MakeRun, tmp_path: Path
) -> None:
    checkpoint = tiny.checkpoint(tmp_path / "more")
    kept = ("merges.txt", "special_tokens_map.json", "added_tokens.json")
    for name in kept:
        (checkpoint / name).write_text("{}")
    (checkpoint / "older").mkdir()
    for name in ("notes.txt", "optimizer.pt", "modeling_evil.py", "older/model.safetensors"):
        (checkpoint / name).write_text("not for others")
    names = {path.name for path in export(make_run(checkpoint), tmp_path / "model").iterdir()}
    assert names >= {*kept, "model.safetensors", "tokenizer.json"}
    assert not names & {"notes.txt", "optimizer.pt", "modeling_evil.py", "older", "history.jsonl"}


def test_a_checkpoint_without_a_report_decodes_greedily(run: MadeRun, tmp_path: Path) -> None:
    export_to_folder(run.store, choose(run.store, run.policy), Asked(), tmp_path / "model")
    settings = GenerationConfig.from_pretrained(tmp_path / "model")
    assert (settings.do_sample, settings.max_new_tokens) == (False, None)
    assert settings.eos_token_id == tiny.END


def test_the_same_run_gives_the_same_bytes(run: MadeRun, tmp_path: Path) -> None:
    first, second = export(run, tmp_path / "a"), export(run, tmp_path / "b")
    assert (first / "checksums.sha256").read_bytes() == (second / "checksums.sha256").read_bytes()


def test_the_students_licence_goes_along(run: MadeRun, tmp_path: Path) -> None:
    uris = run.store.sizes(f"{run.work_uri}/models/student")
    folder = export(run, tmp_path / "model", Asked(student=next(iter(uris)).rpartition("/")[0]))
    assert (folder / "LICENSE").read_text() == "Apache License\n"
    assert "license: apache-2.0" in (folder / "README.md").read_text()
    assert "LICENSE" in (folder / "checksums.sha256").read_text()


def test_what_is_there_already_stays(run: MadeRun, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    with pytest.raises(ConfigError, match="there is something already"):
        export(run, tmp_path / "model")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="there is something already"):
        export(run, tmp_path / "link")
    (tmp_path / "model" / "mine").unlink()
    assert export(run, tmp_path / "model").joinpath("config.json").exists()


def test_a_tampered_checkpoint_is_refused_and_nothing_is_left(run: MadeRun, tmp_path: Path) -> None:
    weights = next(item for item in run.policy.objects if item.uri.endswith(".safetensors"))
    other = bytearray(run.store.read_bytes(weights.uri))
    other[-1] ^= 1
    run.store.write_bytes(weights.uri, bytes(other))  # with a sha256 of its own beside it
    with pytest.raises(StorageError, match=r"model\.safetensors"):
        export(run, tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []


class InterruptedStore(Store):
    """Ctrl-C comes when the files have been fetched."""

    def read_folder(self, objects: "list[StoredObject]", base_uri: str, folder: Path) -> Path:  # type: ignore[override]
        super().read_folder(objects, base_uri, folder)
        raise KeyboardInterrupt


def test_an_interrupted_export_leaves_nothing(run: MadeRun, tmp_path: Path) -> None:
    chosen = choose(run.store, run.report)
    with pytest.raises(KeyboardInterrupt):
        export_to_folder(InterruptedStore(), chosen, Asked(), tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []


def adapted(folder: Path, part: str = "lora_A") -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    weights[name.replace(".weight", f".{part}.weight")] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors")


def indexed(folder: Path) -> None:
    index = {"weight_map": {"model.embed_tokens.weight": "model.safetensors", "gone": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def endless(folder: Path) -> None:
    for name, key in (("config.json", "eos_token_id"), ("tokenizer_config.json", "eos_token")):
        content = json.loads((folder / name).read_text())
        content.pop(key)
        (folder / name).write_text(json.dumps(content))
    (folder / "generation_config.json").unlink(missing_ok=True)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (adapted, "wait for their adapters .*got .*lora_A"),
        (lambda folder: adapted(folder, "base_layer"), "wait for their adapters .*got .*base_layer"),
        (
            lambda folder: adapted(folder, "modules_to_save"),
            "wait for their adapters .*got .*modules_to_save",
        ),
        (
            lambda folder: adapted(folder, "original_module"),
            "wait for their adapters .*got .*original_module",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "an adapter is no whole model"),
        (indexed, "without all its weights .*expected gone"),
        (cut, "a damaged weight file"),
        (endless, "never ends its answer"),
        (pickled, "without all its weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "without a tokenizer"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "without a chat template"),
    ],
    ids=[
        "LoRA",
        "base layer",
        "saved",
        "original",
        "adapter",
        "index",
        "cut",
        "no end",
        "pickle",
        "tokenizer",
        "template",
    ],
)
def test_what_is_no_whole_model_is_refused(
    make_run: MakeRun, tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    checkpoint = tiny.checkpoint(tmp_path / "spoiled", seed=2)
    spoil(checkpoint)
    with pytest.raises(DataError, match=says):
        export(make_run(checkpoint), tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_checkpoint_that_no_stage_made_is_refused(run: MadeRun, tmp_path: Path) -> None:
    chosen = choose(run.store, run.report)
    bare = tuple(item.model_copy(update={"sha256": ""}) for item in chosen.checkpoint.objects)
    chosen = chosen._replace(checkpoint=chosen.checkpoint.model_copy(update={"objects": bare}))
    with pytest.raises(DataError, match="nobody vouches for"):
        export_to_folder(run.store, chosen, Asked(), tmp_path / "model")


def test_a_disk_that_refuses_is_said(run: MadeRun, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write the export"):
        export(run, tmp_path / "file" / "model")
