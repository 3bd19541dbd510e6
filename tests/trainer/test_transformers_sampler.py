"""Rollouts by the forward pass of transformers, beside those of the real vLLM engine, on tiny models."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from limbeck.config import Chat, parse_config
from limbeck.refining import open_policy
from limbeck.sampler import VllmSampler
from limbeck.sampling import SampleRequest
from limbeck.trainer.transformers_sampler import TransformersSampler
from tests import tiny
from tests.trainer.conftest import PROMPTS
from tests.trainer.test_group_relative import train


@pytest.fixture
def generating(student: Path) -> Iterator[TransformersSampler]:
    sampler = TransformersSampler(student, "float32", 8, Chat())
    yield sampler
    sampler.close()


def requests(sampler: TransformersSampler, **settings: float) -> list[SampleRequest]:
    """Prompts of several lengths, one seed each."""
    messages = [f"{'a ' * (number % 4)}{prompt.message}" for number, prompt in enumerate(PROMPTS)]
    asked = SampleRequest([], 1.0, 12, logprobs=True, token_logprobs=True)
    return [
        replace(asked, prompt=sampler.prompt_ids(message), seed=number, **settings)  # type: ignore[arg-type]
        for number, message in enumerate(messages)
    ]


def test_the_likeliest_answers_are_those_of_vllm(
    generating: TransformersSampler, sampler: VllmSampler, tmp_path: Path
) -> None:
    folder = tiny.checkpoint(tmp_path / "ends-some", seed=1)
    generating.load_weights(folder)
    sampler.load_weights(folder)
    ours = generating.sample(requests(generating, temperature=1e-6))
    theirs = sampler.sample(requests(generating, temperature=0.0))
    assert {sample.finish_reason for sample in theirs} == {"stop", "length"}
    assert [generating.prompt_ids(prompt.message) for prompt in PROMPTS] == [
        sampler.prompt_ids(prompt.message) for prompt in PROMPTS
    ]
    for one, other in zip(ours, theirs, strict=True):
        assert (one.token_ids, one.text, one.finish_reason) == (
            other.token_ids,
            other.text,
            other.finish_reason,
        )
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)


def test_padding_shifts_no_position_of_a_model_that_learns_one_by_one_and_none_is_past_its_last(
    tmp_path: Path,
) -> None:
    torch.manual_seed(1)
    room = 16
    shape = GPT2Config(
        vocab_size=len(tiny.WORDS),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=room,
        initializer_range=0.5,
        eos_token_id=tiny.END,
    )
    model = GPT2LMHeadModel(shape).eval()
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    # One prompt is long: alone in a batch of all, it would not leave at once when it has ended.
    sampler = TransformersSampler(tmp_path, "float32", 32, Chat())
    first, *others = requests(sampler, temperature=1e-6)
    longest = replace(first, prompt=sampler.prompt_ids("a " * 10))
    asked = [replace(request, max_tokens=room - len(request.prompt)) for request in (longest, *others)]
    assert asked[0].max_tokens < min(request.max_tokens for request in asked[1:])
    for request, sample in zip(asked, sampler.sample(asked), strict=True):
        ids = torch.tensor([request.prompt])
        alone = model.generate(ids, max_new_tokens=request.max_tokens, do_sample=False, pad_token_id=0)
        assert sample.token_ids == alone[0, ids.shape[1] :].tolist()


def test_tokens_are_drawn_as_often_as_the_policy_says(student: Path) -> None:
    """20,000 answers of two tokens at temperature 2: each share within five standard errors."""
    sampler, policy = (
        TransformersSampler(student, "float32", 5000, Chat()),
        AutoModelForCausalLM.from_pretrained(student),
    )
    ids = sampler.prompt_ids("sum a b")
    samples = sampler.sample([SampleRequest(ids, 2.0, 2, seed) for seed in range(20_000)])
    first = Counter(sample.token_ids[0] for sample in samples)
    usual = next(token for token, _ in first.most_common() if token != tiny.END)
    second = Counter(sample.token_ids[1] for sample in samples if sample.token_ids[0] == usual)
    for before, drawn in ((ids, first), ([*ids, usual], second)):
        with torch.no_grad():
            logits = policy(torch.tensor([before])).logits[0, -1]
        for token, share in enumerate((logits / 2).softmax(0).tolist()):
            near = 5 * (share / drawn.total()) ** 0.5
            assert drawn[token] / drawn.total() == pytest.approx(share, abs=near), token


def test_an_answer_depends_on_its_seed_and_on_nothing_that_shares_its_batch(
    generating: TransformersSampler, student: Path
) -> None:
    asked = requests(generating)
    together = generating.sample(asked)
    alone = TransformersSampler(student, "float32", 1, Chat()).sample(asked)
    assert [sample.token_ids for sample in alone] == [sample.token_ids for sample in together]
    others = generating.sample([replace(request, seed=number + 100) for number, request in enumerate(asked)])
    assert [sample.token_ids for sample in others] != [sample.token_ids for sample in together]
    assert [number for number, _ in generating.stream(enumerate(asked, start=5))] == list(range(5, 37))


def test_answers_end_where_the_checkpoint_says_and_are_cut_at_their_own_limit(
    student: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(student)
    letter = tiny.WORDS.index("a")
    model.generation_config.eos_token_id = [tiny.END, letter]
    # None of these are of a rollout: its seed and temperature alone decide.
    model.generation_config.update(do_sample=True, top_k=1, repetition_penalty=9.0, num_beams=2)
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    asked = requests(sampler := TransformersSampler(tmp_path, "float32", 32, Chat()))
    ended = sampler.sample(asked)
    free = TransformersSampler(student, "float32", 32, Chat()).sample(asked)
    assert any(letter in sample.token_ids for sample in free)
    for one, other in zip(ended, free, strict=True):
        stop = other.token_ids.index(letter) + 1 if letter in other.token_ids else len(other.token_ids)
        assert one.token_ids == other.token_ids[:stop]
        assert one.token_logprobs == pytest.approx((other.token_logprobs or [])[:stop], abs=1e-5)
        if one.token_ids[-1] == letter:
            assert (one.finish_reason, one.text.split().count("a")) == ("stop", 0)
    limits = [replace(request, max_tokens=1 + number % 12) for number, request in enumerate(asked)]
    for limit, one, other in zip(limits, sampler.sample(limits), ended, strict=True):
        assert one.token_ids == other.token_ids[: limit.max_tokens]
        assert one.finish_reason == ("stop" if one.token_ids[-1] in (tiny.END, letter) else "length")


def test_samples_follow_new_weights(generating: TransformersSampler, tmp_path: Path) -> None:
    asked = requests(generating)
    before = generating.sample(asked)
    other = tiny.checkpoint(tmp_path / "other", seed=4)
    generating.load_weights(other)
    after = generating.sample(asked)
    assert after != before
    assert after == TransformersSampler(other, "float32", 8, Chat()).sample(asked)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_the_policy_learns_from_its_newest_answers_and_their_logprobs_are_the_trainers(
    algorithm: str, generating: TransformersSampler, student: Path, reward_folder: Path, tmp_path: Path
) -> None:
    runs = {}
    for source in ("trainer", "engine"):
        generating.load_weights(student)
        runs[source] = train(
            tmp_path / source, student, reward_folder, generating, algorithm, old_logprobs=source
        )
    steps = [entry for entry in runs["engine"].course.history if "ppo/score" in entry]
    assert steps[-1]["ppo/batch_agreement"] > steps[0]["ppo/batch_agreement"] + 0.3
    computed = [entry for entry in runs["trainer"].course.history if "ppo/score" in entry]
    for one, other in zip(steps[:4], computed[:4], strict=True):  # later a rounded one draws another token
        for name in ("ppo/policy_loss", "ppo/kl", "ppo/score", "ppo/length"):
            assert one[name] == pytest.approx(other[name], abs=1e-3), name


def test_the_setting_decides_who_samples(student: Path, generating: TransformersSampler) -> None:
    settings = {
        "student": {"dtype": "float32"},
        "task": {"system_prompt": "judge"},
        "engine": {"max_num_seqs": 3},
    }
    opened: list[Path] = []

    def open_vllm(folder: Path) -> TransformersSampler:
        opened.append(folder)
        return generating

    assert open_policy(student, open_vllm, parse_config(settings)) is generating
    assert opened == [student]
    other = open_policy(student, open_vllm, parse_config(settings | {"ppo": {"sampler": "transformers"}}))
    assert isinstance(other, TransformersSampler)
    assert opened == [student]
    assert tiny.WORDS.index("judge") in other.prompt_ids("a")
    waiting = iter(enumerate(requests(other)))
    next(other.stream(waiting))
    assert next(waiting)[0] == 3, "as many are taken as are sampled at once"
