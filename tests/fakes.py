"""A scripted sampler: the `Sampler` protocol without an engine, for what no engine can be made to do.

Its answers are a function of prompt and seed, as a real engine's are. The same tests' subjects run
on the real engine in tests/test_sampler.py and tests/test_pipeline.py.
"""

from collections.abc import Callable, Sequence

from limbeck.sampling import Sample, SampleRequest


class ScriptedSampler:
    """Answers by a function; dies after a number of batches if told to."""

    def __init__(self, answer: Callable[[str, int | None], str], *, die_after: int | None = None) -> None:
        self.answer, self.die_after = answer, die_after
        self.batches: list[int] = []
        self.closed = False

    def prompt_ids(self, user_message: str) -> list[int]:
        """One token a character, which are easily counted."""
        return [ord(letter) for letter in user_message]

    def sample(self, requests: Sequence[SampleRequest], *, logprobs: bool = False) -> list[Sample]:
        if self.die_after is not None and len(self.batches) >= self.die_after:
            raise KeyboardInterrupt
        self.batches.append(len(requests))
        samples = []
        for request in requests:
            text = self.answer("".join(map(chr, request.prompt_ids)), request.seed)
            samples.append(Sample(text, [1] * len(text), -1.0 if logprobs else 0.0, "stop"))
        return samples

    def p_yes(self, prompts: Sequence[list[int]], yes: str, no: str) -> list[float]:
        self.batches.append(len(prompts))
        return [0.9 if self.answer("".join(map(chr, ids)), None) == yes else 0.1 for ids in prompts]

    def close(self) -> None:
        self.closed = True
