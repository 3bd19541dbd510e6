"""evaluate: held-out accuracy of one model, greedy and sampled, at the same settings for all models.

One of the two stages that are given gold answers; nothing it makes goes into training. Answers to open
questions (`task.kind: open`) are not compared with gold: a second pass lets the teacher judge them.

It resumes by row, as `generate` does: the key is (prompt, decoding, sample index); the seed follows from
it, and the model's revision, the template and all settings are in the hash of the prefix.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from limbeck import lease
from limbeck import settings as deciding
from limbeck.answers import Same, extract_answer, normalise
from limbeck.comparing import Comparer
from limbeck.config import Config
from limbeck.errors import ConfigError, DataError
from limbeck.judging import read_verdict, too_long_to_judge, verdict_requests
from limbeck.manifest import Manifest, code_version, commit, find, input_hashes, require, stage_uri
from limbeck.progress import say
from limbeck.records import NOT_ASKED, Decoding, EvalResult, GoldAnswer, Prompt, row_id
from limbeck.rows import read_rows
from limbeck.rowwise import Question, Task, ToPrompt, Work, make_rows
from limbeck.sampling import OpenSampler, Sample, SampleRequest, Usage, too_long
from limbeck.spending import Tokens, spent
from limbeck.storage import Store

PROMPTS_PER_PART = 500
DECODINGS: tuple[Decoding, ...] = ("greedy", "sampled")
NO_SAMPLE = Sample(text="", token_ids=[], logprob=None, finish_reason=NOT_ASKED, usage=Usage(0, 0))
"""Of a prompt that is too long, kills the engine, or is refused by a server."""
SPENT = ("evaluate/prompt_tokens", "evaluate/completion_tokens", "evaluate/cost")
JUDGE_SPENT = ("evaluate/judge_prompt_tokens", "evaluate/judge_completion_tokens", "evaluate/judge_cost")


class Judge(NamedTuple):
    """The model that judges the answers to open questions."""

    model_hash: str
    """What stands for its weights in the output's key."""
    open_sampler: OpenSampler
    """Loads it; called only when there is work to do."""


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

    Returns:
        One result for each prompt, decoding and sample; metrics `evaluate/accuracy_greedy` and
        `evaluate/accuracy_sampled` when there is gold, `evaluate/tokens_...` and `evaluate/cut_...`. An
        answer cut off or absent is wrong; a prompt too long for the context is wrong too and counted as set
        aside, and so is one that kills the engine or is refused by a black box. Of an open task, accuracy is
        the share of the answers that are judged good; gold is not read.

    Raises:
        ConfigError: when the task is open and there is no judge.
        LeaseError: when another attempt is at work.
        DataError: when no held-out prompt fits the context.
        EngineError: when the engine cannot be kept alive, or formulas cannot be compared.
        EndpointError: when the server of a black box is away for too long, or refuses.
    """
    if not config.task.is_open:
        return _answered(heldout, gold, model_hash, open_sampler, config, store, work_uri, name)
    if judge is None:
        raise ConfigError(
            "nobody judges the answers",
            where=f"evaluate({name}), parameter judge",
            expected="the teacher: its Hugging Face folder, or its name at its server (task.kind is open)",
            got="none",
            remedy="Give it; the pipelines distill_open and evaluate take it from `teacher`",
        )
    answered = _answered(heldout, gold, model_hash, open_sampler, config, store, work_uri, name)
    return _judged(heldout, answered, judge, config, store, work_uri)


def _answered(
    heldout: Manifest,
    gold: Manifest,
    model_hash: str,
    open_sampler: OpenSampler,
    config: Config,
    store: Store,
    work_uri: str,
    name: str,
) -> Manifest:
    """The answers, compared with gold; those to open questions are neither right nor wrong yet."""
    started = time.monotonic()
    inputs = input_hashes(heldout=heldout, gold=gold) | {"model": model_hash}
    config_hash = deciding.of_evaluate(config, name)
    uri = stage_uri(work_uri, "evaluate", inputs, config_hash)
    if complete := find(store, uri):
        say(f"evaluate({name}): already complete, {complete.num_rows} results")
        return complete

    with lease.held(store, uri, f"evaluate({name})") as held, Comparer(config.task) as comparer:
        require(store, heldout)
        known = [] if config.task.is_open else read_rows(store, gold, GoldAnswer)
        answers = {row.prompt_id: normalise(row.answer, config.task) for row in known}
        prompts = read_rows(store, heldout, Prompt)
        work = _work(prompts, answers, comparer.same, config, name)
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
            num_input_rows=len(prompts),
            num_rows=made.num_rows,
        )
        results = read_rows(store, manifest, EvalResult)
        too_long = {row.prompt_id for row in results if row.sample_index < 0}
        if len(too_long) == len(prompts):
            raise DataError(
                "no held-out prompt fits the context",
                where=heldout.uri,
                expected=f"prompts under {config.engine.max_model_len - config.evaluate.max_tokens} tokens",
                remedy="Raise engine.max_model_len or lower evaluate.max_tokens",
            )
        metrics = _metrics(results, config, name)
        if config.task.kind == "math":
            metrics["evaluate/slow_comparisons"] = float(comparer.num_slow)
        # A prompt that is too long is set aside in both decodings; it counts once.
        rejected = made.reasons | ({"prompt too long": len(too_long)} if too_long else {})
        if config.task.is_open:
            say(f"evaluate({name}): {len(results)} answers, which are to be judged")
        else:
            _say_accuracy(metrics, name)
        return commit(
            store,
            manifest.model_copy(
                update={
                    "metrics": metrics,
                    "rejected": rejected,
                    "wall_seconds": time.monotonic() - started,
                }
            ),
            held,
        )


def _judged(
    heldout: Manifest, answered: Manifest, judge: Judge, config: Config, store: Store, work_uri: str
) -> Manifest:
    """The same answers, each right where it is judged good: results of their own, so answers stay known."""
    started, name = time.monotonic(), answered.name
    inputs = input_hashes(heldout=heldout, answers=answered) | {"judge": judge.model_hash}
    config_hash = deciding.of_judged_answers(config)
    uri = stage_uri(work_uri, "evaluate", inputs, config_hash)
    if complete := find(store, uri):
        say(f"evaluate({name}): already complete, {complete.num_rows} answers judged")
        return complete

    with lease.held(store, uri, f"evaluate({name})") as held:
        questions = {row.prompt_id: row.prompt for row in read_rows(store, heldout, Prompt)}
        rows = read_rows(store, answered, EvalResult)
        made = make_rows(_verdicts(rows, questions, config), judge.open_sampler, config, store, uri, held)
        manifest = answered.model_copy(
            update={
                "uri": uri,
                "objects": made.objects,
                "inputs": inputs,
                "config_hash": config_hash,
                "num_rows": made.num_rows,
                "rejected": dict(Counter(answered.rejected) + Counter(made.reasons)),
            }
        )
        results = read_rows(store, manifest, EvalResult)
        metrics = _metrics(results, config, name) | _of_the_judge(results, config)
        _say_accuracy(metrics, name)
        seconds = answered.wall_seconds + time.monotonic() - started
        taken = {"metrics": metrics, "wall_seconds": seconds}
        return commit(store, manifest.model_copy(update=taken), held)


def _metrics(results: Sequence[EvalResult], config: Config, name: str) -> dict[str, float]:
    """Accuracy, where it is known, and length by decoding; tokens, and of a black box what they cost."""
    metrics = {}
    for decoding in DECODINGS:
        scored = [row.correct for row in results if row.decoding == decoding and row.correct is not None]
        if scored:
            metrics[f"evaluate/accuracy_{decoding}"] = sum(scored) / len(scored)
        asked = [row for row in results if row.decoding == decoding and row.finish_reason != NOT_ASKED]
        if asked:
            metrics[f"evaluate/tokens_{decoding}"] = sum(row.num_tokens for row in asked) / len(asked)
            cut = sum(row.finish_reason == "length" for row in asked)
            metrics[f"evaluate/cut_{decoding}"] = cut / len(asked)
    tokens = Tokens()
    for row in results:
        tokens.add(row)
    return metrics | spent(SPENT, tokens, config.openai if config.asks_a_server(name) else None)


def _of_the_judge(results: Sequence[EvalResult], config: Config) -> dict[str, float]:
    """What the verdicts on all answers took."""
    tokens = Tokens(
        prompt=sum(row.num_judge_prompt_tokens for row in results),
        completion=sum(row.num_judge_tokens for row in results),
    )
    return spent(JUDGE_SPENT, tokens, config.openai if config.asks_a_server("teacher") else None)


def _say_accuracy(metrics: dict[str, float], name: str) -> None:
    shown = ", ".join(
        f"{key.split('_')[-1]} {value:.1%}" for key, value in metrics.items() if "accuracy" in key
    )
    say(f"evaluate({name}): accuracy {shown or 'unknown: there are no gold answers'}")


def _work(
    prompts: list[Prompt], answers: dict[str, str], same: Same, config: Config, name: str
) -> Work[EvalResult]:
    """All answers: first greedy ones, then sampled ones."""
    chunks = [prompts[first : first + PROMPTS_PER_PART] for first in range(0, len(prompts), PROMPTS_PER_PART)]
    parts = [(decoding, chunk) for decoding in DECODINGS for chunk in chunks]
    chunk_of = {row.prompt_id: number // PROMPTS_PER_PART for number, row in enumerate(prompts)}

    def plan(number: int, to_prompt: ToPrompt) -> list[Task[EvalResult]]:
        decoding, chunk = parts[number]
        return [
            task for row in chunk for task in _tasks(row, decoding, to_prompt, answers, same, config, name)
        ]

    def place(row: EvalResult) -> tuple[int, str]:
        part = chunk_of[row.prompt_id] + DECODINGS.index(row.decoding) * len(chunks)
        return part, _key(row.prompt_id, row.decoding, row.sample_index)

    return Work(
        name=f"evaluate({name})",
        unit="answers",
        row_type=EvalResult,
        sizes=[len(chunk) * _num_samples(decoding, config) for decoding, chunk in parts],
        plan=plan,
        place=place,
    )


def _num_samples(decoding: Decoding, config: Config) -> int:
    """Answers of one prompt."""
    return 1 if decoding == "greedy" else config.evaluate.samples_per_prompt


def _key(prompt_id: str, decoding: Decoding, index: int) -> str:
    """The key of one answer, or, with index -1, of a prompt that is not asked."""
    return f"prompt {prompt_id}, {decoding}" + (f" {index}" if index >= 0 else "")


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
            key=_key(prompt.prompt_id, decoding, index),
            question=f"prompt too long: {excess}"
            if excess
            else Question([SampleRequest(asked, temperature, settings.max_tokens, seed)], row),
            text=prompt.prompt,
            spare=result(NO_SAMPLE),
            num_rows=num_samples if excess else 1,
        )


def _verdicts(rows: Sequence[EvalResult], questions: dict[str, str], config: Config) -> Work[EvalResult]:
    """The verdict on each answer; one that is absent or was cut off is not good, whatever the judge says."""
    per_part = config.generate.rows_per_part
    parts = [rows[first : first + per_part] for first in range(0, len(rows), per_part)]

    def key(row: EvalResult) -> str:
        return f"answer to {_key(row.prompt_id, row.decoding, row.sample_index)}"

    part_of = {key(row): number // per_part for number, row in enumerate(rows)}

    def task(row: EvalResult, to_prompt: ToPrompt) -> Task[EvalResult]:
        requests = verdict_requests(questions[row.prompt_id], row.text, to_prompt, config)

        def judged(samples: Sequence[Sample]) -> EvalResult:
            verdict = read_verdict(requests, samples)  # of no samples, where it is set aside
            good = (verdict.p_correct or 0.0) >= config.label.min_p_correct
            told = {
                "correct": good and row.answer is not None,
                "num_judge_prompt_tokens": verdict.num_prompt_tokens,
                "num_judge_tokens": verdict.num_tokens,
            }
            return row.model_copy(update=told)

        return Task(
            key=key(row),
            question=too_long_to_judge(requests, config) or Question(requests, judged),
            text=row.text,
            spare=judged(()),
        )

    return Work(
        name=f"evaluate({rows[0].name}), judge",
        unit="answers",
        row_type=EvalResult,
        sizes=[len(part) for part in parts],
        plan=lambda number, to_prompt: [task(row, to_prompt) for row in parts[number]],
        place=lambda row: (part_of[key(row)], key(row)),
    )
