"""evaluate: held-out accuracy of one model, greedy and sampled, at the same settings for all models.

One of the two stages that are given gold answers; nothing it makes goes into training.
"""

import time

from limbeck.answers import extract_answer, normalise
from limbeck.config import Config
from limbeck.errors import DataError
from limbeck.manifest import Manifest, code_version, commit, digest, find, input_hashes, require, stage_uri
from limbeck.progress import Progress, say
from limbeck.records import Decoding, EvalResult, GoldAnswer, Prompt, row_id
from limbeck.rows import finished_parts, read_rows, write_rows
from limbeck.sampling import OpenSampler, Sampler, SampleRequest
from limbeck.storage import Store, StoredObject

PROMPTS_PER_PART = 500


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
) -> Manifest:
    """Answer the held-out prompts and compare with gold.

    Args:
        heldout: Prompts from `prepare`.
        gold: Gold answers from `prepare`; may be empty.
        model_hash: What stands for the model's weights in the output's key.
        open_sampler: Loads the model; called only when there is work to do.
        config: `evaluate`, `task`, `engine.max_model_len` and the seed are read.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.
        name: The model's row in the report.

    Returns:
        One result for each prompt, decoding and sample; metrics `evaluate/accuracy_greedy` and
        `evaluate/accuracy_sampled` when there is gold. An answer cut off or absent is wrong; a prompt
        too long for the context is wrong too and counted as set aside.

    Raises:
        DataError: when no held-out prompt fits the context.
    """
    started = time.monotonic()
    inputs = input_hashes(heldout=heldout, gold=gold) | {"model": model_hash}
    config_hash = digest(
        [
            config.seed,
            config.task.model_dump(),
            config.engine.max_model_len,
            config.evaluate.model_dump(),
            name,
        ]
    )
    uri = stage_uri(work_uri, "evaluate", inputs, config_hash)
    if complete := find(store, uri):
        say(f"evaluate({name}): already complete, {complete.num_rows} results")
        return complete

    require(store, heldout)
    answers = {
        row.prompt_id: normalise(row.answer, config.task) for row in read_rows(store, gold, GoldAnswer)
    }
    prompts = read_rows(store, heldout, Prompt)
    parts = finished_parts(store, uri)
    decodings: list[tuple[Decoding, int]] = [("greedy", 1), ("sampled", config.evaluate.samples_per_prompt)]
    progress = Progress(f"evaluate({name})", len(prompts) * sum(n for _, n in decodings), "answers")
    progress.resume(sum(item.rows for item in parts.values()))
    sampler: Sampler | None = None
    objects: list[StoredObject] = []
    chunks = [(d, n, first) for d, n in decodings for first in range(0, len(prompts), PROMPTS_PER_PART)]
    for number, (decoding, num_samples, first) in enumerate(chunks):
        part = f"part-{number:05d}"
        if part in parts:
            objects.append(parts[part])
            continue
        sampler = sampler or open_sampler()
        chunk = prompts[first : first + PROMPTS_PER_PART]
        rows = _answer(chunk, decoding, num_samples, sampler, answers, config, name)
        objects.append(write_rows(store, uri, rows, name=part))
        progress.add(len(rows))
    if sampler:
        sampler.close()

    manifest = Manifest(
        stage="evaluate",
        kind="results",
        name=name,
        uri=uri,
        objects=tuple(objects),
        inputs=inputs,
        config_hash=config_hash,
        code_version=code_version("evaluate"),
        num_input_rows=len(prompts),
        num_rows=sum(item.rows for item in objects),
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
    metrics = {}
    for decoding, _ in decodings:
        scored = [row.correct for row in results if row.decoding == decoding and row.correct is not None]
        if scored:
            metrics[f"evaluate/accuracy_{decoding}"] = sum(scored) / len(scored)
    shown = ", ".join(f"{key.split('_')[-1]} {value:.1%}" for key, value in metrics.items())
    say(f"evaluate({name}): accuracy {shown or 'unknown: there are no gold answers'}")
    return commit(
        store,
        manifest.model_copy(
            update={
                "metrics": metrics,
                "rejected": {"prompt too long": len(too_long)} if too_long else {},
                "wall_seconds": time.monotonic() - started,
            }
        ),
    )


def _answer(
    prompts: list[Prompt],
    decoding: Decoding,
    num_samples: int,
    sampler: Sampler,
    answers: dict[str, str],
    config: Config,
    name: str,
) -> list[EvalResult]:
    """Answer some prompts in one decoding; each gets `num_samples` results."""
    settings = config.evaluate
    room = config.engine.max_model_len - settings.max_tokens
    asked: list[tuple[Prompt, int, SampleRequest]] = []
    results = []
    for prompt in prompts:
        ids = sampler.prompt_ids(config.task.prompt_template.replace("{prompt}", prompt.prompt))
        if len(ids) > room:
            results.append(_result(prompt, name, decoding, -1, "", None, answers))
            continue
        for index in range(num_samples):
            # The same seed for every model: rows are compared under the same draws.
            seed = int(row_id(config.seed, "evaluate", prompt.prompt_id, index), 16) % 2**31
            temperature = settings.temperature if decoding == "sampled" else 0.0
            asked.append((prompt, index, SampleRequest(ids, temperature, settings.max_tokens, seed)))
    samples = sampler.sample([request for _, _, request in asked])
    return results + [
        _result(prompt, name, decoding, index, sample.text, extract_answer(sample.text, config.task), answers)
        for (prompt, index, _), sample in zip(asked, samples, strict=True)
    ]


def _result(
    prompt: Prompt,
    name: str,
    decoding: Decoding,
    index: int,
    text: str,
    answer: str | None,
    answers: dict[str, str],
) -> EvalResult:
    """One result; correct is None when there is no gold answer."""
    gold = answers.get(prompt.prompt_id)
    return EvalResult(
        prompt_id=prompt.prompt_id,
        name=name,
        decoding=decoding,
        sample_index=index,
        text=text,
        answer=answer,
        correct=None if gold is None else answer == gold,
    )
