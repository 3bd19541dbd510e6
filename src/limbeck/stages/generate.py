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
from limbeck.manifest import Manifest, code_version, commit, find, input_hashes, require, stage_uri
from limbeck.progress import say
from limbeck.records import Completion, Prompt, Source, row_id
from limbeck.rows import iter_rows
from limbeck.rowwise import Made, Question, Task, ToPrompt, Work, make_rows
from limbeck.sampling import OpenSampler, Sample, SampleRequest, too_long
from limbeck.spending import spent
from limbeck.storage import Store

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
        LeaseError: when another attempt is at work.
        DataError: when more than `generate.max_bad_fraction` of the completions are set aside.
        EngineError: when the engine cannot be kept alive.
        EndpointError: when the server of a black box is away for too long, or refuses.
    """
    started = time.monotonic()
    stage_name = f"generate({role}{f' {shard + 1}/{num_shards}' if num_shards > 1 else ''})"
    sampling = config.generate.teacher if role == "teacher" else config.generate.student
    inputs = input_hashes(prompts=prompts) | {"model": model_hash}
    config_hash = deciding.of_generate(config, role, shard, num_shards)
    uri = stage_uri(work_uri, "generate", inputs, config_hash)
    if complete := find(store, uri):
        say(f"{stage_name}: already complete, {complete.num_rows} completions")
        return complete

    with lease.held(store, uri, stage_name) as held:
        require(store, prompts)
        # By a hash: prompts of others may have any ids. Row by row: a shard holds no others than its own.
        mine = [
            row
            for row in iter_rows(store, [prompts], Prompt)
            if int(row_id(row.prompt_id), 16) % num_shards == shard
        ]
        work = _work(mine, sampling, config, role, stage_name)
        made = make_rows(work, open_sampler, config, store, uri, held)
        _check(made, len(mine) * sampling.samples_per_prompt, sampling.samples_per_prompt, config)
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
            num_input_rows=len(mine),
            num_rows=made.num_rows,
            rejected=made.reasons,
            metrics=spent(SPENT, made.tokens, server),
            wall_seconds=time.monotonic() - started,
        )
        return commit(store, manifest, held)


def _work(
    prompts: list[Prompt], sampling: SamplingConfig, config: Config, role: Source, stage_name: str
) -> Work[Completion]:
    """All completions, in parts of whole prompts."""
    per_part = max(1, config.generate.rows_per_part // sampling.samples_per_prompt)
    part_of = {row.prompt_id: number // per_part for number, row in enumerate(prompts)}
    parts = [prompts[first : first + per_part] for first in range(0, len(prompts), per_part)]

    def plan(number: int, to_prompt: ToPrompt) -> list[Task[Completion]]:
        return [task for row in parts[number] for task in _tasks(row, to_prompt, sampling, config, role)]

    return Work(
        name=stage_name,
        unit="completions",
        row_type=Completion,
        sizes=[len(part) * sampling.samples_per_prompt for part in parts],
        plan=plan,
        place=lambda row: (part_of[row.prompt_id], f"completion {row.completion_id}"),
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


def _check(made: Made, wanted: int, samples_per_prompt: int, config: Config) -> None:
    """Stop when too much was set aside, in all attempts together.

    Raises:
        DataError: when it was.
    """
    lost = sum(samples_per_prompt if row.where.startswith("prompt ") else 1 for row in made.rejected)
    if lost > config.generate.max_bad_fraction * wanted:
        raise DataError(
            "too many prompts were set aside",
            where=made.rejected[0].where,
            expected=f"at most {config.generate.max_bad_fraction:.0%} (generate.max_bad_fraction)",
            got=f"{lost} of {wanted} completions, the first: {made.rejected[0].reason}",
            remedy="Raise engine.max_model_len, lower generate's max_tokens, or shorten the prompts",
        )
