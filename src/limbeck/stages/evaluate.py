"""evaluate: held-out accuracy of one model, greedy and sampled, at the same settings for all models.

One of the two stages that are given gold answers; nothing it makes goes into training. Answers to open
questions (`task.kind: open`) are not compared with gold: a second pass lets the teacher judge them.

It resumes by row, as `generate` does: the key is (prompt, decoding, sample index); the seed follows from
it, and the model's revision, the template and all settings are in the hash of the prefix.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from limbeck import lease
from limbeck import settings as deciding
from limbeck.answers import Same, extract_answer, normalise
from limbeck.comparing import Comparer
from limbeck.config import Config
from limbeck.errors import ConfigError, DataError
from limbeck.judged_answers import ANSWERS, Judge, judged_answers
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
from limbeck.records import NOT_ASKED, Decoding, EvalResult, GoldAnswer, Prompt, row_id
from limbeck.results import DECODINGS, accuracy_metrics, judge_metrics, key_of, result_key, say_accuracy
from limbeck.rows import read_rows
from limbeck.rowwise import make_rows
from limbeck.sampling import OpenSampler, Sample, SampleRequest, Usage, too_long
from limbeck.shards import WHOLE, Shard, rows_per_part, share
from limbeck.storage import Store
from limbeck.work import Question, Task, ToPrompt, Work, reasons

PROMPTS_PER_PART = 500
NO_SAMPLE = Sample(text="", token_ids=[], logprob=None, finish_reason=NOT_ASKED, usage=Usage(0, 0))
"""Of a prompt that is too long, kills the engine, or is refused by a server."""


def run(
    heldout: Manifest,
    gold: Manifest,
    model_hash: str,
    open_sampler: OpenSampler,
    config: Config,
    store: Store,
    work_uri: str,
    *,
    name: str,
    judge: Judge | None = None,
    shard: Shard = WHOLE,
) -> Manifest:
    """Answer the held-out prompts and compare with gold, or have the answers judged.

    Args:
        heldout: Prompts from `prepare`.
        gold: Gold answers from `prepare`; may be empty.
        model_hash: What stands for the model's weights in the output's key.
        open_sampler: Loads the model; called only when there is work to do.
        config: `evaluate`, `task`, `engine`, `generate.commit_seconds` and the seed are read; of an open task
            `judge`, `label.min_p_correct` and `generate.rows_per_part` too.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.
        name: The model's row in the report.
        judge: Who judges the answers of an open task; not read for others.
        shard: Which of the tasks that share the prompts.

    Returns:
        One result for each prompt, decoding and sample; metrics `evaluate/accuracy_greedy` and
        `evaluate/accuracy_sampled` when there is gold, `evaluate/tokens_...` and `evaluate/cut_...`. An
        answer cut off or absent is wrong; a prompt too long for the context is wrong too and counted as set
        aside, and so is one that kills the engine or is refused by a black box. Of an open task, accuracy is
        the share of the answers that are judged good; gold is not read.

    Raises:
        ConfigError: when the task is open and there is no judge.
        LeaseError: when another attempt is at work.
        DataError: when no held-out prompt fits the context (of shards, `merged` tells), or what lies there
            are verdicts on other answers.
        EngineError: when the engine cannot be kept alive, or formulas cannot be compared.
        EndpointError: when the server of a black box is away for too long, or refuses.
    """
    if not config.task.is_open:
        return _answered(heldout, gold, model_hash, open_sampler, config, store, work_uri, name, shard)
    if judge is None:
        raise ConfigError(
            "nobody judges the answers",
            where=f"evaluate({name}), parameter judge",
            expected="the teacher: its Hugging Face folder, or its name at its server (task.kind is open)",
            got="none",
            remedy="Give it; the pipelines distill_open and evaluate take it from `teacher`",
        )
    answered = _answered(heldout, gold, model_hash, open_sampler, config, store, work_uri, name, shard)
    return judged_answers(heldout, answered, judge, config, store, work_uri, shard)


def merged(shards: Sequence[Manifest], config: Config, store: Store) -> Manifest:
    """The results of all shards, as one task would have given them.

    Args:
        shards: What `run` gave for each shard.
        config: As for `run`.
        store: Where the shards lie.

    Raises:
        DataError: when shards are missing or do not belong together, or no held-out prompt fits the context.
        LeaseError: when an attempt is at work.
    """
    whole = merge(shards)
    name = f"evaluate({whole.name})"
    if complete := find(store, whole.uri):
        say(f"merge of {name}: already complete, {complete.num_rows} results")
        return complete
    results = read_rows(store, whole, EvalResult)
    by_reason = reasons(rejected_rows(store, whole))
    if ANSWERS in whole.inputs:
        answers = _merged_answers(whole, [item.shard for item in shards if item.shard], config, store)
        rejected = dict(Counter(answers.rejected) + Counter(by_reason))
        of_judge = judge_metrics(results, config)
    else:
        _check_fit(results, whole.num_input_rows, whole.uri, config)
        rejected, of_judge = _rejected(results, by_reason), {}
    metrics = whole.metrics | accuracy_metrics(results, config, whole.name) | of_judge
    say_accuracy(metrics, name)
    update = {"metrics": metrics, "rejected": rejected}
    return committed(store, whole.model_copy(update=update), name)


def _merged_answers(verdicts: Manifest, shards: Sequence[Shard], config: Config, store: Store) -> Manifest:
    """The answers that verdicts are on; they lie beside them."""
    uri = f"{verdicts.uri.rpartition('/')[0]}/{verdicts.inputs[ANSWERS]}"
    found = [find_shard(store, uri, shard) for shard in shards]
    return merged([item for item in found if item is not None], config, store)


def _answered(
    heldout: Manifest,
    gold: Manifest,
    model_hash: str,
    open_sampler: OpenSampler,
    config: Config,
    store: Store,
    work_uri: str,
    name: str,
    shard: Shard,
) -> Manifest:
    """The answers, compared with gold; those to open questions are neither right nor wrong yet."""
    started = time.monotonic()
    stage_name = shard.called(f"evaluate({name})")
    inputs = input_hashes(heldout=heldout, gold=gold) | {"model": model_hash}
    config_hash = deciding.of_evaluate(config, name)
    uri = stage_uri(work_uri, "evaluate", inputs, config_hash)
    if complete := find_shard(store, uri, shard):
        say(f"{stage_name}: already complete, {complete.num_rows} results")
        return complete

    with lease.held(store, uri, stage_name, shard=shard) as held, Comparer(config.task) as comparer:
        require(store, heldout)
        known = [] if config.task.is_open else read_rows(store, gold, GoldAnswer)
        answers = {row.prompt_id: normalise(row.answer, config.task) for row in known}
        prompts = read_rows(store, heldout, Prompt)
        parts = _parts(prompts, config)
        mine = {number: part for number, part in enumerate(parts) if shard.has(number)}
        work = _work(mine, answers, comparer.same, config, name, shard)
        made = make_rows(work, open_sampler, config, store, uri, held)

        manifest = Manifest(
            stage="evaluate",
            kind="results",
            name=name,
            uri=uri,
            objects=made.objects,
            inputs=inputs,
            config_hash=config_hash,
            code_version=code_version("evaluate"),
            num_input_rows=sum(len(part) for decoding, part in mine.values() if decoding == DECODINGS[0]),
            num_rows=made.num_rows,
            shard=share(shard, len(parts)),
        )
        results = read_rows(store, manifest, EvalResult)
        if shard == WHOLE:
            _check_fit(results, len(prompts), heldout.uri, config)
        metrics = accuracy_metrics(results, config, name)
        if config.task.kind == "math":
            metrics["evaluate/slow_comparisons"] = float(comparer.num_slow)
        if config.task.is_open:
            say(f"{stage_name}: {len(results)} answers, which are to be judged")
        else:
            say_accuracy(metrics, stage_name)
        taken = {
            "metrics": metrics,
            "rejected": _rejected(results, made.reasons),
            "wall_seconds": time.monotonic() - started,
        }
        return commit(store, manifest.model_copy(update=taken), held)


def _check_fit(results: Sequence[EvalResult], num_prompts: int, where: str, config: Config) -> None:
    """Stop when nothing was asked.

    Raises:
        DataError: when every prompt is too long.
    """
    if len({row.prompt_id for row in results if row.sample_index < 0}) == num_prompts:
        raise DataError(
            "no held-out prompt fits the context",
            where=where,
            expected=f"prompts under {config.engine.max_model_len - config.evaluate.max_tokens} tokens",
            remedy="Raise engine.max_model_len or lower evaluate.max_tokens",
        )


def _rejected(results: Sequence[EvalResult], by_reason: Mapping[str, int]) -> dict[str, int]:
    """What was set aside; a prompt that is too long is so in both decodings, and counts once."""
    too_long = {row.prompt_id for row in results if row.sample_index < 0}
    return {**by_reason, **({"prompt too long": len(too_long)} if too_long else {})}


def _parts(prompts: Sequence[Prompt], config: Config) -> list[tuple[Decoding, Sequence[Prompt]]]:
    """The prompts of each part, and how they are answered: first all greedily, then sampled."""
    each = sum(_num_samples(decoding, config) for decoding in DECODINGS)
    size = max(1, rows_per_part(len(prompts) * each, PROMPTS_PER_PART * each) // each)
    chunks = [prompts[first : first + size] for first in range(0, len(prompts), size)]
    return [(decoding, chunk) for decoding in DECODINGS for chunk in chunks]


def _work(
    parts: Mapping[int, tuple[Decoding, Sequence[Prompt]]],
    answers: dict[str, str],
    same: Same,
    config: Config,
    name: str,
    shard: Shard,
) -> Work[EvalResult]:
    """The answers of a shard."""
    part_of = {
        (row.prompt_id, decoding): number for number, (decoding, chunk) in parts.items() for row in chunk
    }

    def plan(number: int, to_prompt: ToPrompt) -> list[Task[EvalResult]]:
        decoding, chunk = parts[number]
        return [
            task for row in chunk for task in _tasks(row, decoding, to_prompt, answers, same, config, name)
        ]

    return Work(
        name=shard.called(f"evaluate({name})"),
        unit="answers",
        row_type=EvalResult,
        sizes={
            number: len(chunk) * _num_samples(decoding, config) for number, (decoding, chunk) in parts.items()
        },
        plan=plan,
        place=lambda row: (part_of.get((row.prompt_id, row.decoding), -1), key_of(row)),
        shard=shard,
    )


def _num_samples(decoding: Decoding, config: Config) -> int:
    """Answers of one prompt."""
    return 1 if decoding == "greedy" else config.evaluate.samples_per_prompt


def _tasks(
    prompt: Prompt,
    decoding: Decoding,
    to_prompt: ToPrompt,
    answers: dict[str, str],
    same: Same,
    config: Config,
    name: str,
) -> Iterator[Task[EvalResult]]:
    """The answers to one prompt in one decoding."""
    settings = config.evaluate
    asked = to_prompt(config.task.prompt_template.replace("{prompt}", prompt.prompt))
    excess = too_long(asked, config.engine.max_model_len - settings.max_tokens)
    num_samples = _num_samples(decoding, config)
    for index in [-1] if excess else range(num_samples):

        def result(sample: Sample, index: int = index) -> EvalResult:
            gold = answers.get(prompt.prompt_id)
            answer = extract_answer(sample.text, config.task, finished=sample.finish_reason == "stop")
            correct = None if gold is None else answer is not None and same(answer, gold)
            return EvalResult(
                prompt_id=prompt.prompt_id,
                name=name,
                decoding=decoding,
                sample_index=index,
                text=sample.text,
                answer=answer,
                correct=correct,
                num_prompt_tokens=sample.num_prompt_tokens(asked),
                num_tokens=sample.num_tokens,
                finish_reason=sample.finish_reason,
            )

        def row(samples: Sequence[Sample], result: Callable[[Sample], EvalResult] = result) -> EvalResult:
            (sample,) = samples
            return result(sample)

        # The same seed for every model: rows are compared under the same draws.
        seed = int(row_id(config.seed, "evaluate", prompt.prompt_id, index), 16) % 2**31
        temperature = settings.temperature if decoding == "sampled" else 0.0
        yield Task(
            key=result_key(prompt.prompt_id, decoding, index),
            question=f"prompt too long: {excess}"
            if excess
            else Question([SampleRequest(asked, temperature, settings.max_tokens, seed)], row),
            text=prompt.prompt,
            spare=result(NO_SAMPLE),
            num_rows=num_samples if excess else 1,
        )
