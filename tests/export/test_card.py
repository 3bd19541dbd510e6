"""The model card: what it says, that it says the same each time, and that no text in it does harm."""

from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from limbeck.export import Asked, Chosen
from limbeck.export.card import model_card
from limbeck.export.origins import NOT_STATED, Origin
from limbeck.report.model import Provenance, RunReport
from tests.report.conftest import HOSTILE, made_manifest, made_report

GOLDEN = Path("tests/export/card.md")
ASKED = Asked("s3://work/models/student", "s3://work/models/teacher", "org/small", ("org/questions",))
STUDENT = Origin(ASKED.student, "apache-2.0", "LICENSE", b"text")
TEACHER = Origin(ASKED.teacher, "other big-terms", "", b"")


@pytest.fixture(scope="module")
def whole() -> RunReport:
    return made_report(num_prompts=60)


def chosen(report: RunReport | None, name: str = "ppo_mixed") -> Chosen:
    checkpoint = made_manifest("ppo", name, kind="checkpoint")
    return Chosen(checkpoint, report, made_manifest("report", "report") if report else checkpoint)


def card(report: RunReport | None, name: str = "ppo_mixed", asked: Asked = ASKED) -> str:
    return model_card(chosen(report, name), asked, STUDENT, TEACHER)


def parsed(text: str) -> list[str]:
    """The structure of a Markdown page: what its parts are, without their texts."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    parts = [part for token in tokens for part in (token, *(token.children or ()))]
    return [part.type for part in parts if part.type not in ("text", "code_inline")]


def test_the_card_is_the_golden_one(whole: RunReport) -> None:
    assert card(whole) == GOLDEN.read_text(encoding="utf-8")


def test_the_header_is_what_hubs_read_and_holds_only_what_is_known(whole: RunReport) -> None:
    header = yaml.safe_load(card(whole).split("---\n")[1])
    assert header == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["limbeck", "distillation"],
        "base_model": "org/small",
        "datasets": ["org/questions"],
        "license": "apache-2.0",
    }
    bare = model_card(chosen(whole), Asked(), NOT_STATED, NOT_STATED)
    assert not {"base_model", "datasets", "license"} & yaml.safe_load(bare.split("---\n")[1]).keys()
    assert "Of the student: not stated." in bare
    other = model_card(chosen(whole), Asked(), TEACHER, NOT_STATED)
    header = yaml.safe_load(other.split("---\n")[1])
    assert (header["license"], header["license_name"]) == ("other", "big-terms")


def test_data_sets_are_those_that_prepare_has_read_and_those_that_a_person_names(whole: RunReport) -> None:
    read = {"prompts": "hf://org/questions@0123abc?split=train", "heldout": f"s3://b/{HOSTILE}"}
    (first, *others) = whole.provenance
    known = whole.model_copy(
        update={"provenance": (first.model_copy(update={"sources": read}), first, *others)}
    )
    (line,) = [line for line in card(known).splitlines() if line.startswith("| data |")]
    assert line.startswith("| data | `org/questions`, `hf://org/questions@0123abc?split=train`, `s3://b/")
    assert "<script" not in line
    assert "| data | `hf://org/questions@0123abc?split=train`" in card(known, asked=Asked())
    assert "not stated by name" not in card(known, asked=Asked())


def test_figures_come_with_their_intervals(whole: RunReport) -> None:
    (row,) = [row for row in whole.rows if (row.name, row.decoding) == ("policy", "sampled")]
    assert row.interval is not None
    assert row.accuracy is not None
    low, high = row.interval
    assert f"{row.accuracy:.1%} ({100 * low:.1f} to {100 * high:.1f})" in card(whole)


def test_what_was_not_promoted_says_so_first_and_among_the_limits(whole: RunReport) -> None:
    refused = whole.model_copy(update={"decision": whole.decision.model_copy(update={"promote": False})})
    text = card(refused)
    assert text.index("**Not promoted.**") < text.index("## What it is")
    assert "It was exported although it was not promoted." in text
    other = card(whole, "ppo_model")
    assert "which is not this one" in other
    assert "**Not promoted.**" in other
    assert "Not promoted" not in card(whole)


def test_without_a_report_it_claims_nothing() -> None:
    text = card(None)
    assert "nothing is known of its quality" in text
    assert "## Held-out accuracy" not in text
    assert "- Nothing was measured." in text
    assert "%" not in text


def test_without_gold_accuracy_is_not_measured() -> None:
    text = card(made_report(with_gold=False, num_prompts=20))
    assert "Not measured: the held-out prompts have no gold answers." in text
    assert "their quality was not measured" in text


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("majority", "The teacher answered; votes made one pseudo label a prompt;"),
        ("judge", "The teacher answered; the answer that it judged best was the pseudo label of a prompt;"),
        ("gold", "The teacher answered; the known answer was the label of a prompt;"),
    ],
)
def test_the_card_says_what_the_labels_were_made_from(whole: RunReport, rule: str, says: str) -> None:
    assert whole.labels is not None
    text = card(whole.model_copy(update={"labels": whole.labels.model_copy(update={"rule": rule})}))
    assert says in text
    assert ("No gold answer was used in training" in text) == (rule != "gold")
    assert ("an upper bound to compare with, not a result of the method" in text) == (rule == "gold")
    assert ("which measured them and nothing else" in text) == (rule != "gold")


def test_the_card_names_the_algorithm_that_refined_the_policy(whole: RunReport) -> None:
    ppo = whole.settings.ppo.model_copy(update={"algorithm": "grpo"})
    run = whole.ppo["mixed"].model_copy(update={"stopped_by_monitor": True})
    changed = {
        "settings": whole.settings.model_copy(update={"ppo": ppo}),
        "ppo": whole.ppo | {"mixed": run},
    }
    text = card(whole.model_copy(update=changed))
    assert "refined by GRPO with the reward `mixed`" in text
    assert "Its GRPO run was stopped early" in text
    assert "PPO" not in text.replace("GRPO", "")


def test_hostile_texts_change_nothing_but_their_own_places(whole: RunReport) -> None:
    """Names come from folders, prompts from people, reasons from names."""
    decision = whole.decision.model_copy(update={"reason": HOSTILE, "policy": HOSTILE})
    origin = Provenance(
        stage=HOSTILE,
        name=HOSTILE,
        uri=HOSTILE,
        content_hash=HOSTILE,
        config_hash="x",
        code_version=HOSTILE,
        sources={"prompts": HOSTILE},
    )
    tame = whole.model_copy(
        update={
            "decision": decision.model_copy(update={"reason": "because", "policy": "other"}),
            "provenance": (
                origin.model_copy(
                    update=dict.fromkeys(Provenance.model_fields, "x") | {"sources": {"prompts": "x"}}
                ),
            ),
        }
    )
    task = whole.settings.task.model_copy(update={"prompt_template": f"{{prompt}} {HOSTILE}"})
    hostile = whole.model_copy(
        update={
            "decision": decision,
            "provenance": (origin,),
            "settings": whole.settings.model_copy(update={"task": task}),
            "rows": tuple(
                row.model_copy(update={"name": HOSTILE}) if row.name == "student" else row
                for row in whole.rows
            ),
        }
    )
    address = f"s3://x/{HOSTILE}"
    origins = [Origin(address, "mit", HOSTILE, b"") for _ in range(2)]
    plain = [Origin("s3://x", "mit", "LICENSE", b"") for _ in range(2)]
    bad = model_card(chosen(hostile, HOSTILE[:40]), Asked(), *origins)
    good = model_card(chosen(tame, "mine"), Asked(), *plain)
    assert parsed(bad) == parsed(good)
    assert "<script" not in bad
    assert "\x1b" not in bad
    assert "\u202e" not in bad
