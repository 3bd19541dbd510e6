"""Verdicts on the answers to open questions that `evaluate` has sampled: the teacher judges each.

They are results of their own, in the parts of the answers.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

from limbeck import lease
from limbeck import settings as deciding
from limbeck.config import Config
from limbeck.errors import DataError
from limbeck.judging import read_verdict, too_long_to_judge, verdict_requests
from limbeck.manifest import Manifest, commit, find_shard, input_hashes, stage_uri
from limbeck.progress import say
from limbeck.records import EvalResult, Prompt
from limbeck.results import Tally, key_of, say_accuracy
from limbeck.rows import is_part, read_part, read_rows
from limbeck.rowwise import make_rows
from limbeck.sampling import OpenSampler, Sample, SampleRequest
from limbeck.shards import Shard, share
from limbeck.shelf import part_number
from limbeck.storage import Store
from limbeck.work import Question, Task, ToPrompt, Work

ANSWERS = "answers"
"""The input of verdicts that names what they are on: the key of the answers."""


class Judge(NamedTuple):
    """The model that judges the answers to open questions."""

    model_hash: str
    """What stands for its weights in the output's key."""
    open_sampler: OpenSampler
    """Loads it; called only when there is work to do."""


def judged_answers(
    heldout: Manifest,
    answered: Manifest,
    judge: Judge,
    config: Config,
    store: Store,
    work_uri: str,
    shard: Shard,
) -> Manifest:
    """The same answers, each right where it is judged good.

    The key of the verdicts names the key of the answers, not their content: that of the whole is not known
    before all shards have answered. So it is checked that verdicts that lie there are on these answers.

    Args:
        heldout: Prompts from `prepare`.
        answered: All answers of a model, or those of the shard.
        judge: Who judges them.
        config: `judge`, `label.min_p_correct`, `task`, `engine` and `generate` are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.
        shard: Which of the tasks that share the prompts.

    Raises:
        DataError: when what lies there are verdicts on other answers.
        LeaseError: when another attempt is at work.
        EngineError: when the engine cannot be kept alive.
        EndpointError: when the server of a black box is away for too long, or refuses.
    """
    started, name = time.monotonic(), answered.name
    stage_name = shard.called(f"evaluate({name})")
    inputs = input_hashes(heldout=heldout) | {
        ANSWERS: answered.uri.rpartition("/")[2],
        "judge": judge.model_hash,
    }
    config_hash = deciding.of_judged_answers(config)
    uri = stage_uri(work_uri, "evaluate", inputs, config_hash)
    objects = [item for item in filter(is_part, answered.objects) if shard.has(part_number(item))]
    rows = {part_number(item): read_part(store, item, EvalResult) for item in objects}
    if complete := find_shard(store, uri, shard):
        _check_same(rows, read_rows(store, complete, EvalResult), uri)
        say(f"{stage_name}: already complete, {complete.num_rows} answers judged")
        return complete

    with lease.held(store, uri, stage_name, shard=shard) as held:
        questions = {row.prompt_id: row.prompt for row in read_rows(store, heldout, Prompt)}
        work = _verdicts(rows, questions, config, shard.called(f"evaluate({name}), judge"), shard)
        made = make_rows(work, judge.open_sampler, config, store, uri, held)
        num_parts = answered.shard.num_parts if answered.shard else sum(map(is_part, answered.objects))
        manifest = answered.model_copy(
            update={
                "uri": uri,
                "objects": made.objects,
                "inputs": inputs,
                "config_hash": config_hash,
                "num_rows": made.num_rows,
                "rejected": dict(Counter(answered.rejected) + Counter(made.reasons)),
                "shard": share(shard, num_parts),
            }
        )
        results = read_rows(store, manifest, EvalResult)
        _check_same(rows, results, uri)
        tally = Tally.of(results)
        metrics = tally.accuracy_metrics(config, name) | tally.judge_metrics(config)
        say_accuracy(metrics, stage_name)
        seconds = answered.wall_seconds + time.monotonic() - started
        taken = {"metrics": metrics, "wall_seconds": seconds}
        return commit(store, manifest.model_copy(update=taken), held)


def _check_same(answers: Mapping[int, Sequence[EvalResult]], judged: Sequence[EvalResult], uri: str) -> None:
    """Every answer has its verdict, and not that of another text.

    Raises:
        DataError: when one has not: the answers were deleted and made anew.
    """
    of_verdict = {"correct": None, "num_judge_prompt_tokens": 0, "num_judge_tokens": 0}
    found = {key_of(row): row.model_copy(update=of_verdict) for row in judged}
    for row in chain.from_iterable(answers.values()):
        if found.get(key_of(row)) != row:
            raise DataError(
                "verdicts on other answers",
                where=f"{uri}, {key_of(row)}",
                expected=repr(row.text)[:80],
                got=repr(found[key_of(row)].text)[:80] if key_of(row) in found else "none",
                remedy="The answers are newer: delete this prefix, and they are judged anew",
            )


def _verdicts(
    rows: Mapping[int, Sequence[EvalResult]],
    questions: dict[str, str],
    config: Config,
    name: str,
    shard: Shard,
) -> Work[EvalResult]:
    """The verdict on each answer, in the parts of the answers.

    One that is absent or was cut off is not good, whatever the judge says.
    """
    part_of = {key_of(row): number for number, part in rows.items() for row in part}

    def task(row: EvalResult, to_prompt: ToPrompt) -> Task[EvalResult]:
        def question() -> Question[EvalResult] | str:
            requests = verdict_requests(questions[row.prompt_id], row.text, to_prompt, config)
            return too_long_to_judge(requests, config) or Question(requests, partial(judged, requests))

        def judged(requests: Sequence[SampleRequest], samples: Sequence[Sample]) -> EvalResult:
            verdict = read_verdict(requests, samples)
            good = (verdict.p_correct or 0.0) >= config.label.min_p_correct
            told = {
                "correct": good and row.answer is not None,
                "num_judge_prompt_tokens": verdict.num_prompt_tokens,
                "num_judge_tokens": verdict.num_tokens,
            }
            return row.model_copy(update=told)

        return Task(
            key=f"answer to {key_of(row)}",
            question=question,
            text=row.text,
            spare=judged((), ()),
        )

    return Work(
        name=name,
        unit="answers",
        row_type=EvalResult,
        sizes={number: len(part) for number, part in rows.items()},
        plan=lambda number, to_prompt: [task(row, to_prompt) for row in rows[number]],
        place=lambda row: (part_of.get(key_of(row), -1), f"answer to {key_of(row)}"),
        shard=shard,
    )
