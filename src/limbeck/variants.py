"""A variant of a run: settings that an ablation changes, as one short text `reward.source_weight=0.25`.

A loop of a pipeline passes it to the stages as it is; what a stage makes under it carries it in its name.
"""

import json
from typing import Any

from limbeck.errors import ConfigError

SEPARATOR = "@"
"""Between a name and its variant: `ppo_model@reward.source_weight=0.25`."""
REWARDS = ("model", "mixed", "agreement", "judge")
"""The PPO runs of an ablation that nobody asked for others: a row each."""
NOISE = "label.noise"
"""What every variant of `noise_variants` sets."""
SWEPT = ("reward.", "ppo.")
"""What is trained anew for a variant: a setting of another stage would change nothing but a row's name."""


def changes(variant: str) -> dict[str, str]:
    """The settings that a variant changes: dotted name -> value as text; none of an empty variant.

    Raises:
        ConfigError: when it is no list of `section.field=value`.
    """
    parts = [part.strip() for part in variant.split(",")] if variant else []
    found = dict(part.split("=", 1) for part in parts if "=" in part)
    if len(found) != len(parts) or not all(name and value for name, value in found.items()):
        raise ConfigError(
            "not a variant",
            where="parameter variant",
            expected="section.field=value, each field once, several with commas between",
            got=repr(variant)[:80],
            remedy="Correct it",
        )
    return found


def check_swept(variant: str, sweep: str) -> None:
    """Check that a variant changes what its sweep trains anew.

    Args:
        variant: One item of the sweep.
        sweep: The parameter, `reward_variants` or `noise_variants`.

    Raises:
        ConfigError: naming the setting that would change nothing, or that is missing.
    """
    names, noisy = set(changes(variant)), sweep == "noise_variants"
    idle = sorted(name for name in names if not name.startswith(SWEPT) and not (noisy and name == NOISE))
    if idle or (noisy and NOISE not in names):
        raise ConfigError(
            "no variant of this sweep",
            where=f"parameter {sweep}",
            expected=f"{NOISE}=SHARE, and settings of reward and ppo" if noisy else "settings of reward, ppo",
            got=repr(variant)[:80],
            remedy=f"Take `{idle[0]}` out: nothing reads it there" if idle else f"Add {NOISE}",
        )


def varied(config: dict[str, Any], variant: str) -> dict[str, Any]:
    """The settings of a run with those of a variant over them.

    No reward model of a variant ends the run, however weak: that it is weak is what the variant shows.
    """
    given = changes(variant)
    if not given:
        return config
    result = json.loads(json.dumps(config))
    for name, text in {"reward.min_auc": "0", **given}.items():
        *sections, field = name.split(".")
        place = result
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[field] = _value(text)
    return dict(result)


def named(name: str, variant: str) -> str:
    """What something is called that was made under a variant."""
    return f"{name}{SEPARATOR}{variant}" if variant else name


def point(name: str) -> tuple[str, str, float] | None:
    """A row's own name, the setting and its value, where its variant is one number; else None."""
    own, _, variant = name.partition(SEPARATOR)
    setting, _, text = variant.partition("=")
    try:
        return (own, setting, float(text)) if setting and "," not in text else None
    except ValueError:
        return None


def _value(text: str) -> Any:
    """A value as JSON has it; what is no JSON is a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text
