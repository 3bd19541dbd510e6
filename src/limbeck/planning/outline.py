"""What is known of a run before it starts: `preflight` writes it, and `report` makes a plan of it.

How many prompts there are is known only when `prepare` has read the data, so the plan on the report's page is
made at the end, from nothing that the run itself has measured but their number and length.
"""

from collections.abc import Mapping

from pydantic import ValidationError

from limbeck.config import PpoReward
from limbeck.errors import DataError
from limbeck.preflight import Asked
from limbeck.preflight.asked import ABLATION
from limbeck.preflight.memory import Shape
from limbeck.preflight.models import ModelFacts
from limbeck.resources import Resources
from limbeck.section import Count, Section, parse


class Outline(Section):
    """The parameters that decide which tasks run and on how many GPUs, and the sizes of the models."""

    stages: tuple[str, ...]
    """As the pipeline tells `preflight`."""
    open_ended: bool
    """Whether the student's completions are judged too."""
    num_shards: Count
    """Of `generate` and `judge`."""
    num_evaluate_shards: Count = 1
    """Of the evaluation of each model."""
    ppo_rewards: tuple[PpoReward, ...]
    """A PPO run for each."""
    reward_variants: tuple[str, ...]
    """Of an ablation, as are the next."""
    noise_variants: tuple[str, ...]
    gpus: int
    """Of each task that uses some."""
    resources: Resources
    """Over it, by stage."""
    evaluated: tuple[str, ...]
    """Names of the models of a pipeline that only evaluates; their shapes are `models[0]` and so on."""
    shapes: dict[str, Shape]
    """By parameter: `teacher`, `student`, `models[0]`; a warmed-up student is `student`, a black box none."""

    @property
    def trains(self) -> bool:
        """Whether anything is trained; else all prompts are held out."""
        return "judge" in self.stages or "ppo" in self.stages

    @property
    def ablates(self) -> bool:
        """Whether an ablation's rows are made."""
        return ABLATION in self.stages


def outline(asked: Asked, models: Mapping[str, ModelFacts]) -> Outline:
    """Of a run whose parameters `preflight` has checked.

    Args:
        asked: The parameters.
        models: What it has found of each model, by parameter.

    Raises:
        ConfigError: when a parameter is not what it must be.
    """
    found = {
        "evaluated": [path.rstrip("/").rpartition("/")[2] for path in asked.models],
        "shapes": {key: facts.shape for key, facts in models.items() if facts.shape},
    }
    given = {name: getattr(asked, name) for name in Outline.model_fields if name not in found}
    return parse(Outline, given | found, "parameters")


def parse_outline(text: str, where: str) -> Outline:
    """Read one again.

    Raises:
        DataError: when it is none.
    """
    try:
        return Outline.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            "not the outline of a run",
            where=where,
            expected="what `preflight` of this version writes",
            got=f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'the top'}",
            remedy="Wire it to `outline` of preflight",
        ) from error
