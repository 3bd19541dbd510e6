"""judge: the teacher says of each completion whether it is correct or, of an open question, good.

How it is asked, and how its answer is read, is in `limbeck.judging`. Of open questions it judges the
student's answers too.

It resumes by row, as `generate` does: the key is the judged completion's id; the model's revision, the
template and all settings are in the hash of the prefix.
"""

import time
from collections.abc import Sequence

from limbeck import lease
from limbeck import settings as deciding
from limbeck.config import Config
from limbeck.judging import read_verdict, too_long_to_judge, verdict_requests
from limbeck.manifest import Manifest, code_version, commit, find, input_hashes, require, stage_uri
from limbeck.progress import say
from limbeck.records import Completion, Judgement, Prompt
from limbeck.rows import read_rows
from limbeck.rowwise import Question, Task, ToPrompt, Work, make_rows
from limbeck.sampling import OpenSampler, Sample
from limbeck.spending import spent
from limbeck.storage import Store

SPENT = ("judge/prompt_tokens", "judge/completion_tokens", "judge/cost")


def run(
    prompts: Manifest,
    completions: Manifest,
    model_hash: str,
    open_sampler: OpenSampler,
    config: Config,
    store: Store,
    work_uri: str,
) -> Manifest:
    """Judge one shard of completions.

    Args:
        prompts: From `prepare`.
        completions: From `generate`.
        model_hash: What stands for the teacher's weights in the output's key.
        open_sampler: Loads the teacher; called only when there is work to do.
        config: `judge`, `engine`, `task` and `generate.rows_per_part` are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.

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
    if complete := find(store, uri):
        say(f"judge: already complete, {complete.num_rows} judgements")
        return complete

    with lease.held(store, uri, "judge") as held:
        require(store, completions)
        questions = {row.prompt_id: row.prompt for row in read_rows(store, prompts, Prompt)}
        rows = read_rows(store, completions, Completion)
        made = make_rows(_work(rows, questions, config), open_sampler, config, store, uri, held)
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
            num_input_rows=len(rows),
            num_rows=made.num_rows,
            rejected=made.reasons,
            metrics=spent(SPENT, made.tokens, server),
            wall_seconds=time.monotonic() - started,
        )
        return commit(store, manifest, held)


def _work(rows: list[Completion], questions: dict[str, str], config: Config) -> Work[Judgement]:
    """A judgement of each completion."""
    per_part = config.generate.rows_per_part
    part_of = {row.completion_id: number // per_part for number, row in enumerate(rows)}
    parts = [rows[first : first + per_part] for first in range(0, len(rows), per_part)]

    def plan(number: int, to_prompt: ToPrompt) -> list[Task[Judgement]]:
        return [_task(row, questions[row.prompt_id], to_prompt, config) for row in parts[number]]

    return Work(
        name="judge",
        unit="completions",
        row_type=Judgement,
        sizes=[len(part) for part in parts],
        plan=plan,
        place=lambda row: (part_of[row.completion_id], f"completion {row.completion_id}"),
    )


def _task(row: Completion, asked: str, to_prompt: ToPrompt, config: Config) -> Task[Judgement]:
    """The judgement of one completion."""
    requests = verdict_requests(asked, row.text, to_prompt, config)

    def judgement(samples: Sequence[Sample]) -> Judgement:
        verdict = read_verdict(requests, samples)  # of no samples, where it is set aside
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
        question=too_long_to_judge(requests, config) or Question(requests, judgement),
        text=row.text,
        spare=judgement(()),
    )
