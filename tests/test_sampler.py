"""The real vLLM engine on tiny checkpoints, against transformers."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from limbeck.errors import ConfigError, EngineError
from limbeck.sampler import VllmSampler
from limbeck.sampling import SampleRequest
from tests import tiny
from tests.engines import open_sampler


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two checkpoints with tied and two with untied embeddings."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        f"{kind}{seed}": tiny.checkpoint(root / f"{kind}{seed}", seed, tied=kind == "tied")
        for kind in ("tied", "untied")
        for seed in (0, 1)
    }


@pytest.fixture(scope="module", params=["tied", "untied"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sampler(folders: dict[str, Path], kind: str, engines: dict[str, VllmSampler]) -> VllmSampler:
    """One engine for each kind of checkpoint, always with its first weights."""
    if kind not in engines:
        engines[kind] = open_sampler(folders[f"{kind}0"])
    engines[kind].load_weights(folders[f"{kind}0"])
    return engines[kind]


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, VllmSampler]]:
    started: dict[str, VllmSampler] = {}
    yield started
    for engine in started.values():
        engine.close()


def logprobs(folder: Path, ids: list[int]) -> torch.Tensor:
    """Log-probabilities of the next token after each position, by transformers."""
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0]
    return torch.as_tensor(logits).log_softmax(-1)


def p_yes(sampler: VllmSampler, prompts: list[list[int]]) -> list[float | None]:
    """P(yes) against no, by the engine."""
    requests = [SampleRequest(ids, 0.0, 1, verdict=("yes", "no")) for ids in prompts]
    return [sample.p_first for sample in sampler.sample(requests)]


def greedy(folder: Path, ids: list[int], count: int) -> list[int]:
    """Greedy continuation by transformers, up to the end token."""
    out: list[int] = []
    while len(out) < count and (not out or out[-1] != tiny.END):
        out.append(int(logprobs(folder, ids + out)[-1].argmax()))
    return out


def test_greedy_tokens_are_those_of_transformers(
    sampler: VllmSampler, folders: dict[str, Path], kind: str
) -> None:
    prompts = [sampler.prompt_ids(f"sum {a} {b}") for a in "abc" for b in "xyz"]
    samples = sampler.sample([SampleRequest(ids, 0.0, 6) for ids in prompts])
    assert [sample.token_ids for sample in samples] == [
        greedy(folders[f"{kind}0"], ids, 6) for ids in prompts
    ]


def test_the_logprob_is_that_of_the_sampled_tokens_at_temperature_one(
    sampler: VllmSampler, folders: dict[str, Path], kind: str
) -> None:
    ids = sampler.prompt_ids("sum a b c")
    (sample,) = sampler.sample([SampleRequest(ids, 0.5, 6, seed=3, logprobs=True)])
    whole = logprobs(folders[f"{kind}0"], ids + sample.token_ids)
    expected = sum(float(whole[len(ids) - 1 + n, token]) for n, token in enumerate(sample.token_ids))
    assert sample.logprob == pytest.approx(expected, abs=1e-3)


def test_a_seed_gives_the_same_sample_in_any_batch(sampler: VllmSampler) -> None:
    ids = sampler.prompt_ids("sum a b c")
    alone = sampler.sample([SampleRequest(ids, 1.0, 10, seed=7)])[0].text
    crowd = sampler.sample([SampleRequest(ids, 1.0, 10, seed=seed) for seed in range(20)])
    assert crowd[7].text == alone
    assert len({sample.text for sample in crowd}) > 10


def test_a_prompt_that_a_step_has_no_room_for_waits_for_the_next_one(sampler: VllmSampler) -> None:
    """4096 tokens a step on CPUs, where a seeded request must not lie across two."""
    draw = random.Random(1)  # noqa: S311
    prompts = [draw.choices(range(5, 20), k=47) for _ in range(120)]
    requests = [SampleRequest(ids, 1.0, 4, seed) for seed, ids in enumerate(prompts)]
    together = sampler.sample(requests)
    for number in (0, 86, 87, 88, 119):
        assert sampler.sample([requests[number]])[0].token_ids == together[number].token_ids


def test_the_verdict_is_the_probability_of_its_first_token(
    sampler: VllmSampler, folders: dict[str, Path], kind: str
) -> None:
    prompts = [sampler.prompt_ids(f"judge sum {letter} : = b") for letter in "abcdef"]
    yes, no = (tiny.WORDS.index(word) for word in ("yes", "no"))
    for ids, got in zip(prompts, p_yes(sampler, prompts), strict=True):
        last = logprobs(folders[f"{kind}0"], ids)[-1].exp()
        assert got == pytest.approx(float(last[yes] / (last[yes] + last[no])), abs=1e-3)


def test_verdict_words_must_differ(sampler: VllmSampler) -> None:
    with pytest.raises(ConfigError, match=r"begin with the same token in judge\.yes, judge\.no"):
        sampler.sample([SampleRequest([1], 0.0, 1, verdict=("yes", "yes"))])


def test_new_weights_in_place_give_what_a_fresh_engine_gives(
    sampler: VllmSampler, folders: dict[str, Path], kind: str
) -> None:
    """Also with tied embeddings, whose packed copy a plain `reload_weights` leaves old on CPUs."""
    prompts = [sampler.prompt_ids(f"sum {a} b c") for a in "abcdef"]
    old = p_yes(sampler, prompts)
    sampler.load_weights(folders[f"{kind}1"])
    new = p_yes(sampler, prompts)
    assert new != pytest.approx(old, abs=0.01)
    yes, no = (tiny.WORDS.index(word) for word in ("yes", "no"))
    for ids, got in zip(prompts, new, strict=True):
        last = logprobs(folders[f"{kind}1"], ids)[-1].exp()
        assert got == pytest.approx(float(last[yes] / (last[yes] + last[no])), abs=1e-3)


def test_a_folder_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(EngineError, match=r"vLLM cannot load the model in .*Check the checkpoint") as caught:
        open_sampler(tmp_path)
    assert "\n" not in str(caught.value)
