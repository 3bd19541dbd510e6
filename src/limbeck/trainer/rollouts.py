"""Rollouts: the policy answers prompts with its newest weights, and is scored.

Shapes: B rollouts, P prompt tokens (padded on the left), T completion tokens (padded on the right), N of all
rollouts together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from limbeck.config import Config, PpoConfig, PpoReward
from limbeck.judging import RolloutJudge, Verdict
from limbeck.records import PpoPrompt
from limbeck.sampling import Sample, Sampler, SampleRequest
from limbeck.trainer.engines import device
from limbeck.trainer.networks import Scorer, load_tokenizer
from limbeck.trainer.packing import check_packable
from limbeck.trainer.reward import score_rows
from limbeck.trainer.tokens import RowMaker, pad_left, pad_right


@dataclass(frozen=True)
class RewardModel:
    """A trained scorer with its own tokenizer: only text crosses from the policy."""

    scorer: Scorer
    tokenizer: Any
    row_maker: RowMaker
    packing: bool
    """Whether completions share lines of a forward pass."""

    def scores(self, prompts: Sequence[PpoPrompt], texts: Sequence[str]) -> Tensor:
        """P(good) = sigmoid(score) of each completion, B."""
        pairs = [(prompt.message, text) for prompt, text in zip(prompts, texts, strict=True)]
        ids = [row.ids for row in self.row_maker.rows(pairs)]
        scores = score_rows(self.scorer, ids, self.tokenizer.pad_token_id, packing=self.packing)
        return torch.from_numpy(scores).float()


def load_reward_model(folder: Path, config: Config) -> RewardModel:
    """The reward model of a checkpoint folder, frozen, where this process computes.

    Raises:
        ConfigError: when completions are to share lines and the model is none that allows it.
        DataError: when its chat template does not render a question and its answer.
    """
    scorer, packing = Scorer(folder, config.student.dtype, None), config.ppo.packing
    if packing:
        check_packable(scorer.model, "ppo.packing")
    tokenizer, chat = load_tokenizer(folder), config.chat(config.reward.init)
    row_maker = RowMaker(tokenizer, chat, config.reward.max_length, "reward.max_length")
    return RewardModel(scorer.to(device()), tokenizer, row_maker, packing)


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


class Rollout(NamedTuple):
    """One answer and what is thought of it. Written by `roll_out`; read by `stack`."""

    prompt_ids: list[int]
    token_ids: list[int]
    token_logprobs: list[float] | None
    """The engine's, where it was asked for them."""
    earned: float
    """Without the penalty of an answer that was cut."""
    proxy: float
    """The reward model's opinion, whatever the reward is."""
    agreed: float | None
    """1 if the answer is the prompt's pseudo label, 0 if not, None without a label."""
    is_cut: bool
    """Whether it did not end by itself."""
    verdict: Verdict | None
    """The judge's, where one was asked."""


@dataclass(frozen=True)
class Rollouts:
    """One round of answers. Written by `stack`; read by the update of the policy."""

    ids_B_S: Tensor
    mask_B_S: Tensor
    mask_B_T: Tensor
    logprobs_B_T: Tensor | None
    """The engine's, 0 on padding; None where it was not asked."""
    scores_B: Tensor
    """What the rollout earns at its last token."""
    proxy_B: Tensor
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
    judge: RolloutJudge | None = None,
) -> list[Rollout]:
    """Answer each prompt once and score the answer.

    Args:
        sampler: Holds the policy's newest weights.
        reward_model: Scores text.
        prompts: Repeated where several samples of one are wanted.
        seeds: One for each.
        agrees: Whether a completion's answer is the same as a label.
        reward: `model`, `agreement`, `mixed` (agreement where there is a label, the model elsewhere), or
            `judge`: its P(correct), 0 without a verdict.
        config: `temperature`, `max_tokens`, `score_batch_size` and `old_logprobs` are read.
        judge: Given for the reward `judge` alone, which it decides.
    """
    prompt_ids = [sampler.prompt_ids(prompt.message) for prompt in prompts]
    told = config.old_logprobs == "engine"
    requests = [
        SampleRequest(ids, config.temperature, config.max_tokens, seed, token_logprobs=told)
        for ids, seed in zip(prompt_ids, seeds, strict=True)
    ]
    samples, proxies = _scored(sampler, reward_model, prompts, requests, config.score_batch_size)
    texts = [sample.text for sample in samples]
    verdicts = judge(prompts, texts, seeds) if judge else [None] * len(prompts)
    rollouts = []
    for place, (sample, proxy, verdict) in enumerate(zip(samples, proxies, verdicts, strict=True)):
        agreed = _agreed(prompts[place], sample, agrees)
        if verdict:
            earned = verdict.p_correct or 0.0
        elif reward == "model" or (reward == "mixed" and agreed is None):
            earned = proxy
        else:
            earned = agreed or 0.0
        is_cut = sample.finish_reason != "stop"
        rollouts.append(
            Rollout(
                prompt_ids[place],
                sample.token_ids,
                sample.token_logprobs,
                earned,
                proxy,
                agreed,
                is_cut,
                verdict,
            )
        )
    return rollouts


