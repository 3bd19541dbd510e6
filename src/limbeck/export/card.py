"""The model card: README.md with the header that model hubs read, made from the run's own report.

Names, addresses and settings in it come from users, models and data sets. The body defuses every value, as
the report's Markdown page does; the header holds only what has the form of a name.
"""

from typing import Any, NamedTuple

import yaml
from markupsafe import Markup

from limbeck.export.chosen import Chosen
from limbeck.export.origins import Asked, Origin
from limbeck.report.model import RunReport
from limbeck.report.page import environment, shared_values

TEMPLATE = "card.md.jinja"
STEPS = {
    ("prepare", "prompts"): "train prompts",
    ("prepare", "heldout"): "held-out prompts",
    ("generate", "teacher"): "completions of the teacher",
    ("judge", "judge"): "judgements by the teacher",
    ("label", "labels"): "prompts with or without a pseudo label",
    ("sft", "sft_selected"): "completions that the student was warmed up on",
    ("generate", "student"): "completions of the warmed-up student",
    ("reward", "reward"): "completions that the reward model learned from",
}
"""What the rows of a stage's output are, for those that made the model."""


LABELLED_BY = {
    "judged_majority": "votes of the answers it judged correct made one pseudo label a prompt",
    "majority": "votes made one pseudo label a prompt",
    "judge": "the answer that it judged best was the pseudo label of a prompt",
    "gold": "the known answer was the label of a prompt",
}
"""Where labels came from, by the rule."""


class Step(NamedTuple):
    """A line of how the model was made."""

    what: str
    num_rows: int
    contents: tuple[str, ...]
    """Content hashes of its manifests, one a shard."""


def model_card(chosen: Chosen, asked: Asked, student: Origin, teacher: Origin) -> str:
    """The card of an exported checkpoint; the same inputs give the same bytes.

    Args:
        chosen: What goes out.
        asked: What a person says of the run.
        student: The model that it was made from.
        teacher: The model that it was taught by.
    """
    report = chosen.report
    shown = {
        "chosen": chosen,
        "report": report,
        "header": Markup(_header(asked, student)),  # noqa: S704 - YAML of checked names
        "student": student,
        "teacher": teacher,
        "asked": asked,
        "data": _data(report, asked),
        "steps": _steps(report) if report else [],
        "run": _ppo_of(chosen, report) if report else None,
        "labelled_by": _labelled_by(report) if report else "",
    }
    template = environment("export", html=False).get_template(TEMPLATE)
    return template.render(shown | (shared_values(report) if report else {}))


def _header(asked: Asked, student: Origin) -> str:
    """What hubs read: only what is known."""
    known: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["limbeck", "distillation"],
        "base_model": asked.base_model,
        "datasets": list(asked.datasets),
    }
    licence, _, name = student.licence.partition(" ")
    known |= {"license": licence, "license_name": name}
    return yaml.safe_dump({key: value for key, value in known.items() if value}, sort_keys=False)


def _data(report: RunReport | None, asked: Asked) -> list[str]:
    """Names that a person gives, then the addresses that `prepare` has read, each once."""
    origins = report.provenance if report else ()
    read = [address for item in origins for address in item.sources.values()]
    return list(dict.fromkeys([*asked.datasets, *read]))


def _steps(report: RunReport) -> list[Step]:
    """What the model was made from, in the order of the stages."""
    made = {(row.stage, row.name): row.rows_kept for row in report.stages}
    contents: dict[tuple[str, str], list[str]] = {}
    for item in report.provenance:
        contents.setdefault((item.stage, item.name), []).append(item.content_hash)
    return [
        Step(what, made[place], tuple(contents.get(place, ())))
        for place, what in STEPS.items()
        if place in made
    ]


def _labelled_by(report: RunReport) -> str:
    """Where the labels came from, those of another run that were taken over too."""
    rule = report.labels.rule if report.labels else report.settings.label.rule
    return LABELLED_BY.get(rule, "prompts were labelled")


def _ppo_of(chosen: Chosen, report: RunReport) -> Any:
    """The PPO run that made the checkpoint, if one did."""
    return next((run for run in report.ppo.values() if run.name == chosen.checkpoint.name), None)
