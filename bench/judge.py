"""The stage `judge` beside raw vLLM: `python -m bench.judge --json FILE [--model demo] [--rounds 5]`.

Raw is `LLM.generate` of all requests of the stage in one call, with prefix caching, for one token each and
the log-probabilities of the verdict's words. The stage is timed from completions in the store to its manifest
there, without the start of the engine. Counted are prompt tokens and the verdict's.
"""

import time
from itertools import count
from random import Random

from bench import sides
from bench.measured import Comparison, in_turns, save
from bench.sides import Asked, Grown, Kept, RawVllm
from limbeck.demo import task
from limbeck.manifest import Manifest
from limbeck.records import Completion, row_id
from limbeck.rows import write_rows
from limbeck.storage import Store

PROMPTS: dict[sides.Name, int] = {"demo": 2000, "smollm2": 8}
GROWTH = (25, 250, 2500)
"""Prompts of the demo, ten completions each."""
SAMPLES: dict[sides.Name, int] = {"demo": 10, "smollm2": 4}
ROWS_PER_PART = 2000


def completions(store: Store, given: Asked) -> Manifest:
    """Completions of all prompts as `generate` gives them: right and wrong sums, or sentences."""
    rng = Random(1)  # noqa: S311
    rows = [
        Completion(
            completion_id=row_id(prompt, index),
            prompt_id=row_id(prompt),
            source="teacher",
            text=answer(given, rng),
            answer=None,
            temperature=1.0,
            sample_index=index,
            seed=index,
            logprob=0.0,
            num_prompt_tokens=1,
            num_tokens=1,
            finish_reason="stop",
        )
        for prompt in given.prompts
        for index in range(SAMPLES[given.name])
    ]
    uri = f"s3://bench/completions-{len(rows)}"
    parts = [
        write_rows(store, uri, rows[first : first + ROWS_PER_PART], name=f"part-{first // ROWS_PER_PART:05d}")
        for first in range(0, len(rows), ROWS_PER_PART)
    ]
    return sides.put(store, "generate", "completions", *parts)


def answer(given: Asked, rng: Random) -> str:
    """A text to judge."""
    if given.name == "demo":
        return task.draw_problem(rng, frozenset()).work_out(rng)
    return f"The capital of the country is the city number {rng.randrange(1000)}."


def judged(
    prompts: Manifest, answers: Manifest, kept: Kept, given: Asked, store: Store, work_uri: str
) -> float:
    """Run the stage; its tokens a second."""
    from limbeck.stages.judge import run  # noqa: PLC0415 - reads the environment that `sides` sets

    started = time.monotonic()
    made = run(prompts, answers, "bench", lambda: kept, given.config, store, work_uri)
    tokens = made.metrics["judge/prompt_tokens"] + made.metrics["judge/completion_tokens"]
    return tokens / (time.monotonic() - started)


def speed(name: sides.Name, rounds: int) -> Comparison:
    """Tokens a second of both sides, in turns."""
    given = sides.asked(name, PROMPTS[name])
    with sides.scratch_store() as store, sides.engine(given) as kept:
        prompts, answers = sides.put_prompts(store, given.prompts), completions(store, given)
        raw, turn = RawVllm(given), count()

        def ours() -> float:
            return judged(prompts, answers, kept, given, store, f"s3://bench/{next(turn)}")

        def theirs() -> float:
            made = raw.generate(kept.requests)
            return (made.num_prompt_tokens + made.num_tokens) / made.seconds

        return Comparison(
            what="judge, tokens/s of the whole stage",
            against="raw vLLM with prefix caching",
            model=name,
            unit="tokens/s",
            goal=0.97,
            goal_is="at least",
            pairs=in_turns(ours, theirs, rounds),
            note="from completions in the store to the manifest there; the tokens of all judge prompts and "
            f"verdicts ({name}: {len(kept.requests)})",
        )


def grown(num_prompts: int) -> Grown:
    """The stage at one size."""
    given = sides.asked("demo", num_prompts)
    with sides.scratch_store() as store, sides.engine(given) as kept:
        prompts, answers = sides.put_prompts(store, given.prompts), completions(store, given)
        few = sides.asked("demo", 20)
        judged(prompts, completions(store, few), kept, given, store, "s3://bench/warm")
        rate = judged(prompts, answers, kept, given, store, "s3://bench/work")
        return Grown(rate, sides.peak_mib(), sides.peak_mib(kept.pid))


def main() -> None:
    """Measure and write the file."""
    asked = sides.arguments(GROWTH)
    speeds = tuple(speed(name, asked.rounds) for name in asked.names)
    growths = sides.growths("judge", grown, asked.growth, SAMPLES["demo"])
    save(asked.json, comparisons=speeds, growths=growths)


if __name__ == "__main__":
    main()
