"""The stage `generate` beside raw vLLM, on the same prompts, settings and engine.

    python -m bench.generate_speed [--prompts 100] [--samples 10] [--width 256] [--pairs 5]

Raw is `LLM.generate` of all completions in one call, with nothing tokenized, parsed or stored: the ceiling.
The stage tokenizes, streams, parses answers, and commits parts to an embedded S3 server. Each side has one
engine, which the pairs share; the two take turns, so that they meet the same load of the machine. Both are
timed from prompts to finished rows, without the start of their engines. CPU seconds are those of all
processes of a side: on a machine that others use too they say more than seconds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from limbeck import local, seaweed
from limbeck.config import ModelConfig, parse_config
from limbeck.manifest import Manifest, commit
from limbeck.records import Prompt
from limbeck.rows import write_rows
from limbeck.sampling import Answer, ChatPrompt, SampleRequest, StreamingSampler
from limbeck.storage import Store

MODEL = ModelConfig(dtype="float32" if not local.has_gpu() else "bfloat16")
LETTERS = "abcdefghijklmnopqrstuvw"


@dataclass(frozen=True)
class Kept:
    """A sampler that a stage does not close: the next pair uses it again."""

    sampler: StreamingSampler

    def chat_prompt(self, user_message: str) -> ChatPrompt:
        """As it does."""
        return self.sampler.chat_prompt(user_message)

    def stream(self, requests: Iterable[tuple[int, SampleRequest]]) -> Iterator[tuple[int, Answer]]:
        """As it does."""
        return self.sampler.stream(requests)

    def restart(self) -> None:
        """As it does."""
        self.sampler.restart()

    def close(self) -> None:
        """Nothing."""


def cpu_seconds(pid: int) -> float:
    """What a process has used by now."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prompts(store: Store, count: int) -> tuple[Manifest, list[Prompt]]:
    """Prompts that differ."""
    rows = [
        Prompt(prompt_id=f"{n:016x}", prompt=" ".join(LETTERS[n // 23**k % 23] for k in range(4)))
        for n in range(count)
    ]
    uri = "s3://bench/prompts"
    manifest = Manifest(
        stage="prepare",
        kind="prompts",
        name="prompts",
        uri=uri,
        objects=(write_rows(store, uri, rows),),
        inputs={},
        config_hash="",
        code_version="",
        num_rows=count,
    )
    return commit(store, manifest), rows


def main() -> None:
    """Print the seconds of each pair, and the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    os.environ.update(local.environment())

    import vllm  # noqa: PLC0415 - reads its environment when it is imported

    from limbeck.engine_process import EngineProcess  # noqa: PLC0415 - the same
    from limbeck.stages import generate  # noqa: PLC0415 - the same
    from tests import tiny  # noqa: PLC0415 - the same

    config = parse_config(
        {
            "generate": {"teacher": {"samples_per_prompt": asked.samples, "max_tokens": 64}},
            "engine": {"max_model_len": 128, "kv_cache_mib": 256, "enforce_eager": True, "max_num_seqs": 64},
        }
    )
    engine, sampling = config.engine, config.generate.teacher
    with tempfile.TemporaryDirectory() as scratch, seaweed.serve(Path(scratch) / "store") as store:
        store.make_bucket("s3://bench")
        manifest, rows = prompts(store, asked.prompts)
        folder = tiny.checkpoint(Path(scratch) / "model", width=asked.width)
        process = EngineProcess(folder, MODEL, engine)
        raw = vllm.LLM(
            model=str(folder),
            dtype=MODEL.dtype,
            max_model_len=engine.max_model_len,
            max_num_seqs=engine.max_num_seqs,
            enforce_eager=True,
            kv_cache_memory_bytes=256 << 20,
            enable_prefix_caching=True,
            disable_log_stats=True,
        )
        ids = [{"prompt_token_ids": process.chat_prompt(row.prompt)} for row in rows]
        inputs = [item for item in ids for _ in range(asked.samples)]
        temperatures = [sampling.temperatures[n % len(sampling.temperatures)] for n in range(asked.samples)]
        params = [
            vllm.SamplingParams(temperature=t, max_tokens=64, seed=n * 100 + k, logprobs=0)
            for n in range(asked.prompts)
            for k, t in enumerate(temperatures)
        ]
        times: list[tuple[float, float]] = []
        cpu_times: list[tuple[float, float]] = []
        for pair in range(asked.pairs + 1):
            started, cpu_started = time.monotonic(), time.process_time()
            outputs = raw.generate(inputs, params, use_tqdm=False)
            middle, cpu_middle = time.monotonic(), time.process_time()
            cpu_engine = cpu_seconds(process.pid)
            made = generate.run(
                manifest, "m", lambda: Kept(process), config, store, f"s3://bench/{pair}", role="teacher"
            )
            end = time.monotonic()
            cpu = time.process_time() - cpu_middle + cpu_seconds(process.pid) - cpu_engine
            num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
            shown = f"{num_tokens} tokens, {made.num_rows} rows"
            print(f"raw {middle - started:.2f} s, stage {end - middle:.2f} s, {shown}")
            if pair:  # the first one warms up
                times.append((middle - started, end - middle))
                cpu_times.append((cpu_middle - cpu_started, cpu))
        process.close()
    for unit, pairs in (("s", times), ("CPU s", cpu_times)):
        raw_side, stage_side = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        print(f"medians: raw {raw_side:.2f} {unit}, stage {stage_side:.2f} {unit}; raw / stage {ratio:.2f}")


if __name__ == "__main__":
    main()
