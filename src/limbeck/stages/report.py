"""report: every manifest becomes a page for people, JSON for machines, the label report, and the decision.

The other of the two stages that are given gold answers; nothing it makes goes into training. It tells of
what there is: a pipeline without PPO, or one that only evaluates, has a shorter page.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path

from pydantic import ValidationError

from limbeck import lease, settings
from limbeck.answers import normalise
from limbeck.checkpoints import base_uri
from limbeck.comparing import Comparer
from limbeck.config import Config
from limbeck.data_statistics import FILE, DataStatistics, parse_statistics
from limbeck.errors import DataError
from limbeck.label_quality import label_quality
from limbeck.label_quality.model import LabelQuality
from limbeck.manifest import Manifest, code_version, commit, digest, find, input_hashes, require, stage_uri
from limbeck.metrics import RELIABILITY, Reliability
from limbeck.progress import say
from limbeck.records import Completion, EvalResult, GoldAnswer, Judgement, Prompt, PseudoLabel
from limbeck.report.accuracy import accuracy_rows, comparisons, prompt_scores
from limbeck.report.answers import ORDER, Answers, collect
from limbeck.report.decision import POLICY, Contest, contest, decide, no_decision, of_upper_bound
from limbeck.report.fidelity import fidelity
from limbeck.report.labels_page import label_report, labels_page
from limbeck.report.lengths import answer_lengths
from limbeck.report.model import (
    Example,
    ExampleAnswer,
    Fidelity,
    PlannedRun,
    PpoStep,
    RewardReport,
    RunReport,
)
from limbeck.report.page import html_page, markdown_page
from limbeck.report.spent import accepted
from limbeck.report.training import parse_history, ppo_run, provenance, reward_report, stage_rows
from limbeck.rows import iter_rows
from limbeck.storage import Store

MAX_EXAMPLE_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """The manifests of a run, in the order of the stages; what its pipeline does not make is left out."""

    prompts: Manifest | None = None
    heldout: Manifest
    gold: Manifest
    """May hold no rows: then accuracy is null and nothing is decided."""
    completions: tuple[Manifest, ...] = ()
    """Teacher shards."""
    judgements: tuple[Manifest, ...] = ()
    """Of the teacher shards."""
    labels: Manifest | None = None
    sft_checkpoints: tuple[Manifest, ...] = ()
    student_completions: tuple[Manifest, ...] = ()
    reward_model: Manifest | None = None
    policies: tuple[Manifest, ...] = ()
    """One PPO checkpoint a kind of reward, named `ppo_model` and so on; none where training ends with SFT."""
    policy: Manifest | None = None
    """The picked checkpoint, from PPO or from SFT; None where nothing was trained."""
    results: tuple[Manifest, ...]
    """One evaluation a model. Where nothing was trained, the others are compared with the first."""


def run(
    inputs: ReportInputs, config: Config, store: Store, work_uri: str, plan: PlannedRun | None = None
) -> Manifest:
    """Measure, compare, decide, and write the report and, where there are labels, the label report.

    Args:
        inputs: All manifests of the run.
        config: `report`, `label`, `task` and the seed are read; the whole of it is shown.
        store: Where rows come from and go to.
        work_uri: Prefix of all results.
        plan: What the run was planned to take, to be shown beside what was measured.

    Returns:
        report.json, report.html, report.md and, where there are labels, labels.json and labels.html;
        metrics `report/accuracy_ROW_DECODING`, `report/agreement_ROW_DECODING`,
        `report/tokens_ROW_DECODING` and, where there are labels or a trained model,
        `report/label_coverage`, `report/label_precision` and `report/promote`.

    Raises:
        DataError: when two evaluations have one name, or the history of a PPO run cannot be read.
        LeaseError: when another attempt is at work.
    """
    started = time.monotonic()
    hashes = input_hashes(**vars(inputs)) | ({"plan": digest(plan.model_dump())} if plan else {})
    config_hash = settings.of_report(config)
    uri = stage_uri(work_uri, "report", hashes, config_hash)
    if complete := find(store, uri):
        say("report: already complete, nothing to do")
        return complete

    with lease.held(store, uri, "report") as held:
        names = _names(inputs.results)
        manifests = _in_order(inputs)
        for manifest in manifests:
            require(store, manifest)
        gold = {
            row.prompt_id: normalise(row.answer, config.task)
            for row in iter_rows(store, [inputs.gold], GoldAnswer)
        }
        policy, num_resamples, seed = inputs.policy, config.report.num_resamples, config.seed
        asked = contest(names, policy.name if policy else None, [item.name for item in inputs.policies])
        picked = policy.name if policy and asked.candidate == POLICY else None

        prompts = nsmallest(
            config.report.num_examples,
            iter_rows(store, [inputs.heldout], Prompt),
            key=lambda item: item.prompt_id,
        )
        examples = _Examples(prompts, _example_rows(asked, names, picked))
        answers, agreed = _answers(
            inputs, examples, picked, ORDER if asked.candidate else names, config, store
        )
        scores = prompt_scores(answers)
        rows = accuracy_rows(scores, num_resamples, seed)
        compared = comparisons(scores, num_resamples, seed, asked.baselines)
        labels = _label_quality(inputs, gold, config, store)
        decision = (
            decide(rows, compared, policy.name, base_uri(policy), asked, judged=config.task.is_open)
            if policy
            else no_decision(rows, compared, asked)
        )
        stages = stage_rows(manifests)
        report = RunReport(
            decision=of_upper_bound(decision) if labels and labels.upper_bound else decision,
            rows=rows,
            comparisons=compared,
            fidelity=agreed,
            lengths=answer_lengths(answers, _prices(config), num_resamples, seed),
            labels=labels,
            reward=_reward(inputs.reward_model, store) if inputs.reward_model else None,
            ppo={
                manifest.name.removeprefix("ppo_"): ppo_run(
                    manifest, _history(store, manifest), picked=manifest.name == picked
                )
                for manifest in inputs.policies
            },
            data=_data_statistics(store, [inputs.prompts, inputs.heldout]),
            stages=stages,
            accepted=accepted(stages),
            plan=plan,
            examples=examples.shown(gold),
            provenance=provenance(manifests),
            settings=config,
        )

        with tempfile.TemporaryDirectory() as folder:
            pages = {
                "report.json": report.model_dump_json(indent=1) + "\n",
                "report.html": html_page(report),
                "report.md": markdown_page(report),
            }
            if labels:
                asked_of = iter_rows(store, [inputs.prompts] if inputs.prompts else [], Prompt)
                more = label_report(labels, asked_of, iter_rows(store, inputs.completions, Completion))
                pages |= {
                    "labels.json": more.model_dump_json(indent=1) + "\n",
                    "labels.html": labels_page(more, is_open=config.task.is_open),
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
                num_input_rows=sum(manifest.num_rows for manifest in inputs.results),
                num_rows=len(rows),
                metrics=_metrics(report),
                wall_seconds=time.monotonic() - started,
            ),
            held,
        )


def _in_order(inputs: ReportInputs) -> list[Manifest]:
    """All manifests, stage after stage, each once: the policy is mostly one of the checkpoints before it."""
    manifests: dict[str, Manifest] = {}
    for value in vars(inputs).values():
        for item in [value] if isinstance(value, Manifest) else value or ():
            manifests.setdefault(item.uri, item)
    return list(manifests.values())


def _names(results: Sequence[Manifest]) -> list[str]:
    """The names of the evaluated models, in their order.

    Raises:
        DataError: when two have one name: their answers would be taken for those of one model.
    """
    names = [manifest.name for manifest in results]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            "two evaluations of one name",
            where=", ".join(manifest.uri for manifest in results if manifest.name == twice),
            expected="a name for each model",
            got=repr(twice)[:80],
            remedy="Give each model once; folders of one name need another name",
        )
    return names


def _answers(
    inputs: ReportInputs,
    examples: "_Examples",
    picked: str | None,
    order: Sequence[str],
    config: Config,
    store: Store,
) -> tuple[Answers, tuple[Fidelity, ...]]:
    """What all models answered, and how far that is what the teacher answered; examples are taken of it."""
    with Comparer(config.task) as comparer:
        results = examples.taken(iter_rows(store, inputs.results, EvalResult))
        if config.task.is_open:  # no two answers are the same: none has a majority or is the teacher's
            return collect(results, None, picked, order), ()
        answers = collect(results, comparer.same, picked, order)
        return answers, fidelity(answers, comparer.same, config.report.num_resamples, config.seed)


def _prices(config: Config) -> dict[str, float]:
    """Of a million completion tokens, by row: a black-box teacher's is known already."""
    price, given = config.openai.completion_price, config.report.price_per_million_tokens
    return given if price is None or not config.asks_a_server("teacher") else {"teacher": price} | given


