"""generate: a model answers every prompt several times, over a grid of temperatures.

Serves the teacher and, later, the warmed-up student. Work is committed part by part; an attempt
that follows a killed one asks only for the parts that are missing, with the same seeds.
"""

import time
from collections import Counter
from itertools import cycle, islice

from limbeck.answers import extract_answer
from limbeck.config import Config, SamplingConfig
from limbeck.errors import DataError
from limbeck.manifest import Manifest, code_version, commit, digest, find, input_hashes, require, stage_uri
from limbeck.progress import Progress, say
from limbeck.records import Completion, Prompt, RejectedRow, Source, row_id
from limbeck.rows import finished_parts, read_rows, write_rows
from limbeck.sampling import OpenSampler, Sampler, SampleRequest
from limbeck.storage import Store, StoredObject


def run(
    prompts: Manifest,
    model_hash: str,
    open_sampler: OpenSampler,
    config: Config,
    store: Store,
    work_uri: str,
    *,
    role: Source,
    shard: int = 0,
    num_shards: int = 1,
) -> Manifest:
    """Sample completions for one shard of the prompts.

    Args:
        prompts: From `prepare`.
        model_hash: What stands for the model's weights in the output's key.
        open_sampler: Loads the model; called only when there is work to do.
        config: `generate`, `task`, `engine` and the seed are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.
        role: Who answers: `teacher` or `student`.
        shard: Which part of the prompts, from 0.
        num_shards: Into how many parts they are split.

    Returns:
        Completions, in prompt order; within a prompt in sample order.

    Raises:
        DataError: when more than `generate.max_bad_fraction` of the prompts are set aside.
    """
    started = time.monotonic()
    stage_name = f"generate({role}{f' {shard + 1}/{num_shards}' if num_shards > 1 else ''})"
    sampling = config.generate.teacher if role == "teacher" else config.generate.student
    inputs = input_hashes(prompts=prompts) | {"model": model_hash}
    config_hash = digest(
        [
            config.seed,
            config.task.model_dump(),
            config.engine.max_model_len,
            sampling.model_dump(),
            config.generate.rows_per_part,
            role,
            shard,
            num_shards,
        ]
    )
    uri = stage_uri(work_uri, "generate", inputs, config_hash)
    if complete := find(store, uri):
        say(f"{stage_name}: already complete, {complete.num_rows} completions")
        return complete

    require(store, prompts)
    # By a hash: prompts of others may have any ids.
    mine = [
        row
        for row in read_rows(store, prompts, Prompt)
        if int(row_id(row.prompt_id), 16) % num_shards == shard
    ]
    parts = finished_parts(store, uri)
    progress = Progress(stage_name, len(mine) * sampling.samples_per_prompt, "completions")
    progress.resume(sum(item.rows for name, item in parts.items() if name.startswith("part-")))
    sampler: Sampler | None = None
    objects: list[StoredObject] = []
    rejected: list[RejectedRow] = []
    per_part = max(1, config.generate.rows_per_part // sampling.samples_per_prompt)
    for number in range(0, max(1, -(-len(mine) // per_part))):
        name, bad_name = f"part-{number:05d}", f"rejected-{number:05d}"
        if name in parts and bad_name not in parts:
            objects.append(parts[name])
            continue
        sampler = sampler or open_sampler()
        chunk = mine[number * per_part : (number + 1) * per_part]
        rows, bad = _answer(chunk, sampler, sampling, config, role)
        if bad:
            rejected += bad
            objects.append(write_rows(store, uri, bad, name=bad_name))
        if rows:
            objects.append(write_rows(store, uri, rows, name=name))
        progress.add(len(chunk) * sampling.samples_per_prompt, f"{sum(r.num_tokens for r in rows)} tokens")
    if sampler:
        sampler.close()

    if len(rejected) > config.generate.max_bad_fraction * len(mine):
        raise DataError(
            "too many prompts were set aside",
            where=rejected[0].where,
            expected=f"at most {config.generate.max_bad_fraction:.0%} (generate.max_bad_fraction)",
            got=f"{len(rejected)} of {len(mine)}, the first: {rejected[0].reason}",
            remedy="Raise engine.max_model_len, lower generate's max_tokens, or shorten the prompts",
        )
    kept = [item for item in objects if "/part-" in item.uri]
    return commit(
        store,
        Manifest(
            stage="generate",
            kind="completions",
            name=role,
            uri=uri,
            objects=tuple(objects),
            inputs=inputs,
            config_hash=config_hash,
            code_version=code_version("generate"),
            num_input_rows=len(mine),
            num_rows=sum(item.rows for item in kept),
            rejected=dict(Counter(item.reason.split(":")[0] for item in rejected)),
            wall_seconds=time.monotonic() - started,
        ),
    )


def _answer(
    prompts: list[Prompt], sampler: Sampler, sampling: SamplingConfig, config: Config, role: Source
) -> tuple[list[Completion], list[RejectedRow]]:
    """Sample all completions of some prompts; prompts too long for the context are set aside."""
    asked: list[tuple[Prompt, int, SampleRequest]] = []
    rejected = []
    room = config.engine.max_model_len - sampling.max_tokens
    for prompt in prompts:
        ids = sampler.prompt_ids(config.task.prompt_template.replace("{prompt}", prompt.prompt))
        if len(ids) > room:
            rejected.append(
                RejectedRow(
                    where=f"prompt {prompt.prompt_id}",
                    row=prompt.prompt[:500],
                    reason=f"prompt too long: {len(ids)} tokens, room for {room}",
                )
            )
            continue
        grid = islice(cycle(sampling.temperatures), sampling.samples_per_prompt)
        for index, temperature in enumerate(grid):
            seed = int(row_id(config.seed, role, prompt.prompt_id, temperature, index), 16) % 2**31
            request = SampleRequest(ids, temperature, sampling.max_tokens, seed, sampling.top_p)
            asked.append((prompt, index, request))
    samples = sampler.sample([request for _, _, request in asked], logprobs=True)
    rows = [
        Completion(
            completion_id=row_id(prompt.prompt_id, role, request.temperature, index, request.seed or 0),
            prompt_id=prompt.prompt_id,
            source=role,
            text=sample.text,
            answer=extract_answer(sample.text, config.task),
            temperature=request.temperature,
            sample_index=index,
            seed=request.seed or 0,
            logprob=sample.logprob,
            num_tokens=len(sample.token_ids),
            finish_reason=sample.finish_reason,
        )
        for (prompt, index, request), sample in zip(asked, samples, strict=True)
    ]
    return rows, rejected
