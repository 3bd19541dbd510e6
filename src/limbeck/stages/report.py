"""report: every manifest becomes one page for people, one JSON for machines, and the decision.

The other of the two stages that are given gold answers; nothing it makes goes into training.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.answers import normalise
from limbeck.checkpoints import base_uri
from limbeck.config import Config
from limbeck.errors import DataError
from limbeck.label_quality import label_quality
from limbeck.manifest import Manifest, code_version, commit, digest, find, input_hashes, require, stage_uri
from limbeck.progress import say
from limbeck.records import Completion, EvalResult, GoldAnswer, Judgement, Prompt, PseudoLabel
from limbeck.report.accuracy import accuracy_rows, comparisons, decide, prompt_scores
from limbeck.report.model import Example, ExampleAnswer, PpoStep, RunReport
from limbeck.report.page import html_page, markdown_page
from limbeck.report.training import parse_history, ppo_run, provenance, reward_report, stage_rows
from limbeck.rows import read_all, read_rows
from limbeck.storage import Store

EXAMPLE_ROWS = ("policy", "sft_selected", "teacher")


@dataclass(frozen=True)
class ReportInputs:
    """Every manifest of a run, in the order of the stages."""

    prompts: Manifest
    heldout: Manifest
    gold: Manifest
    """May hold no rows: then accuracy is null and nothing is decided."""
    completions: tuple[Manifest, ...]
    """Teacher shards."""
    judgements: tuple[Manifest, ...]
    labels: Manifest
    sft_checkpoints: tuple[Manifest, ...]
    student_completions: tuple[Manifest, ...]
    reward_model: Manifest
    policies: tuple[Manifest, ...]
    """One PPO checkpoint a kind of reward, named `ppo_model` and so on."""
    policy: Manifest
    """The picked one of them."""
    results: tuple[Manifest, ...]
    """One evaluation a model."""


def run(inputs: ReportInputs, config: Config, store: Store, work_uri: str) -> Manifest:
    """Measure, compare, decide, and write report.json, report.html and report.md.

    Args:
        inputs: All manifests of the run.
        config: `report`, `label`, `task` and the seed are read; the whole of it is shown.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.

    Returns:
        The three files; metrics `report/accuracy_ROW_DECODING`, `report/label_coverage`,
        `report/label_precision` and `report/promote`.

    Raises:
        DataError: when the history of a PPO run cannot be read.
    """
    started = time.monotonic()
    hashes = input_hashes(**vars(inputs))
    config_hash = digest(config.model_dump(mode="json"))
    uri = stage_uri(work_uri, "report", hashes, config_hash)
    if complete := find(store, uri):
        say("report: already complete, nothing to do")
        return complete

    manifests = _in_order(inputs)
    for manifest in manifests:
        require(store, manifest)
    gold = {
        row.prompt_id: normalise(row.answer, config.task) for row in read_rows(store, inputs.gold, GoldAnswer)
    }
    results = read_all(store, inputs.results, EvalResult)
    num_resamples, seed = config.report.num_resamples, config.seed
    picked = inputs.policy.name

    scores = prompt_scores(results, picked)
    rows = accuracy_rows(scores, num_resamples, seed)
    compared = comparisons(scores, num_resamples, seed)
    report = RunReport(
        decision=decide(rows, compared, picked, base_uri(inputs.policy)),
        rows=rows,
        comparisons=compared,
        labels=label_quality(
            read_rows(store, inputs.labels, PseudoLabel),
            read_all(store, inputs.completions, Completion),
            read_all(store, inputs.student_completions, Completion),
            read_all(store, inputs.judgements, Judgement),
            gold,
            config.label,
        ),
        reward=reward_report(inputs.reward_model.metrics),
        ppo={
            manifest.name.removeprefix("ppo_"): ppo_run(
                manifest, _history(store, manifest), picked=manifest.name == picked
            )
            for manifest in inputs.policies
        },
        stages=stage_rows(manifests),
        examples=_examples(
            read_rows(store, inputs.heldout, Prompt), results, gold, picked, config.report.num_examples
        ),
        provenance=provenance(manifests),
        settings=config,
    )

    with tempfile.TemporaryDirectory() as folder:
        pages = {
            "report.json": report.model_dump_json(indent=1) + "\n",
            "report.html": html_page(report),
            "report.md": markdown_page(report),
        }
        for name, text in pages.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        objects = store.write_folder(Path(folder), uri)
    say(f"report: {report.decision.headline} {report.decision.reason}")
    return commit(
        store,
        Manifest(
            stage="report",
            kind="report",
            name="report",
            uri=uri,
            objects=objects,
            inputs=hashes,
            config_hash=config_hash,
            code_version=code_version("report"),
            num_input_rows=len(results),
            num_rows=len(rows),
            metrics=_metrics(report),
            wall_seconds=time.monotonic() - started,
        ),
    )


def _in_order(inputs: ReportInputs) -> list[Manifest]:
    """All manifests, stage after stage; the policy is one of the policies already."""
    manifests: list[Manifest] = []
    for name, value in vars(inputs).items():
        if name != "policy":
            manifests += [value] if isinstance(value, Manifest) else value
    return manifests


def _history(store: Store, manifest: Manifest) -> list[PpoStep]:
    """The rounds of a PPO run."""
    item = next((item for item in manifest.objects if item.uri.endswith("/history.jsonl")), None)
    if item is None:
        raise DataError(
            "a PPO run without its history",
            where=manifest.uri,
            expected="an object history.jsonl",
            remedy="Run the stage `ppo` again",
        )
    return parse_history(store.read_bytes(item.uri), item.uri)


def _examples(
    heldout: Sequence[Prompt],
    results: Sequence[EvalResult],
    gold: Mapping[str, str],
    picked: str,
    num_examples: int,
) -> tuple[Example, ...]:
    """Some held-out prompts with first samples. Prompts come by id, which is a hash: nobody chose them."""
    first = {
        (row.name, row.prompt_id): row
        for row in results
        if row.decoding == "sampled" and row.sample_index <= 0
    }
    examples = []
    for prompt in sorted(heldout, key=lambda item: item.prompt_id)[:num_examples]:
        answers = tuple(
            ExampleAnswer(name=name, text=row.text, answer=row.answer, correct=row.correct)
            for name in EXAMPLE_ROWS
            if (row := first.get((picked if name == "policy" else name, prompt.prompt_id)))
        )
        examples.append(Example(prompt=prompt.prompt, gold=gold.get(prompt.prompt_id), answers=answers))
    return tuple(examples)


def _metrics(report: RunReport) -> dict[str, float]:
    """The figures that go along with the manifest, where they were measured."""
    figures = {f"report/accuracy_{row.name}_{row.decoding}": row.accuracy for row in report.rows} | {
        "report/label_coverage": report.labels.coverage,
        "report/label_precision": report.labels.precision,
        "report/promote": float(report.decision.promote),
    }
    return {name: value for name, value in figures.items() if value is not None}
