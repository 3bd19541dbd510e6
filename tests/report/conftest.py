"""A whole report made by hand: hostile texts, known figures."""

from collections.abc import Callable, Mapping, Sequence
from operator import eq

import numpy as np
import pytest

from limbeck.config import Config, LabelConfig, ReportConfig
from limbeck.data_statistics import DataStatistics, LikePair, quantiles
from limbeck.label_quality import label_quality
from limbeck.manifest import Manifest
from limbeck.metrics import reliability
from limbeck.records import Completion, Decoding, EvalResult, Judgement, Prompt, PseudoLabel
from limbeck.report.accuracy import accuracy_rows, comparisons, prompt_scores
from limbeck.report.answers import collect
from limbeck.report.decision import contest, decide, no_decision
from limbeck.report.fidelity import fidelity
from limbeck.report.labels_page import LabelReport, label_report
from limbeck.report.lengths import answer_lengths
from limbeck.report.model import Example, ExampleAnswer, PpoStep, RunReport
from limbeck.report.training import ppo_run, provenance, reward_report, stage_rows
from limbeck.storage import StoredObject

HOSTILE = (
    "</pre></table><script>alert(1)</script><img src=http://evil.test/x.png onerror=alert(2)> ]]> --> "
    "```\n`code`` | cell |\n\n# heading\n![x](http://evil.test/y.png) {{ 7 * 7 }} \x1b[31m \u202ebackwards"
)
ACCURACIES = {
    "teacher": 0.52,
    "student": 0.22,
    "sft_all": 0.40,
    "sft_selected": 0.54,
    "ppo_model": 0.57,
    "ppo_mixed": 0.62,
    "ppo_agreement": 0.60,
}


def made_config() -> Config:
    return Config(report=ReportConfig(price_per_million_tokens={"teacher": 10.0, "policy": 0.4}))


def made_results(
    accuracies: Mapping[str, float], num_prompts: int, *, with_gold: bool = True
) -> list[EvalResult]:
    """Results of models that share which prompts are hard; each row has the accuracy it is given."""
    rng = np.random.default_rng(11)
    hardness = (np.arange(num_prompts) + 0.5) / num_prompts
    decodings: tuple[tuple[Decoding, int], ...] = (("sampled", 2), ("greedy", 1))
    results = []
    for name, accuracy in accuracies.items():
        for decoding, num_samples in decodings:
            for prompt in range(num_prompts):
                for sample in range(num_samples):
                    right = bool(hardness[prompt] + rng.normal(0, 0.05) < accuracy)
                    results.append(
                        EvalResult(
                            prompt_id=f"{prompt:016x}",
                            name=name,
                            decoding=decoding,
                            sample_index=sample,
                            text=HOSTILE,
                            answer="7" if right else "`|8",
                            correct=right if with_gold else None,
                            num_tokens=20 + prompt % 7 + sample,
                            finish_reason="stop" if prompt % 10 else "length",
                        )
                    )
    return results


def made_manifest(stage: str, name: str, **values: object) -> Manifest:
    """A manifest of one object that nobody stored."""
    uri = f"s3://work/{stage}/{name}"
    return Manifest.model_validate(
        {
            "stage": stage,
            "kind": "made",
            "name": name,
            "uri": uri,
            "objects": [StoredObject(uri=f"{uri}/abc/file", bytes=1, sha256=name)],
            "inputs": {},
            "config_hash": "c0ffee",
            "code_version": "0.1.0+1234abcd",
        }
        | values
    )


def made_completion(number: int, prompt_id: str, answer: str | None, temperature: float) -> Completion:
    return Completion(
        completion_id=f"c{number}",
        prompt_id=prompt_id,
        source="teacher",
        text=f"= {answer}",
        answer=answer,
        temperature=temperature,
        sample_index=number,
        seed=number,
        logprob=-1.0,
        num_tokens=3,
        finish_reason="stop",
    )


def made_statistics() -> DataStatistics:
    pair = LikePair(
        reason="near duplicate", prompt_id="a", prompt=HOSTILE, other_id="b", other=HOSTILE, similarity=0.875
    )
    return DataStatistics(
        side="train",
        num_prompts=1234,
        words=quantiles(range(101)),
        characters=quantiles([7]),
        numbers=quantiles([]),
        num_alike={"near duplicate": 17},
        num_from_templates=23,
        examples=(pair,),
    )


def made_evaluation(names: Sequence[str], num_prompts: int = 60) -> RunReport:
    """The report of a run that trained nothing: models of these names, the later ones better."""
    accuracies = {name: 0.3 + 0.1 * number for number, name in enumerate(names)}
    asked, config = contest(names, None, ()), made_config()
    held_out = collect(made_results(accuracies, num_prompts), eq, None, names)
    scores = prompt_scores(held_out)
    rows, compared = accuracy_rows(scores, 300, 1), comparisons(scores, 300, 1, asked.baselines)
    manifests = [made_manifest("evaluate", name, num_rows=num_prompts) for name in names]
    answers = tuple(ExampleAnswer(name=name, text=name, answer=name, correct=True) for name in names)
    return RunReport(
        decision=no_decision(rows, compared, asked),
        rows=rows,
        comparisons=compared,
        fidelity=fidelity(held_out, eq, 300, 1),
        lengths=answer_lengths(held_out, config.report.price_per_million_tokens, 300, 1),
        labels=None,
        reward=None,
        ppo={},
        data=(),
        stages=stage_rows(manifests),
        examples=(Example(prompt="what?", gold="7", answers=answers),),
        provenance=provenance(manifests),
        settings=config,
    )


