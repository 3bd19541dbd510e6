"""Rollouts are scored while later ones are sampled, and which ones together does not depend on the engine."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from limbeck.config import Chat, Config, PpoConfig, parse_config
from limbeck.engine_process import EngineProcess
from limbeck.errors import ConfigError
from limbeck.records import PpoPrompt
from limbeck.trainer.networks import Scorer, load_tokenizer, save_checkpoint
from limbeck.trainer.rollouts import RewardModel, Rollout, load_reward_model, roll_out
from tests import tiny
from tests.engines import ENGINE
from tests.fakes import ScriptedSampler

pytestmark = pytest.mark.usefixtures("forked_engines")
PROMPTS = [
    PpoPrompt(prompt_id=str(n), message=f"sum {' '.join('abcdefgh'[: n % 8 + 1])}", label="c")
    for n in range(10)
]


@dataclass(frozen=True)
class Watched(RewardModel):
    """Notes how many answers there were when it was asked, and how many it was asked about."""

    answered: list[int]
    asked: list[tuple[int, int]]

    def scores(self, prompts: Sequence[PpoPrompt], texts: Sequence[str]) -> Tensor:
        self.asked.append((len(self.answered), len(texts)))
        return super().scores(prompts, texts)


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder = tmp_path_factory.mktemp("reward")
    base = tiny.checkpoint(folder / "base")
    scorer = Scorer(base, "float32", None)
    torch.nn.init.normal_(dict(scorer.named_parameters())["model.score.weight"])
    save_checkpoint(scorer, load_tokenizer(base), folder / "scorer")
    return load_reward_model(folder / "scorer", parse_config({"student": {"dtype": "float32"}}))


def test_completions_share_lines_where_the_setting_says_so_and_the_model_allows_it(
    reward_model: RewardModel, tmp_path: Path
) -> None:
    folder = tmp_path / "scorer"
    save_checkpoint(reward_model.scorer, reward_model.tokenizer, folder)
    config = parse_config({"student": {"dtype": "float32"}, "ppo": {"packing": True}})
    packing = load_reward_model(folder, config)
    texts = ["abcdefgh"[: n % 5] for n in range(10)]
    found, read = list[Tensor](), list[int]()
    for model in (reward_model, packing):
        embedding = cast(Any, model.scorer.model).get_input_embeddings()
        with embedding.register_forward_hook(lambda _, ids, __: read.append(ids[0].numel())):
            found.append(model.scores(PROMPTS, texts))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)
    assert read[1] < read[0]
    described = json.loads((folder / "config.json").read_text())
    described["layer_types"] = ["linear_attention"]
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match=r"cannot share a row in ppo\.packing"):
        load_reward_model(folder, config)


def rolled(
    sampler: ScriptedSampler | EngineProcess, model: RewardModel, batch_size: int | None
) -> list[Rollout]:
    settings = PpoConfig(max_tokens=8, score_batch_size=batch_size)
    return roll_out(sampler, model, PROMPTS, range(10), lambda text, label: label in text, "model", settings)


def test_groups_are_scored_in_order_as_soon_as_they_are_there(reward_model: RewardModel) -> None:
    sampler = ScriptedSampler(lambda prompt, seed: f"{prompt[4]} {'abcdefgh'[(seed or 0) % 8]}")
    watched = Watched(**vars(reward_model), answered=sampler.answered, asked=[])
    together = rolled(sampler, reward_model, None)
    sampler.answered.clear()
    apart = rolled(sampler, watched, 4)
    # It answers the newest of four first: 3, then 4 to 9, then 2, 1, 0.
    assert watched.asked == [(10, 4), (10, 4), (10, 2)]
    assert [one.earned for one in apart] == pytest.approx([one.earned for one in together], abs=1e-6)
    assert [one.token_ids for one in apart] == [one.token_ids for one in together]
    assert len({one.earned for one in together}) > 5

    one_by_one = ScriptedSampler(sampler.answer, at_once=1)
    watched = Watched(**vars(reward_model), answered=one_by_one.answered, asked=[])
    assert rolled(one_by_one, watched, 4) == apart
    assert watched.asked == [(4, 4), (8, 4), (10, 2)]
    watched.asked.clear()
    rolled(one_by_one, watched, None)
    assert [count for _, count in watched.asked] == [10]


def test_with_a_real_engine_in_a_process_of_its_own(reward_model: RewardModel, tmp_path: Path) -> None:
    sampler = EngineProcess(tiny.checkpoint(tmp_path / "policy", seed=3), Config().student, ENGINE, Chat())
    try:
        together, apart = (rolled(sampler, reward_model, size) for size in (None, 3))
    finally:
        sampler.close()
    assert [one.token_ids for one in apart] == [one.token_ids for one in together]
    assert [one.earned for one in apart] == pytest.approx([one.earned for one in together], abs=1e-6)
