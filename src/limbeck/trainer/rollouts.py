"""Rollouts: the policy answers prompts through vLLM with its newest weights, and is scored.

Shapes: B rollouts, P prompt tokens (padded on the left), T completion tokens (padded on the right).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.config import Chat, Config, PpoConfig, PpoReward
from limbeck.judging import RolloutJudge, Verdict
from limbeck.records import PpoPrompt
from limbeck.sampling import Sample, Sampler, SampleRequest
from limbeck.trainer.engines import device
from limbeck.trainer.networks import Scorer, load_tokenizer
from limbeck.trainer.reward import score_rows
from limbeck.trainer.tokens import pad_left, pad_right, training_rows


@dataclass(frozen=True)
class RewardModel:
    """A trained scorer with its own tokenizer: only text crosses from the policy."""

    scorer: Scorer
    tokenizer: Any
    max_length: int
    chat: Chat

    def scores(self, prompts: Sequence[PpoPrompt], texts: Sequence[str]) -> Tensor:
        """P(good) = sigmoid(score) of each completion, B."""
        pairs = [(prompt.message, text) for prompt, text in zip(prompts, texts, strict=True)]
        rows = training_rows(self.tokenizer, self.chat, pairs, self.max_length, "reward.max_length")
        ids = [row.ids for row in rows]
        return torch.from_numpy(score_rows(self.scorer, ids, self.tokenizer.pad_token_id)).float()


def load_reward_model(folder: Path, config: Config) -> RewardModel:
    """The reward model of a checkpoint folder, frozen, where this process computes."""
    scorer = Scorer(folder, config.student.dtype, None).to(device())
    chat = config.chat(config.reward.init)
    return RewardModel(scorer, load_tokenizer(folder), config.reward.max_length, chat)


def draw(prompts: Sequence[PpoPrompt], update: int, config: Config) -> tuple[list[PpoPrompt], list[int]]:
    """The prompts of one round and a seed for each rollout: passes over all prompts in shuffled order.

    Nothing but the round's number decides, so a resumed run draws what an unbroken one would.
    """
    settings = config.ppo
    count = settings.batch_size // settings.samples_per_prompt
    places = range(update * count, (update + 1) * count)
    orders = {
        epoch: np.random.default_rng([config.seed, epoch]).permutation(len(prompts))
        for epoch in {place // len(prompts) for place in places}
    }
    chosen = [prompts[orders[place // len(prompts)][place % len(prompts)]] for place in places]
    repeated = [prompt for prompt in chosen for _ in range(settings.samples_per_prompt)]
    seeds = np.random.default_rng([config.seed, update, 1]).integers(2**31, size=len(repeated))
    return repeated, [int(seed) for seed in seeds]


@dataclass(frozen=True)
class Rollouts:
    """One round of answers. Written by `roll_out`; read by the update of the policy."""

    ids_B_S: Tensor
    mask_B_S: Tensor
    mask_B_T: Tensor
    scores_B: Tensor
    """What the rollout earns at its last token."""
    proxy_B: Tensor
    """The reward model's opinion, whatever the reward is."""
    agreement: float
    """Share of rollouts with a label that agree with it; nan when none has one."""
    cut: float
    """Share that did not end by itself."""
    judged: dict[str, float] = field(default_factory=dict)
    """Metrics of the judge; none where it was not asked."""

    def completions(self) -> list[list[int]]:
        """The token ids of each completion, without padding."""
        ids_B_T = self.ids_B_S[:, -self.mask_B_T.shape[1] :]
        return [ids[mask > 0].tolist() for ids, mask in zip(ids_B_T, self.mask_B_T, strict=True)]


