"""The stage `generate` beside raw vLLM: `python -m bench.generate --json FILE [--model demo] [--rounds 5]`.

Raw is `LLM.generate` of all requests of the stage in one call, with nothing tokenized, parsed or stored: the
ceiling. The stage is timed from prompts in the store to its manifest there: lease, tokenizing, sampling,
answers, parts, manifest; without the start of the engine. Accepted are all rows that it stores.

Several temperatures: how many tokens of prompts the engine computes when one pass of the stage asks for all
temperatures, and when each has a pass of its own.
"""

import time
from itertools import count

from bench import sides
from bench.measured import Comparison, in_turns, save
from bench.sides import Asked, Grown, Kept, RawVllm
from limbeck.manifest import Manifest
from limbeck.storage import Store

PROMPTS: dict[sides.Name, int] = {"demo": 2000, "smollm2": 24}
GROWTH = (25, 250, 2500)
"""Prompts of the demo, ten completions each."""


def generated(prompts: Manifest, kept: Kept, given: Asked, store: Store, work_uri: str) -> float:
    """Run the stage; its tokens a second."""
    from limbeck.stages.generate import run  # noqa: PLC0415 - reads the environment that `sides` sets

    started = time.monotonic()
    made = run(prompts, "bench", lambda: kept, given.config, store, work_uri, role="teacher")
    return made.metrics["generate/completion_tokens"] / (time.monotonic() - started)


def speed(name: sides.Name, rounds: int) -> Comparison:
    """Tokens a second of both sides, in turns."""
    given = sides.asked(name, PROMPTS[name])
    with sides.scratch_store() as store, sides.engine(given) as kept:
        prompts, raw, turn = sides.put_prompts(store, given.prompts), RawVllm(given), count()

        def ours() -> float:
            return generated(prompts, kept, given, store, f"s3://bench/{next(turn)}")

        def theirs() -> float:
            made = raw.generate(kept.requests)
            return made.num_tokens / made.seconds

        return Comparison(
            what="generate, accepted output tokens/s of the whole stage",
            against="raw vLLM on the same prompts",
            model=name,
            unit="tokens/s",
            goal=0.97,
            goal_is="at least",
            pairs=in_turns(ours, theirs, rounds),
            note="from prompts in the store to the manifest there; the tokens of all completions that are "
            f"stored, and of all that raw vLLM gives ({name}: {len(kept.requests)})",
        )


def grown(num_prompts: int) -> Grown:
    """The stage at one size."""
    given = sides.asked("demo", num_prompts)
    with sides.scratch_store() as store, sides.engine(given) as kept:
        few = sides.put_prompts(store, given.prompts[:20])
        generated(few, kept, given, store, "s3://bench/warm")
        prompts = sides.put_prompts(store, given.prompts)
        rate = generated(prompts, kept, given, store, "s3://bench/work")
        return Grown(rate, sides.peak_mib(), sides.peak_mib(kept.pid))


def main() -> None:
    """Measure and write the file."""
    asked = sides.arguments(GROWTH)
    speeds = tuple(speed(name, asked.rounds) for name in asked.names)
    save(asked.json, comparisons=speeds, growths=sides.growths("generate", grown, asked.growth, 10))


if __name__ == "__main__":
    main()
