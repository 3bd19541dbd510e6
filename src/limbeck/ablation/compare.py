"""compare: the evaluations of all rows of an ablation become one page, in HTML, Markdown and JSON."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from limbeck import lease, settings
from limbeck.comparing import Comparer
from limbeck.config import Config
from limbeck.manifest import Manifest, code_version, commit, find, input_hashes, require, stage_uri
from limbeck.progress import say
from limbeck.records import Completion, EvalResult
from limbeck.report.ablation import AblationReport, differences, pages, shared, sweeps
from limbeck.report.accuracy import accuracy_rows, prompt_scores
from limbeck.report.answers import collect
from limbeck.rows import iter_rows
from limbeck.storage import Store


def run(
    results: Sequence[Manifest], made: Sequence[Manifest], config: Config, store: Store, work_uri: str
) -> Manifest:
    """Measure, compare, correct, and write the page.

    Args:
        results: One evaluation a row, in the order of the page.
        made: What the stages made for these rows, as often as tasks gave it: to be counted.
        config: `report`, `task` and the seed are read, and what the sweeps vary.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.

    Returns:
        ablation.json, ablation.html and ablation.md; metrics `ablation/accuracy_ROW_DECODING`.

    Raises:
        LeaseError: when another attempt is at work.
    """
    started = time.monotonic()
    inputs = input_hashes(results=results, made=made)
    config_hash = settings.of_report(config)
    uri = stage_uri(work_uri, "ablation", inputs, config_hash)
    if complete := find(store, uri):
        say("compare: already complete, nothing to do")
        return complete

    with lease.held(store, uri, "compare") as held, Comparer(config.task) as comparer:
        rows_of = list({item.uri: item for item in results}.values())
        for item in rows_of:
            require(store, item)
        names = [item.name for item in rows_of]
        answers = collect(iter_rows(store, rows_of, EvalResult), comparer.same, order=[*names, "", ""])
        scores = prompt_scores(answers)
        resamples, seed = config.report.num_resamples, config.seed
        rows = accuracy_rows(scores, resamples, seed)
        generated = list({item.uri: item for item in made if item.stage == "generate"}.values())
        report = AblationReport(
            rows=rows,
            differences=differences(scores, resamples, seed),
            sweeps=sweeps(
                rows,
                [item for item in made if item.kind == "reward_model"],
                {"reward.source_weight": config.reward.source_weight, "label.noise": 0.0},
            ),
            shared=shared([*made, *results]),
            completions=sum(item.num_rows for item in generated),
            generated_twice=asked_twice(store, generated),
            seed=seed,
            num_resamples=resamples,
        )
        with tempfile.TemporaryDirectory() as folder:
            for name, text in pages(report).items():
                Path(folder, name).write_text(text, encoding="utf-8")
            objects = store.write_folder(Path(folder), uri)
        say(f"compare: {len(names)} rows, {report.completions} completions, {report.generated_twice} twice")
        return commit(
            store,
            Manifest(
                stage="ablation",
                kind="report",
                name="ablation",
                uri=uri,
                objects=objects,
                inputs=inputs,
                config_hash=config_hash,
                code_version=code_version("ablation"),
                num_input_rows=sum(item.num_rows for item in rows_of),
                num_rows=len(rows),
                metrics={
                    f"ablation/accuracy_{row.name}_{row.decoding}": row.accuracy
                    for row in rows
                    if row.accuracy is not None
                },
                wall_seconds=time.monotonic() - started,
            ),
            held,
        )


def asked_twice(store: Store, generated: Sequence[Manifest]) -> int:
    """How many completions are one more of the same model, prompt, temperature and sample."""
    seen: set[tuple[str, str]] = set()
    again = 0
    for manifest in generated:
        for row in iter_rows(store, [manifest], Completion):
            key = manifest.inputs.get("model", ""), row.completion_id
            again += key in seen
            seen.add(key)
    return again
