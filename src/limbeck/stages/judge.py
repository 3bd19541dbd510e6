"""judge: the teacher says of each of its completions whether it is correct.

P(correct) is read from the probabilities of the verdict's first token, so one token a verdict is
enough. Source: self-evaluation as in arXiv 2207.05221 (P(True)); that the teacher judges its own
answers is the method's (arXiv 2502.19557); the prompt and this reading of it are ours.

A judge may favour the word that is named first. Several verdicts name both words in both orders, and
their mean is P(correct). Source: asking in both orders, arXiv 2306.05685, section 3.4; the mean is ours.

It resumes by row, as `generate` does: the key is the judged completion's id; the model's revision, the
template and all settings are in the hash of the prefix.
"""

import re
import time
from collections.abc import Sequence
from statistics import fmean

from limbeck import lease
from limbeck import settings as deciding
from limbeck.config import Config, JudgeConfig
from limbeck.manifest import Manifest, code_version, commit, find, input_hashes, require, stage_uri
from limbeck.progress import say
from limbeck.records import Completion, Judgement, Prompt
from limbeck.rows import iter_rows, read_rows
from limbeck.rowwise import Question, Task, ToPrompt, Work, make_rows
from limbeck.sampling import OpenSampler, Sample, SampleRequest, too_long
from limbeck.spending import spent
from limbeck.storage import Store
from limbeck.thinking import without_thinking

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
    """Judge one shard of the teacher's completions.

    Args:
        prompts: From `prepare`.
        completions: From `generate` with the teacher.
        model_hash: What stands for the teacher's weights in the output's key.
        open_sampler: Loads the teacher; called only when there is work to do.
        config: `judge`, `engine`, `task.strip_thinking` and `generate.rows_per_part` are read.
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
        )
        server = config.openai if config.asks_a_server("teacher") else None
        metrics = spent(SPENT, iter_rows(store, [manifest], Judgement), server)
        taken = {"metrics": metrics, "wall_seconds": time.monotonic() - started}
        return commit(store, manifest.model_copy(update=taken), held)


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
    judge = config.judge
    shown = without_thinking(row.text) if config.task.strip_thinking else row.text
    orders = [
        to_prompt(_message(judge, asked, shown, swapped=swapped)) for swapped in (False, True)[: judge.votes]
    ]
    requests = [
        SampleRequest(orders[vote % 2], judge.temperature, 1, seed=vote, verdict=(judge.yes, judge.no))
        for vote in range(judge.votes)
    ]

    def judgement(samples: Sequence[Sample]) -> Judgement:
        verdicts = [sample.p_first for sample in samples]
        answered = list(zip(requests, samples, strict=False))  # none, where it is set aside
        return Judgement(
            completion_id=row.completion_id,
            prompt_id=row.prompt_id,
            p_correct=_mean(verdicts) or 0.0,
            p_yes_first=_mean(verdicts[0::2]),
            p_no_first=_mean(verdicts[1::2]),
            num_prompt_tokens=sum(sample.num_prompt_tokens(request.prompt) for request, sample in answered),
            num_tokens=sum(sample.num_tokens for sample in samples),
        )

    excess = too_long(max(orders, key=len), config.engine.max_model_len - 1)
    return Task(
        key=f"completion {row.completion_id}",
        question=f"judge prompt too long: {excess}" if excess else Question(requests, judgement),
        text=row.text,
        spare=judgement(()),
    )


def _message(judge: JudgeConfig, prompt: str, completion: str, *, swapped: bool) -> str:
    """The judge prompt, with the two words in one order or the other.

    Prompt and completion may hold braces of their own, so everything is replaced in one pass.
    """
    first, second = (judge.no, judge.yes) if swapped else (judge.yes, judge.no)
    slots = {"{prompt}": prompt, "{completion}": completion, "{first}": first, "{second}": second}
    return re.sub("|".join(map(re.escape, slots)), lambda found: slots[found[0]], judge.template)


def _mean(verdicts: Sequence[float | None]) -> float | None:
    """The mean of those that were given; a text that is neither word is none."""
    given = [verdict for verdict in verdicts if verdict is not None]
    return fmean(given) if given else None
