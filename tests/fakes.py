"""A scripted sampler: the `StreamingSampler` and `Sampler` protocols without an engine.

Its answers are a function of prompt and seed, as a real engine's are. The same tests' subjects run
on the real engine in tests/test_engine_process.py and tests/test_pipeline.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from limbeck.errors import EngineError
from limbeck.sampling import Sample, SampleRequest


class ScriptedSampler:
    """Answers by a function, newest request first, and has a few requests at once, as an engine has.

    The whole process is killed after a number of answers, or the engine dies of some prompts, if told to.
    """

    def __init__(
        self,
        answer: Callable[[str, int | None], str],
        *,
        die_after: int | None = None,
        deadly: Callable[[str, int | None], bool] = lambda prompt, seed: False,
        at_once: int = 4,
    ) -> None:
        self.answer, self.die_after, self.deadly, self.at_once = answer, die_after, deadly, at_once
        self.answered: list[int] = []
        self.restarts = 0
        self.most_in_flight = 0
        self.closed = False

    def prompt_ids(self, user_message: str) -> list[int]:
        """One token a character, which are easily counted."""
        return [ord(letter) for letter in user_message]

    chat_prompt = prompt_ids

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Sample]]:
        waiting, inside = iter(requests), list[tuple[int, SampleRequest]]()
        while True:
            inside += islice(waiting, self.at_once - len(inside))
            self.most_in_flight = max(self.most_in_flight, len(inside))
            if any(self.deadly(_text(request), request.seed) for _, request in inside):
                raise EngineError("the engine is dead", got="a deadly prompt")
            if not inside:
                return
            if self.die_after is not None and len(self.answered) >= self.die_after:
                raise KeyboardInterrupt
            number, request = inside.pop()
            self.answered.append(number)
            yield number, self._sample(request)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        return [self._sample(request) for request in requests]

    def restart(self) -> None:
        self.restarts += 1

    def close(self) -> None:
        self.closed = True

    def _sample(self, request: SampleRequest) -> Sample:
        text = self.answer(_text(request), request.seed)
        p_first = (0.9 if text == request.verdict[0] else 0.1) if request.verdict else None
        return Sample(text, [1] * len(text), -1.0 if request.logprobs else None, "stop", p_first)


def _text(request: SampleRequest) -> str:
    return "".join(letter if isinstance(letter, str) else chr(letter) for letter in request.prompt)