def _scored(
    sampler: Sampler,
    reward_model: RewardModel,
    prompts: Sequence[PpoPrompt],
    requests: Sequence[SampleRequest],
    batch_size: int | None,
) -> tuple[list[Sample], list[float]]:
    """Answers in order, and the reward model's scores of them.

    It scores rollouts next to each other together, as soon as they are there. An engine in a process of its
    own goes on meanwhile; which answers are scored together does not depend on who finishes first.
    """
    samples: dict[int, Sample] = {}
    scores: list[float] = []
    size = batch_size or len(requests)
    for number, sample in sampler.stream(enumerate(requests)):
        samples[number] = sample
        while places := range(len(scores), min(len(scores) + size, len(requests))):
            if len(samples) < places.stop or not all(place in samples for place in places):
                break
            texts = [samples[place].text for place in places]
            scores += reward_model.scores(prompts[places.start : places.stop], texts).tolist()
    return [samples[number] for number in range(len(requests))], scores


def stack(rollouts: Sequence[Rollout], missing_eos_penalty: float, pad_id: int) -> Rollouts:
    """The rollouts of a round as tensors, with the policy's padding token."""
    left_ids, left_mask = pad_left([rollout.prompt_ids for rollout in rollouts], pad_id)
    right_ids, right_mask = pad_right([rollout.token_ids for rollout in rollouts], pad_id)
    cut_B = torch.tensor([float(rollout.is_cut) for rollout in rollouts])
    told = [rollout.token_logprobs for rollout in rollouts if rollout.token_logprobs is not None]
    told_N = torch.tensor([logprob for logprobs in told for logprob in logprobs])
    known = [rollout.agreed for rollout in rollouts if rollout.agreed is not None]
    return Rollouts(
        ids_B_S=torch.cat([left_ids, right_ids], dim=1),
        mask_B_S=torch.cat([left_mask, right_mask], dim=1),
        mask_B_T=right_mask.float(),
        logprobs_B_T=torch.zeros(right_mask.shape).masked_scatter_(right_mask > 0, told_N) if told else None,
        scores_B=torch.tensor([rollout.earned for rollout in rollouts]) - missing_eos_penalty * cut_B,
        proxy_B=torch.tensor([rollout.proxy for rollout in rollouts]),
        agreement=sum(known) / len(known) if known else float("nan"),
        cut=float(cut_B.mean()),
        judged=_judged([Verdict(*rollout.verdict) for rollout in rollouts if rollout.verdict]),
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


class Probe(NamedTuple):
    """One answer to a validation prompt. Written by `probe`; read by `measure`."""

    agreed: float | None
    proxy: float
    num_tokens: int


@dataclass(frozen=True)
class Validation:
    """The policy on the fixed validation prompts: what chooses checkpoints and watches for hacking."""

    agreement: float | None
    """None where no prompt has a label that an answer could agree with: open questions."""
    proxy: float
    length: float


def repeated(prompts: Sequence[PpoPrompt], config: Config) -> tuple[list[PpoPrompt], list[int]]:
    """The validation prompts as they are asked, and a seed for each answer: always the same."""
    asked = [prompt for prompt in prompts for _ in range(config.ppo.validation_samples)]
    return asked, [config.seed + number for number in range(len(asked))]


def probe(
    sampler: Sampler,
    reward_model: RewardModel,
    prompts: Sequence[PpoPrompt],
    seeds: Sequence[int],
    agrees: Callable[[str, str], bool],
    max_tokens: int,
) -> list[Probe]:
    """Answer each validation prompt once, at temperature 1."""
    samples = sampler.sample(
        [
            SampleRequest(sampler.prompt_ids(prompt.message), 1.0, max_tokens, seed)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
    )
    proxies = reward_model.scores(prompts, [sample.text for sample in samples]).tolist()
    return [
        Probe(_agreed(prompt, sample, agrees), proxy, len(sample.token_ids))
        for prompt, sample, proxy in zip(prompts, samples, proxies, strict=True)
    ]


def measure(probes: Sequence[Probe]) -> Validation:
    """Agreement with pseudo labels, proxy reward and length of all answers together."""
    agreed = [item.agreed for item in probes]
    return Validation(
        agreement=None
        if all(agree is None for agree in agreed)
        else sum(agree or 0.0 for agree in agreed) / len(agreed),
        proxy=float(torch.tensor([item.proxy for item in probes]).mean()),
        length=sum(item.num_tokens for item in probes) / len(probes),
    )


def _agreed(prompt: PpoPrompt, sample: Sample, agrees: Callable[[str, str], bool]) -> float | None:
    """1 if the sample's answer is the prompt's pseudo label, 0 if not, None without a label."""
    return None if prompt.label is None else float(agrees(sample.text, prompt.label))