def _label_quality(
    inputs: ReportInputs, gold: Mapping[str, str], config: Config, store: Store
) -> LabelQuality | None:
    """The label report, where labels were made or given; gold says nothing of answers to open questions."""
    if inputs.labels is None:
        return None
    with Comparer(config.task) as comparer:
        return label_quality(
            iter_rows(store, [inputs.labels], PseudoLabel),
            iter_rows(store, inputs.completions, Completion),
            iter_rows(store, inputs.student_completions, Completion),
            iter_rows(store, inputs.judgements, Judgement),
            {} if config.task.is_open else gold,
            config.label,
            comparer.same,
            config.report.num_examples,
            open_ended=config.task.is_open,
        )


def _reward(reward_model: Manifest, store: Store) -> RewardReport:
    """The reward model's figures; one that another tool made has no reliability diagram."""
    item = next((item for item in reward_model.objects if item.uri.endswith(f"/{RELIABILITY}")), None)
    if item is None:
        return reward_report(reward_model.metrics)
    try:
        measured = Reliability.model_validate_json(store.read_bytes(item.uri))
    except ValidationError as error:
        raise DataError(
            "not a reliability diagram",
            where=item.uri,
            expected="the bins by source, as the stage `reward` writes them",
            got=error.errors()[0]["msg"],
            remedy="Run the stage `reward` again",
        ) from error
    return reward_report(reward_model.metrics, measured.root)


