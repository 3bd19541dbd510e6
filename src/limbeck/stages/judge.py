"""judge: the teacher says of each completion whether it is correct or, of an open question, good.

How it is asked, and how its answer is read, is in `limbeck.judging`. Of open questions it judges the
student's answers too.

It resumes by row, as `generate` does: the key is the judged completion's id; the model's revision, the
template and all settings are in the hash of the prefix.
"""

import time
from collections.abc import Sequence
from functools import partial

from limbeck import lease
from limbeck import settings as deciding
from limbeck.config import Config
from limbeck.judging import read_verdict, too_long_to_judge, verdict_requests
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
from limbeck.records import Completion, Judgement, Prompt
from limbeck.rows import is_part, iter_rows, num_rows, read_part
from limbeck.rowwise import make_rows
from limbeck.sampling import OpenSampler, Sample, SampleRequest
from limbeck.shards import WHOLE, Shard, share
from limbeck.spending import spent
from limbeck.storage import Store
from limbeck.work import Question, Task, ToPrompt, Work, reasons

SPENT = ("judge/prompt_tokens", "judge/completion_tokens", "judge/cost")


def run(
    prompts: Manifest,
    completions: Manifest,
    model_hash: str,
    open_sampler: OpenSampler,
    config: Config,
    store: Store,
    work_uri: str,
    *,
    shard: Shard = WHOLE,
) -> Manifest:
    """Judge completions, or one shard of them.

    Args:
        prompts: From `prepare`.
        completions: From `generate`.
        model_hash: What stands for the teacher's weights in the output's key.
        open_sampler: Loads the teacher; called only when there is work to do.
        config: `judge`, `engine`, `task` and `generate.rows_per_part` are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.
        shard: Which of the tasks that share the completions.

    Returns:
        A judgement for each completion, of `judge.votes` verdicts; one whose judge prompt does not fit the
        context, kills the engine, or is refused by a black box, is taken for wrong (P = 0) and also listed as
        set aside. One with no verdict that is either word counts as wrong too.

    Raises:
        LeaseError: when another attempt is at work.
        ConfigError: when `judge.yes` and `judge.no` begin with the same token.
        EngineError: when the engine cannot be kept alive.
        EndpointError: when the server of a black box is away for too long, or refuses.
    """
    started = time.monotonic()
    inputs = input_hashes(prompts=prompts, completions=completions) | {"model": model_hash}
    config_hash = deciding.of_judge(config)
    uri = stage_uri(work_uri, "judge", inputs, config_hash)
    stage_name = shard.called("judge")
    if complete := find_shard(store, uri, shard):
        say(f"{stage_name}: already complete, {complete.num_rows} judgements")
        return complete

    with lease.held(store, uri, stage_name, shard=shard) as held:
        require(store, completions)
        rows, num_parts = _in_parts(completions, config.generate.rows_per_part, store, shard)
        asked = {row.prompt_id for part in rows.values() for row in part}
        questions = {
            row.prompt_id: row.prompt for row in iter_rows(store, [prompts], Prompt) if row.prompt_id in asked
        }
        work = _work(rows, questions, config, stage_name, shard)
        made = make_rows(work, open_sampler, config, store, uri, held)
        server = config.openai if config.asks_a_server("teacher") else None
        manifest = Manifest(
            stage="judge",
            kind="judgements",
            name="judge",
            uri=uri,
            objects=made.objects,
            inputs=inputs,
            config_hash=config_hash,
            code_version=code_version("judge"),
            num_input_rows=sum(map(len, rows.values())),
            num_rows=made.num_rows,
            rejected=made.reasons,
            shard=share(shard, num_parts),
            metrics=spent(SPENT, made.tokens, server),
            wall_seconds=time.monotonic() - started,
        )
        return commit(store, manifest, held)


def merged(shards: Sequence[Manifest], store: Store) -> Manifest:
    """The judgements of all shards, as one task would have given them.

    Args:
        shards: What `run` gave for each shard.
        store: Where the shards lie.

    Raises:
        DataError: when shards are missing or do not belong together.
        LeaseError: when an attempt is at work.
    """
    whole = merge(shards)
    if complete := find(store, whole.uri):
        say(f"merge of judge: already complete, {complete.num_rows} judgements")
        return complete
    by_reason = {"rejected": reasons(rejected_rows(store, whole))}
    return committed(store, whole.model_copy(update=by_reason), "judge")


def _in_parts(
    completions: Manifest, at_most: int, store: Store, shard: Shard
) -> tuple[dict[int, list[Completion]], int]:
    """The completions of a shard by the number of their part, and how many parts all shards have.

    The parts are those of the completions, larger ones in pieces, so that no shard reads what is another's.
    """
    mine: dict[int, list[Completion]] = {}
    number = 0
    for item in filter(is_part, completions.objects):
        starts = range(0, num_rows(store, item), at_most)
        wanted = {part: start for part, start in enumerate(starts, start=number) if shard.has(part)}
        rows = read_part(store, item, Completion) if wanted else []
        mine |= {part: rows[start : start + at_most] for part, start in wanted.items()}
        number += len(starts)
    return mine, number


def _work(
    rows: dict[int, list[Completion]],
    questions: dict[str, str],
    config: Config,
    stage_name: str,
    shard: Shard,
) -> Work[Judgement]:
    """A judgement of each completion of a shard."""
    part_of = {row.completion_id: number for number, part in rows.items() for row in part}

    def plan(number: int, to_prompt: ToPrompt) -> list[Task[Judgement]]:
        return [_task(row, questions[row.prompt_id], to_prompt, config) for row in rows[number]]

    return Work(
        name=stage_name,
        unit="completions",
        row_type=Judgement,
        sizes={number: len(part) for number, part in rows.items()},
        plan=plan,
        place=lambda row: (part_of.get(row.completion_id, -1), f"completion {row.completion_id}"),
        shard=shard,
    )


def _task(row: Completion, asked: str, to_prompt: ToPrompt, config: Config) -> Task[Judgement]:
    """The judgement of one completion."""

    def question() -> Question[Judgement] | str:
        requests = verdict_requests(asked, row.text, to_prompt, config)
        return too_long_to_judge(requests, config) or Question(requests, partial(judgement, requests))

    def judgement(requests: Sequence[SampleRequest], samples: Sequence[Sample]) -> Judgement:
        verdict = read_verdict(requests, samples)
        return Judgement(
            completion_id=row.completion_id,
            prompt_id=row.prompt_id,
            p_correct=verdict.p_correct or 0.0,
            p_yes_first=verdict.p_yes_first,
            p_no_first=verdict.p_no_first,
            num_prompt_tokens=verdict.num_prompt_tokens,
            num_tokens=verdict.num_tokens,
        )

    return Task(
        key=f"completion {row.completion_id}",
        question=question,
        text=row.text,
        spare=judgement((), ()),
    )
