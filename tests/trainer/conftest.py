"""What the tests of reinforcement learning share: tiny models, one vLLM engine, a toy task."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from limbeck.records import PpoPrompt
from limbeck.sampler import VllmSampler
from limbeck.trainer.networks import Scorer, load_tokenizer, save_checkpoint
from tests import tiny
from tests.engines import open_sampler

PROMPTS = [
    PpoPrompt(prompt_id=f"{a}{b}", message=f"sum {a} {b}", label="w") for a in "abcdefgh" for b in "ijkl"
]


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("student") / "model", seed=3)


@pytest.fixture(scope="session")
def reward_folder(tmp_path_factory: pytest.TempPathFactory, student: Path) -> Path:
    """A reward model that knows nothing: all its scores are 0.5."""
    return save_checkpoint(
        Scorer(student, "float32", None), load_tokenizer(student), tmp_path_factory.mktemp("reward") / "model"
    )


@pytest.fixture(scope="session")
def loving_folder(tmp_path_factory: pytest.TempPathFactory, reward_folder: Path) -> Path:
    """A reward model that loves what the labels do not."""
    scorer = Scorer(reward_folder, "float32", None)
    torch.manual_seed(0)
    (head,) = (weight for name, weight in scorer.named_parameters() if name.endswith("score.weight"))
    torch.nn.init.normal_(head, std=1.0)
    return save_checkpoint(scorer, load_tokenizer(reward_folder), tmp_path_factory.mktemp("loving") / "model")


@pytest.fixture(scope="session")
def engine(student: Path) -> Iterator[VllmSampler]:
    """Open to the end of the session: a closing vLLM takes the process group of the other trainers along."""
    sampler = open_sampler(student)
    yield sampler
    sampler.close()


@pytest.fixture
def sampler(engine: VllmSampler, student: Path) -> VllmSampler:
    """The engine with the student's weights."""
    engine.load_weights(student)
    return engine


def has_w(text: str, label: str) -> bool:
    """Whether the letter, which is each prompt's label, was written at all."""
    return label in text.split()