def _data_statistics(store: Store, prompts: Iterable[Manifest | None]) -> tuple[DataStatistics, ...]:
    """What `prepare` said of its prompts; other stages that make prompts say nothing."""
    return tuple(
        parse_statistics(store.read_bytes(item.uri), item.uri)
        for manifest in prompts
        if manifest
        for item in manifest.objects
        if item.uri == f"{manifest.uri}/{FILE}"
    )


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


def _example_rows(asked: Contest, names: Sequence[str], picked: str | None) -> dict[str, str]:
    """Whose answers are shown: the row's name in the report -> the model's own name."""
    shown = (asked.candidate, *asked.baselines) if asked.candidate else names
    return {
        name: picked if name == POLICY and picked else name
        for name in list(dict.fromkeys(shown))[:MAX_EXAMPLE_ROWS]
    }


@dataclass
class _Examples:
    """Some held-out prompts with first samples, taken as the results pass by: there are many."""

    prompts: Sequence[Prompt]
    """Those with the lowest ids, which are hashes: nobody chose them."""
    rows: Mapping[str, str]
    """The row's name in the report -> the model's own name."""
    first: dict[tuple[str, str], EvalResult] = field(default_factory=dict)
    """(model, prompt id) -> its first sample."""

    def taken(self, results: Iterable[EvalResult]) -> Iterator[EvalResult]:
        """All results, as they come."""
        chosen = {prompt.prompt_id for prompt in self.prompts}
        for row in results:
            if row.prompt_id in chosen and row.decoding == "sampled" and row.sample_index <= 0:
                self.first[row.name, row.prompt_id] = row
            yield row

    def shown(self, gold: Mapping[str, str]) -> tuple[Example, ...]:
        """What was taken; `gold` are gold answers in their normal form, by prompt id."""
        return tuple(
            Example(
                prompt=prompt.prompt,
                gold=gold.get(prompt.prompt_id),
                answers=tuple(
                    ExampleAnswer(name=name, text=row.text, answer=row.answer, correct=row.correct)
                    for name, model in self.rows.items()
                    if (row := self.first.get((model, prompt.prompt_id)))
                ),
            )
            for prompt in self.prompts
        )


def _metrics(report: RunReport) -> dict[str, float]:
    """The figures that go along with the manifest, where they were measured."""
    figures = {f"report/accuracy_{row.name}_{row.decoding}": row.accuracy for row in report.rows}
    figures |= {f"report/agreement_{row.name}_{row.decoding}": row.agreement for row in report.fidelity}
    figures |= {f"report/tokens_{row.name}_{row.decoding}": row.mean_tokens for row in report.lengths}
    if report.labels:
        figures["report/label_coverage"] = report.labels.coverage
        figures["report/label_precision"] = report.labels.precision
    if report.decision.policy is not None:
        figures["report/promote"] = float(report.decision.promote)
    return {name: value for name, value in figures.items() if value is not None}