def roll_out(
    sampler: Sampler,
    reward_model: RewardModel,
    prompts: Sequence[PpoPrompt],
    seeds: Sequence[int],
    agrees: Callable[[str, str], bool],
    reward: PpoReward,
    config: PpoConfig,
    pad_id: int,
    judge: RolloutJudge | None = None,
) -> Rollouts:
    """Answer each prompt once and score the answer.

    Args:
        sampler: Holds the policy's newest weights.
        reward_model: Scores text.
        prompts: B prompts, repeated where several samples of one are wanted.
        seeds: One for each.
        agrees: Whether a completion's answer is the same as a label.
        reward: `model`, `agreement`, `mixed` (agreement where there is a label, the model elsewhere), or
            `judge`: its P(correct), 0 without a verdict.
        config: `temperature`, `max_tokens` and `missing_eos_penalty` are read.
        pad_id: The policy's padding token.
        judge: Given for the reward `judge` alone, which it decides.
    """
    prompt_ids = [sampler.prompt_ids(prompt.message) for prompt in prompts]
    samples = sampler.sample(
        [
            SampleRequest(ids, config.temperature, config.max_tokens, seed)
            for ids, seed in zip(prompt_ids, seeds, strict=True)
        ]
    )
    texts = [sample.text for sample in samples]
    proxy_B = reward_model.scores(prompts, texts)
    agreed = [_agreed(prompt, sample, agrees) for prompt, sample in zip(prompts, samples, strict=True)]
    if judge:
        verdicts = judge(prompts, texts, seeds)
        earned = [verdict.p_correct or 0.0 for verdict in verdicts]
    else:
        verdicts = []
        earned = [
            proxy if reward == "model" or (reward == "mixed" and agree is None) else float(agree or 0.0)
            for proxy, agree in zip(proxy_B.tolist(), agreed, strict=True)
        ]
    cut_B = torch.tensor([float(sample.finish_reason != "stop") for sample in samples])
    known = [agree for agree in agreed if agree is not None]

    left_ids, left_mask = pad_left(prompt_ids, pad_id)
    right_ids, right_mask = pad_right([sample.token_ids for sample in samples], pad_id)
    return Rollouts(
        ids_B_S=torch.cat([left_ids, right_ids], dim=1),
        mask_B_S=torch.cat([left_mask, right_mask], dim=1),
        mask_B_T=right_mask.float(),
        scores_B=torch.tensor(earned) - config.missing_eos_penalty * cut_B,
        proxy_B=proxy_B,
        agreement=sum(known) / len(known) if known else float("nan"),
        cut=float(cut_B.mean()),
        judged=_judged(verdicts),
    )


def _judged(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """What a round tells of its judge."""
    if not verdicts:
        return {}
    return {
        "ppo/unjudged": sum(verdict.p_correct is None for verdict in verdicts) / len(verdicts),
        "ppo/judge_prompt_tokens": float(sum(verdict.num_prompt_tokens for verdict in verdicts)),
        "ppo/judge_tokens": float(sum(verdict.num_tokens for verdict in verdicts)),
    }


@dataclass(frozen=True)
class Validation:
    """The policy on the fixed validation prompts: what chooses checkpoints and watches for hacking."""

    agreement: float | None
    """None where no prompt has a label that an answer could agree with: open questions."""
    proxy: float
    length: float


def validate(
    sampler: Sampler,
    reward_model: RewardModel,
    prompts: Sequence[PpoPrompt],
    agrees: Callable[[str, str], bool],
    config: PpoConfig,
    seed: int,
) -> Validation:
    """Measure agreement with pseudo labels, proxy reward and length, always with the same seeds."""
    repeated = [prompt for prompt in prompts for _ in range(config.validation_samples)]
    samples = sampler.sample(
        [
            SampleRequest(sampler.prompt_ids(prompt.message), 1.0, config.max_tokens, seed + number)
            for number, prompt in enumerate(repeated)
        ]
    )
    agreed = [_agreed(prompt, sample, agrees) for prompt, sample in zip(repeated, samples, strict=True)]
    return Validation(
        agreement=None
        if all(agree is None for agree in agreed)
        else sum(float(agree or 0.0) for agree in agreed) / len(agreed),
        proxy=float(reward_model.scores(repeated, [sample.text for sample in samples]).mean()),
        length=sum(len(sample.token_ids) for sample in samples) / len(samples),
    )


def _agreed(prompt: PpoPrompt, sample: Sample, agrees: Callable[[str, str], bool]) -> float | None:
    """1 if the sample's answer is the prompt's pseudo label, 0 if not, None without a label."""
    return None if prompt.label is None else float(agrees(sample.text, prompt.label))
