"""judge: the teacher says of each of its completions whether it is correct.

P(correct) is read from the probabilities of the verdict's first token, so one token a completion is
enough. Source: self-evaluation as in arXiv 2207.05221 (P(True)); that the teacher judges its own
answers is the method's (arXiv 2502.19557); the prompt and this reading of it are ours.
"""

import time
from collections import Counter

from limbeck.config import Config
from limbeck.manifest import Manifest, code_version, commit, digest, find, input_hashes, require, stage_uri
from limbeck.progress import Progress, say
from limbeck.records import Completion, Judgement, Prompt, RejectedRow
from limbeck.rows import finished_parts, read_rows, write_rows
from limbeck.sampling import OpenSampler, Sampler
from limbeck.storage import Store, StoredObject


def run(
    prompts: Manifest,
    completions: Manifest,
    model_hash: str,
    open_sampler: OpenSampler,
    config: Config,
    store: Store,
    work_uri: str,
) -> Manifest:
    """Judge one shard of the teacher's completions.

    Args:
        prompts: From `prepare`.
        completions: From `generate` with the teacher.
        model_hash: What stands for the teacher's weights in the output's key.
        open_sampler: Loads the teacher; called only when there is work to do.
        config: `judge`, `engine.max_model_len` and `generate.rows_per_part` are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.

    Returns:
        A judgement for each completion; one whose judge prompt does not fit the context is taken for
        wrong (P = 0) and also listed as set aside.
    """
    started = time.monotonic()
    inputs = input_hashes(prompts=prompts, completions=completions) | {"model": model_hash}
    config_hash = digest(
        [config.judge.model_dump(), config.engine.max_model_len, config.generate.rows_per_part]
    )
    uri = stage_uri(work_uri, "judge", inputs, config_hash)
    if complete := find(store, uri):
        say(f"judge: already complete, {complete.num_rows} judgements")
        return complete

    require(store, completions)
    questions = {row.prompt_id: row.prompt for row in read_rows(store, prompts, Prompt)}
    rows = read_rows(store, completions, Completion)
    parts = finished_parts(store, uri)
    progress = Progress("judge", len(rows), "completions")
    progress.resume(sum(item.rows for name, item in parts.items() if name.startswith("part-")))
    sampler: Sampler | None = None
    objects: list[StoredObject] = []
    rejected: list[RejectedRow] = []
    per_part = config.generate.rows_per_part
    for number, first in enumerate(range(0, len(rows), per_part)):
        name, bad_name = f"part-{number:05d}", f"rejected-{number:05d}"
        if name in parts and bad_name not in parts:
            objects.append(parts[name])
            continue
        sampler = sampler or open_sampler()
        chunk = rows[first : first + per_part]
        judgements, bad = _judge(chunk, questions, sampler, config)
        if bad:
            rejected += bad
            objects.append(write_rows(store, uri, bad, name=bad_name))
        objects.append(write_rows(store, uri, judgements, name=name))
        progress.add(len(chunk))
    if sampler:
        sampler.close()

    return commit(
        store,
        Manifest(
            stage="judge",
            kind="judgements",
            name="judge",
            uri=uri,
            objects=tuple(objects),
            inputs=inputs,
            config_hash=config_hash,
            code_version=code_version("judge"),
            num_input_rows=len(rows),
            num_rows=len(rows),
            rejected=dict(Counter(item.reason.split(":")[0] for item in rejected)),
            wall_seconds=time.monotonic() - started,
        ),
    )


def _judge(
    rows: list[Completion], questions: dict[str, str], sampler: Sampler, config: Config
) -> tuple[list[Judgement], list[RejectedRow]]:
    """Judge some completions; those whose prompt is too long get P = 0."""
    fitting: list[tuple[Completion, list[int]]] = []
    p_correct = {}
    rejected = []
    room = config.engine.max_model_len - 1
    for row in rows:
        head, _, tail = config.judge.template.partition("{completion}")
        question = questions[row.prompt_id]
        message = head.replace("{prompt}", question) + row.text + tail.replace("{prompt}", question)
        ids = sampler.prompt_ids(message)
        if len(ids) <= room:
            fitting.append((row, ids))
            continue
        p_correct[row.completion_id] = 0.0
        rejected.append(
            RejectedRow(
                where=f"completion {row.completion_id}",
                row=row.text[:500],
                reason=f"judge prompt too long: {len(ids)} tokens, room for {room}",
            )
        )
    verdicts = sampler.p_yes([ids for _, ids in fitting], config.judge.yes, config.judge.no)
    p_correct |= {row.completion_id: p for (row, _), p in zip(fitting, verdicts, strict=True)}
    judgements = [
        Judgement(
            completion_id=row.completion_id, prompt_id=row.prompt_id, p_correct=p_correct[row.completion_id]
        )
        for row in rows
    ]
    return judgements, rejected
