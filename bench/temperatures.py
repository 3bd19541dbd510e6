"""Prompt tokens that an engine computes for several temperatures: `python -m bench.temperatures --json FILE`.

The stage asks for all temperatures of a prompt one after another, in one pass. Beside it: the same requests
with one pass for each temperature. The prefix cache holds a twelfth of the prompts, as in a long run, so
nothing is left of one pass when the next begins. Blocks have 32 tokens, the least on CPUs; GPUs have 16. Only
tokens are counted, so random weights of the demo's shape do.
"""

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from bench import sides
from bench.measured import Comparison, Pair, save
from limbeck import local
from limbeck.config import parse_config
from limbeck.sampling import Sample, SampleRequest

PROMPTS, PROMPT_TOKENS, SAMPLES = 200, range(64, 257), 6
TEMPERATURES = (0.3, 0.7, 1.0)
BLOCK_TOKENS = 32
CACHE_BLOCKS = 85
"""2,720 tokens; all prompts have some 32,000."""
NUM_SEQS = 8


class Listener:
    """A sampler that only notes what a stage asks, and in which order."""

    def __init__(self, rng: Random) -> None:
        """`rng` draws the prompts' lengths."""
        self._rng = rng
        self.requests: list[SampleRequest] = []

    def chat_prompt(self, user_message: str) -> list[int]:
        """Random tokens."""
        return self._rng.choices(range(5, 40), k=self._rng.choice(PROMPT_TOKENS))

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        """Empty answers."""
        for number, request in requests:
            self.requests.append(request)
            yield number, Sample("", [], 0.0, "stop")

    def restart(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def asked(seed: int) -> list[SampleRequest]:
    """What the stage asks of all prompts, in its order."""
    from limbeck.stages.generate import run  # noqa: PLC0415 - reads the environment that `sides` sets

    teacher = {"samples_per_prompt": SAMPLES, "temperatures": TEMPERATURES, "max_tokens": 2}
    config = parse_config({"generate": {"teacher": teacher}})
    listener = Listener(Random(seed))  # noqa: S311
    with sides.scratch_store() as store:
        prompts = sides.put_prompts(store, [f"prompt {number}" for number in range(PROMPTS)])
        run(prompts, "bench", lambda: listener, config, store, "s3://bench/work", role="teacher")
    return listener.requests


def main() -> None:
    """Count and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    os.environ.update(local.environment())

    import vllm  # noqa: PLC0415 - reads its environment when it is imported
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - the same

    with TemporaryDirectory() as folder:
        shape = LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
        )
        LlamaForCausalLM(shape).save_pretrained(folder)
        llm = vllm.LLM(
            model=folder,
            skip_tokenizer_init=True,
            dtype="float32",
            max_model_len=512,
            max_num_seqs=NUM_SEQS,
            block_size=BLOCK_TOKENS,
            num_gpu_blocks_override=CACHE_BLOCKS,
            enforce_eager=True,
            enable_prefix_caching=True,
        )

        def computed(requests: Sequence[SampleRequest]) -> int:
            """Prompt tokens of one pass that are not found in the cache."""
            outputs = llm.generate(
                [{"prompt_token_ids": request.prompt} for request in requests],
                [
                    vllm.SamplingParams(
                        temperature=one.temperature, max_tokens=2, seed=one.seed, detokenize=False
                    )
                    for one in requests
                ],
                use_tqdm=False,
            )
            return sum(len(one.prompt_token_ids) - (one.num_cached_tokens or 0) for one in outputs)

        pairs, shares = [], []
        for seed in range(given.rounds):
            requests = asked(seed)
            llm.reset_prefix_cache()
            ours = computed(requests)
            llm.reset_prefix_cache()
            passes = [[one for one in requests if one.temperature == t] for t in TEMPERATURES]
            pairs.append(Pair(ours=ours, theirs=sum(map(computed, passes))))
            once = sum(len(one.prompt) for one in requests[::SAMPLES])
            shares.append(ours / once)
    row = Comparison(
        what="several temperatures, prompt tokens that the engine computes",
        against="one pass for each temperature",
        model="demo",
        unit="tokens",
        goal=0.5,
        goal_is="at most",
        pairs=tuple(pairs),
        note=f"{PROMPTS} prompts of 64 to 256 random tokens, {SAMPLES} completions at {len(TEMPERATURES)} "
        f"temperatures, random weights; ours is {max(shares):.2f} times the prompts' own tokens: what is in "
        f"the last, partial block of {BLOCK_TOKENS} tokens is computed for each completion",
    )
    save(given.json, comparisons=(row,))


if __name__ == "__main__":
    main()
