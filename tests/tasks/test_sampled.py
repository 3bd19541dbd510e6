"""The engine of a task asks as the run says; the model's hash holds what settings of the task do not."""

from pathlib import Path

import pytest

from limbeck import chat as chats
from limbeck.config import Chat, parse_config
from limbeck.storage import Store
from limbeck.tasks import sampled
from limbeck.trainer.networks import load_tokenizer
from tests import families, tiny
from tests.families import FAMILIES, QUESTION, SYSTEM

CONFIG = parse_config(
    {
        "task": {"system_prompt": SYSTEM},
        "student": {"dtype": "float32", "enable_thinking": False},
        "engine": {"max_model_len": 64, "kv_cache_mib": 64, "enforce_eager": True},
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with the template of Qwen 3; its engine is asked for no token."""
    made = tiny.checkpoint(tmp_path_factory.mktemp("made") / "model")
    families.of_family(FAMILIES["Qwen 3"]).save_pretrained(made)
    return made


def test_the_engine_asks_with_the_system_prompt_and_as_the_model_may_think(
    store: Store, folder: Path
) -> None:
    chat = CONFIG.chat("student")
    assert chat == Chat(SYSTEM, enable_thinking=False)
    with sampled.model(CONFIG, str(folder), None, "student", chat) as (_, _, open_sampler):
        engine = open_sampler()
        ids = engine.chat_prompt(QUESTION)
        engine.close()
    tokenizer = load_tokenizer(folder)
    assert ids == chats.prompt_ids(tokenizer, chat, QUESTION)
    assert tokenizer.decode(ids) == FAMILIES["Qwen 3 without thinking"].prompt_with_system


def test_whether_a_model_may_think_is_part_of_its_hash(store: Store, folder: Path) -> None:
    hashes = []
    for thinking in (None, False, True):
        with sampled.model(CONFIG, str(folder), None, "student", Chat(SYSTEM, thinking)) as (_, made, _):
            hashes.append(made)
    assert len(set(hashes)) == 3
