"""generate: a model answers every prompt several times, over a grid of temperatures.

Serves the teacher and, later, the warmed-up student. It resumes by row: `limbeck.rowwise` asks only for
the completions that are missing. Their key is `completion_id`, a hash of (prompt, role, temperature, sample
index, seed); the model's revision, the template and all settings are in the hash of the prefix.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

from limbeck import lease
from limbeck import settings as deciding
from limbeck.answers import extract_answer
from limbeck.config import Config, SamplingConfig
from limbeck.errors import DataError
from limbeck.manifest import (
    Manifest,
    code_version,
    commit,
    find,
    find_shard,
    input_hashes,
    require,
    stage_uri,
)
from limbeck.merging import committed, merge, rejected_rows
from limbeck.progress import say
from limbeck.records import Completion, Prompt, RejectedRow, Source, row_id
from limbeck.rows import is_part, iter_rows, num_rows
from limbeck.rowwise import make_rows
from limbeck.sampling import OpenSampler, Sample, SampleRequest, too_long
from limbeck.shards import WHOLE, Shard, rows_per_part, share
from limbeck.spending import spent
from limbeck.storage import Store
from limbeck.work import Question, Task, ToPrompt, Work, reasons

SPENT = ("generate/prompt_tokens", "generate/completion_tokens", "generate/cost")


def run(
    prompts: Manifest,
    model_hash: str,
    open_sampler: OpenSampler,
    config: Config,
    store: Store,
    work_uri: str,
    *,
    role: Source,
    shard: Shard = WHOLE,
) -> Manifest:
    """Sample completions for all prompts, or one shard of them.

    Args:
        prompts: From `prepare`.
        model_hash: What stands for the model's weights in the output's key.
        open_sampler: Loads the model; called only when there is work to do.
        config: `generate`, `task`, `engine` and the seed are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.
        role: Who answers: `teacher` or `student`.
        shard: Which of the tasks that share the prompts.

    Returns:
        Completions, in prompt order; within a prompt in sample order.

    Raises:
        LeaseError: when another attempt is at work.
        DataError: when more than `generate.max_bad_fraction` of the completions are set aside; of shards,
            `merged` tells.
        EngineError: when the engine cannot be kept alive.
        EndpointError: when the server of a black box is away for too long, or refuses.
    """
    started = time.monotonic()
    stage_name = shard.called(f"generate({role})")
    sampling = config.generate.teacher if role == "teacher" else config.generate.student
    inputs = input_hashes(prompts=prompts) | {"model": model_hash}
    config_hash = deciding.of_generate(config, role)
    uri = stage_uri(work_uri, "generate", inputs, config_hash)
    if complete := find_shard(store, uri, shard):
        say(f"{stage_name}: already complete, {complete.num_rows} completions")
        return complete

    with lease.held(store, uri, stage_name, shard=shard) as held:
        require(store, prompts)
        mine, num_parts = _in_parts(prompts, sampling, config, store, shard)
        work = _work(mine, sampling, config, role, stage_name, shard)
        made = make_rows(work, open_sampler, config, store, uri, held)
        num_prompts = sum(map(len, mine.values()))
        if shard == WHOLE:
            _check(made.rejected, num_prompts, sampling, config)
        server = config.openai if config.asks_a_server(role) else None
        manifest = Manifest(
            stage="generate",
            kind="completions",
            name=role,
            uri=uri,
            objects=made.objects,
            inputs=inputs,
            config_hash=config_hash,
            code_version=code_version("generate"),
            num_input_rows=num_prompts,
            num_rows=made.num_rows,
            rejected=made.reasons,
            shard=share(shard, num_parts),
            metrics=spent(SPENT, made.tokens, server),
            wall_seconds=time.monotonic() - started,
        )
        return commit(store, manifest, held)


def merged(shards: Sequence[Manifest], config: Config, store: Store) -> Manifest:
    """The completions of all shards, as one task would have given them.

    Args:
        shards: What `run` gave for each shard.
        config: `generate` is read.
        store: Where the shards lie.

    Raises:
        DataError: when shards are missing or do not belong together, or more than `generate.max_bad_fraction`
            of the completions are set aside.
        LeaseError: when an attempt is at work.
    """
    whole = merge(shards)
    if complete := find(store, whole.uri):
        say(f"merge of generate({whole.name}): already complete, {complete.num_rows} completions")
        return complete
    aside = rejected_rows(store, whole)
    sampling = config.generate.teacher if whole.name == "teacher" else config.generate.student
    _check(aside, whole.num_input_rows, sampling, config)
    by_reason = {"rejected": reasons(aside)}
    return committed(store, whole.model_copy(update=by_reason), f"generate({whole.name})")


def _in_parts(
    prompts: Manifest, sampling: SamplingConfig, config: Config, store: Store, shard: Shard
) -> tuple[dict[int, list[Prompt]], int]:
    """The prompts of a shard by the number of their part, and how many parts all shards have.

    Row by row: a shard holds no others than its own.
    """
    num_prompts = sum(num_rows(store, item) for item in prompts.objects if is_part(item))
    per_prompt = sampling.samples_per_prompt
    per_part = max(1, rows_per_part(num_prompts * per_prompt, config.generate.rows_per_part) // per_prompt)
    num_parts = -(-num_prompts // per_part)
    mine: dict[int, list[Prompt]] = {part: [] for part in range(num_parts) if shard.has(part)}
    for number, row in enumerate(iter_rows(store, [prompts], Prompt)):
        if number // per_part in mine:
            mine[number // per_part].append(row)
    return mine, num_parts


def _work(
    mine: dict[int, list[Prompt]],
    sampling: SamplingConfig,
    config: Config,
    role: Source,
    stage_name: str,
    shard: Shard,
) -> Work[Completion]:
    """The completions of a shard, in parts of whole prompts."""
    part_of = {row.prompt_id: part for part, rows in mine.items() for row in rows}

    def plan(number: int, to_prompt: ToPrompt) -> list[Task[Completion]]:
        return [task for row in mine[number] for task in _tasks(row, to_prompt, sampling, config, role)]

    return Work(
        name=stage_name,
        unit="completions",
        row_type=Completion,
        sizes={part: len(rows) * sampling.samples_per_prompt for part, rows in mine.items()},
        plan=plan,
        place=lambda row: (part_of.get(row.prompt_id, -1), f"completion {row.completion_id}"),
        shard=shard,
    )


def _tasks(
    prompt: Prompt, to_prompt: ToPrompt, sampling: SamplingConfig, config: Config, role: Source
) -> Iterator[Task[Completion]]:
    """All completions of one prompt; one that is too long for the context is set aside as a whole."""
    asked = to_prompt(config.task.prompt_template.replace("{prompt}", prompt.prompt))
    if excess := too_long(asked, config.engine.max_model_len - sampling.max_tokens):
        yield Task(
            key=f"prompt {prompt.prompt_id}",
            question=f"prompt too long: {excess}",
            text=prompt.prompt,
            num_rows=sampling.samples_per_prompt,
        )
        return
    for index, temperature in enumerate(islice(cycle(sampling.temperatures), sampling.samples_per_prompt)):
        seed = int(row_id(config.seed, role, prompt.prompt_id, temperature, index), 16) % 2**31
        completion_id = row_id(prompt.prompt_id, role, temperature, index, seed)

        def row(
            samples: Sequence[Sample],
            completion_id: str = completion_id,
            temperature: float = temperature,
            index: int = index,
            seed: int = seed,
        ) -> Completion:
            (sample,) = samples
            return Completion(
                completion_id=completion_id,
                prompt_id=prompt.prompt_id,
                source=role,
                text=sample.text,
                answer=extract_answer(sample.text, config.task, finished=sample.finish_reason == "stop"),
                temperature=temperature,
                sample_index=index,
                seed=seed,
                logprob=sample.logprob,
                num_prompt_tokens=sample.num_prompt_tokens(asked),
                num_tokens=sample.num_tokens,
                finish_reason=sample.finish_reason,
            )

        request = SampleRequest(asked, temperature, sampling.max_tokens, seed, sampling.top_p, logprobs=True)
        yield Task(f"completion {completion_id}", Question([request], row), prompt.prompt)


def _check(
    rejected: Sequence[RejectedRow], num_prompts: int, sampling: SamplingConfig, config: Config
) -> None:
    """Stop when too much was set aside, in all attempts together.

    Raises:
        DataError: when it was.
    """
    each = sampling.samples_per_prompt
    lost = sum(each if row.where.startswith("prompt ") else 1 for row in rejected)
    if lost > config.generate.max_bad_fraction * num_prompts * each:
        raise DataError(
            "too many prompts were set aside",
            where=rejected[0].where,
            expected=f"at most {config.generate.max_bad_fraction:.0%} (generate.max_bad_fraction)",
            got=f"{lost} of {num_prompts * each} completions, the first: {rejected[0].reason}",
            remedy="Raise engine.max_model_len, lower generate's max_tokens, or shorten the prompts",
        )
