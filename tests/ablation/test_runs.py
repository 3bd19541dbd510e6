"""The tasks of an ablation on a real store: labels made wrong, and the page of all rows."""

import pytest

from limbeck.ablation import compare, noise
from limbeck.config import Config, parse_config
from limbeck.manifest import Manifest, commit
from limbeck.records import Completion, EvalResult, LabelledCompletion, PseudoLabel, Row, row_id
from limbeck.report.ablation import AblationReport
from limbeck.rows import PartWriter, read_rows
from limbeck.storage import Store

NUM_PROMPTS = 20
VARIANT = "label.noise=0.4"


def config(variant: str = "") -> Config:
    return parse_config({"task": {"answer_pattern": r"= (\w+)"}, "report": {"num_resamples": 100}}, variant)


def written(store: Store, uri: str, rows: list[Row], **fields: str) -> Manifest:
    with PartWriter(store, uri, type(rows[0])) as out:
        for row in rows:
            out.add(row)
    return commit(
        store,
        Manifest(
            uri=uri,
            objects=tuple(out.objects),
            inputs={},
            config_hash=uri,
            code_version="1",
            num_input_rows=len(rows),
            num_rows=len(rows),
            **fields,  # type: ignore[arg-type]  # texts alone
        ),
    )


def labelled(store: Store, work_uri: str, source: str) -> Manifest:
    rows: list[Row] = [
        LabelledCompletion(
            completion_id=f"{source}{number} {answer}",
            prompt_id=f"p{number}",
            prompt=f"sum {number}",
            source="teacher" if source == "teacher" else "student",
            text=f"= {answer}",
            pseudo_reward=float(answer == "a"),
            vote_share=0.5,
            selected=answer == "a",
            validation=False,
        )
        for number in range(NUM_PROMPTS)
        for answer in ("a", "b")
    ]
    uri = f"{work_uri}/label/{source}/labelled"
    return written(store, uri, rows, stage="label", kind="labelled", name=f"labelled_{source}")


@pytest.fixture
def given(store: Store, work_uri: str) -> tuple[Manifest, Manifest, Manifest]:
    rows: list[Row] = [
        PseudoLabel(
            prompt_id=f"p{number}",
            answer="a",
            vote_share=0.5,
            num_votes=2,
            reason="labelled",
            validation=False,
        )
        for number in range(NUM_PROMPTS)
    ]
    uri = f"{work_uri}/label/teacher/labels"
    labels = written(store, uri, rows, stage="label", kind="labels", name="labels_teacher")
    return labels, labelled(store, work_uri, "teacher"), labelled(store, work_uri, "student")


def test_completions_of_wrong_labels_are_labelled_anew_and_the_others_stay(
    store: Store, work_uri: str, given: tuple[Manifest, Manifest, Manifest]
) -> None:
    made = noise.run(*given, config(VARIANT), store, work_uri, variant=VARIANT)
    labels = {row.prompt_id: row for row in read_rows(store, made.labels, PseudoLabel)}
    assert sum(row.answer == "b" for row in labels.values()) == round(0.4 * NUM_PROMPTS)
    for manifest in made[1:]:
        rows = read_rows(store, manifest, LabelledCompletion)
        assert len(rows) == 2 * NUM_PROMPTS
        for row in rows:
            label = labels[row.prompt_id]
            assert row.pseudo_reward == float(row.text == f"= {label.answer}")
            assert row.selected == (label.reason != noise.NOISE and row.text == "= a")
    assert made.labels.name == "labels_teacher@label.noise=0.4"
    assert [item.kind for item in made] == ["labels", "labelled", "labelled"]


def test_a_second_time_nothing_is_done(
    store: Store, work_uri: str, given: tuple[Manifest, Manifest, Manifest]
) -> None:
    first = noise.run(*given, config(VARIANT), store, work_uri, variant=VARIANT)
    assert noise.run(*given, config(VARIANT), store, work_uri, variant=VARIANT) == first


def results(store: Store, work_uri: str, name: str, right: int) -> Manifest:
    rows: list[Row] = [
        EvalResult(
            prompt_id=f"h{number}",
            name=name,
            decoding=decoding,
            sample_index=0,
            text="= a",
            answer="a",
            correct=number < right,
            num_tokens=2,
            finish_reason="stop",
        )
        for decoding in ("greedy", "sampled")
        for number in range(NUM_PROMPTS)
    ]
    uri = f"{work_uri}/evaluate/{right}"
    return written(store, uri, rows, stage="evaluate", kind="results", name=name)


def generated(store: Store, work_uri: str, name: str, model: str, temperature: float) -> Manifest:
    rows: list[Row] = [
        Completion(
            completion_id=row_id(f"p{number}", "teacher", temperature, 0, 1),
            prompt_id=f"p{number}",
            source="teacher",
            text="= a",
            answer="a",
            temperature=temperature,
            sample_index=0,
            seed=1,
            logprob=-1.0,
            num_tokens=2,
            finish_reason="stop",
        )
        for number in range(NUM_PROMPTS)
    ]
    made = written(store, f"{work_uri}/generate/{name}", rows, stage="generate", kind="completions", name="t")
    return made.model_copy(update={"inputs": {"model": model}})


def test_completions_that_one_model_was_asked_for_twice_are_counted_wherever_they_lie(
    store: Store, work_uri: str
) -> None:
    first = generated(store, work_uri, "first", "m", 1.0)
    others = [generated(store, work_uri, "other", "n", 1.0), generated(store, work_uri, "cold", "m", 0.3)]
    again = generated(store, work_uri, "again", "m", 1.0)
    rows = [results(store, work_uri, "sft_selected", 10)]
    for made, twice in (([first, first, *others], 0), ([first, *others, again], NUM_PROMPTS)):
        page = compare.run(rows, made, config(), store, work_uri)
        (text,) = (item for item in page.objects if item.uri.endswith(".json"))
        report = AblationReport.model_validate_json(store.read_bytes(text.uri))
        assert (report.completions, report.generated_twice) == (3 * NUM_PROMPTS + twice, twice)


def test_the_page_of_all_rows_is_written_once(
    store: Store, work_uri: str, given: tuple[Manifest, Manifest, Manifest]
) -> None:
    rows = [
        results(store, work_uri, "teacher", 8),
        results(store, work_uri, "sft_selected", 10),
        results(store, work_uri, "ppo_model", 16),
        results(store, work_uri, "ppo_model@label.noise=0.4", 12),
    ]
    made = compare.run(rows, [*given, given[0]], config(), store, work_uri)
    assert {item.uri.rpartition("/")[2] for item in made.objects} == {
        "ablation.json",
        "ablation.html",
        "ablation.md",
    }
    assert made.metrics["ablation/accuracy_ppo_model_sampled"] == pytest.approx(0.8)
    assert compare.run(rows, [*given, given[0]], config(), store, work_uri) == made