def made_answers() -> tuple[list[Completion], list[Judgement]]:
    """Three completions of each of 20 prompts, judged in both orders."""
    completions = [
        made_completion(i, f"p{i // 3}", "7" if i % 4 else "8", 0.3 + 0.4 * (i % 3)) for i in range(60)
    ]
    return completions, [
        Judgement(
            completion_id=row.completion_id,
            prompt_id=row.prompt_id,
            p_correct=(i * 7 % 10) / 10,
            p_yes_first=(i * 7 % 10) / 10,
            p_no_first=(i * 7 % 10) / 10,
        )
        for i, row in enumerate(completions)
    ]


def made_report(*, with_gold: bool = True, num_prompts: int = 400) -> RunReport:
    config = made_config()
    held_out = collect(made_results(ACCURACIES, num_prompts, with_gold=with_gold), eq, "ppo_mixed")
    scores = prompt_scores(held_out)
    rows, compared = accuracy_rows(scores, 300, 1), comparisons(scores, 300, 1)
    completions, judgements = made_answers()
    labels = [
        PseudoLabel(
            prompt_id=f"p{i}",
            answer=None if i % 9 == 0 else "7" if i % 5 else "8",
            vote_share=(i % 4 + 1) / 4,
            num_votes=4,
            reason="tie" if i % 9 == 0 else "labelled",
            validation=False,
        )
        for i in range(20)
    ]
    gold = {f"p{i}": "7" for i in range(20)} if with_gold else {}
    steps = [PpoStep(update=0, validation_agreement=0.60)] + [
        PpoStep(
            update=i,
            reward=0.5 + 0.002 * i,
            proxy=0.5,
            kl=0.05 * i,
            length=20 + 0.1 * i,
            agreement=0.6 + 0.01 * (i % 5),
            validation_agreement=0.60 + 0.001 * i if i % 10 == 0 else None,
            validation_proxy=0.5 + 0.002 * i if i % 10 == 0 else None,
            validation_length=20 + 0.1 * i if i % 10 == 0 else None,
        )
        for i in range(1, 41)
    ]
    policies = [
        made_manifest("ppo", name, metrics={"ppo/validation_agreement": 0.64}, wall_seconds=81.0)
        for name in ("ppo_model", "ppo_mixed", "ppo_agreement")
    ]
    manifests = [
        made_manifest(
            "prepare",
            "prompts",
            num_input_rows=5,
            num_rows=3,
            rejected={HOSTILE: 2},
            sources={"prompts": f"hf://org/letters@0123abc?split={HOSTILE}"},
        ),
        made_manifest("generate", "teacher", num_rows=30, wall_seconds=1.5),
        made_manifest("generate", "teacher", num_rows=30, wall_seconds=2.0),
        *policies,
    ]
    metrics = {
        "reward/auc_teacher": 0.84,
        "reward/auc_student": 0.86,
        "reward/pair_accuracy_teacher": 0.8,
        "reward/pair_accuracy_student": float("nan"),
        "reward/auc_vote_share_0.50_0.75": 0.78,
        "reward/auc_vote_share_0.75_1.00": 0.9,
        "reward/ece_vote_share_0.75_1.00": 0.07,
    }
    rng = np.random.default_rng(3)
    predicted = rng.random(200)
    bins = reliability(predicted, (rng.random(200) < predicted).astype(np.float64))
    answers = tuple(
        ExampleAnswer(name=name, text=HOSTILE, answer=HOSTILE, correct=True if with_gold else None)
        for name in ("policy", "teacher")
    )
    return RunReport(
        decision=decide(rows, compared, "ppo_mixed", "s3://work/ppo/ppo_mixed/abc"),
        rows=rows,
        comparisons=compared,
        fidelity=fidelity(held_out, eq, 300, 1),
        lengths=answer_lengths(held_out, config.report.price_per_million_tokens, 300, 1),
        labels=label_quality(labels, completions, completions[:9], judgements, gold, LabelConfig()),
        reward=reward_report(metrics, {"teacher": bins, "student": bins}),
        ppo={m.name.removeprefix("ppo_"): ppo_run(m, steps, picked=m.name == "ppo_mixed") for m in policies},
        data=(made_statistics(),),
        stages=stage_rows(manifests),
        examples=(Example(prompt=HOSTILE, gold="7" if with_gold else None, answers=answers),),
        provenance=provenance(manifests),
        settings=config,
    )


@pytest.fixture(scope="session")
def report() -> RunReport:
    return made_report()


@pytest.fixture(scope="session")
def report_without_gold() -> RunReport:
    return made_report(with_gold=False)


@pytest.fixture(scope="session")
def evaluation_of() -> Callable[[Sequence[str]], RunReport]:
    return made_evaluation


@pytest.fixture
def labels_of() -> Callable[[RunReport], LabelReport]:
    """The label report of a report, with hostile texts."""

    def made(report: RunReport) -> LabelReport:
        assert report.labels is not None
        completions = [row.model_copy(update={"text": HOSTILE}) for row in made_answers()[0]]
        prompts = [Prompt(prompt_id=f"p{i}", prompt=HOSTILE) for i in range(20)]
        return label_report(report.labels, prompts, completions)

    return made


@pytest.fixture
def results_of() -> Callable[..., list[EvalResult]]:
    return made_results


@pytest.fixture
def hostile() -> str:
    return HOSTILE
