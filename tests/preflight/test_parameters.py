"""Parameters that are missing, impossible, or hold a credential."""

from dataclasses import replace
from typing import Any

import pytest

from limbeck.config import Config
from limbeck.preflight import Asked
from limbeck.preflight.asked import (
    incomparable,
    judges,
    misjudged,
    mislabelled,
    misnamed,
    missing,
    read_settings,
    without_secrets,
)
from tests.preflight.conftest import STAGES, lines

FULL = Asked(
    work_uri="s3://b/work", stages=STAGES, prompts="s3://b/p.jsonl", teacher="s3://b/t", student="s3://b/s"
)
REWARDS = ["generate", "label", "reward", "ppo", "evaluate", "report"]
EARLIER = {
    "prepared_uri": "s3://b/work/prepare/a",
    "label_uri": "s3://b/work/label/b",
    "checkpoint": "s3://b/c",
}
EVALUATE = ["prepare", "evaluate", "report"]
OPEN = Config.model_validate({"task": {"kind": "open"}, "label": {"rule": "judge"}})
FROM_TEACHER = Config.model_validate({"reward": {"init": "teacher"}})

MISSING: dict[str, tuple[dict[str, Any], Config | None, set[str]]] = {
    "nothing": ({}, Config(), set()),
    "no settings either": ({"student": ""}, None, {"student"}),
    "all at once": (
        {"work_uri": "", "prompts": "", "teacher": "", "student": ""},
        Config(),
        {"work_uri", "prompts", "teacher", "student"},
    ),
    "held-out prompts do not train": ({"prompts": "", "heldout": "s3://b/h.jsonl"}, Config(), {"prompts"}),
    "evaluating needs held-out prompts": (
        {"stages": EVALUATE, "prompts": "", "models": ["s3://b/m"]},
        Config(),
        {"heldout"},
    ),
    "evaluating needs models": ({"stages": EVALUATE, "teacher": "", "student": ""}, Config(), {"models"}),
    "a checkpoint is a model to evaluate": (
        {"stages": REWARDS, "teacher": "", "student": "", **EARLIER},
        Config(),
        set(),
    ),
    "a reward model needs what an earlier run has made": (
        {"stages": REWARDS, "teacher": "", "student": ""},
        Config(),
        set(EARLIER),
    ),
    "or what this one makes": (
        {"stages": ["prepare", "generate", "judge", "label", "sft", "reward"]},
        Config(),
        set(),
    ),
    "a teacher to judge rollouts": (
        {"stages": REWARDS, "teacher": "", "student": "", "ppo_rewards": ["model", "judge"], **EARLIER},
        Config(),
        {"teacher"},
    ),
    "somebody to judge answers to open questions": (
        {"stages": EVALUATE, "prompts": "", "heldout": "s3://b/h", "teacher": "", "models": ["s3://b/m"]},
        OPEN,
        {"teacher"},
    ),
    "a teacher to start the reward model from": (
        {"stages": REWARDS, "teacher": "", "student": "", **EARLIER},
        FROM_TEACHER,
        {"teacher"},
    ),
}


@pytest.mark.parametrize(("changes", "config", "names"), MISSING.values(), ids=MISSING)
def test_what_the_stages_need_is_asked_for(
    changes: dict[str, Any], config: Config | None, names: set[str]
) -> None:
    found = lines(missing(replace(FULL, **changes), config))

    assert len(found) == len(names)
    for name in names:
        assert any(f"error: missing parameter `{name}`: expected" in line for line in found)


def test_models_that_the_report_could_not_tell_apart_are_named() -> None:
    asked = replace(
        FULL, stages=EVALUATE, models=["s3://a/run-1/model/", "s3://b/run-2/model", "s3://b/other"]
    )
    (line,) = lines(misnamed(asked))
    assert "models of the same name in parameter models" in line
    assert "2 times `model`" in line


def test_a_stage_that_does_not_exist_is_named() -> None:
    assert "unknown stage `trian`" in lines(misnamed(replace(FULL, stages=["trian"])))[0]


def test_what_only_the_last_stages_would_trip_over_is_found_first() -> None:
    wrong: Any = ["gpu"]
    asked = replace(
        FULL, ppo_rewards=["agreement"], num_shards=0, gpu_resource="", node_selector={"gpu": 1},
        node_affinity={"x": 1}, tolerations=wrong,
    )  # fmt: skip
    _, found = read_settings(asked)
    names = [str(finding).split("`")[1] for finding in found]
    assert names == [
        "num_shards",
        "ppo_rewards",
        "gpu_resource",
        "node_selector.gpu",
        "node_affinity.x",
        "tolerations.0",
    ]


def test_settings_resources_and_gpus_are_checked_side_by_side() -> None:
    asked = replace(FULL, gpus=65, config={"seed": -1, "sft": 3}, resources={"label": {"gpus": 2}})
    settings, findings = read_settings(asked)
    assert settings.config is None
    assert settings.requests is None
    expected = [
        "error: bad setting `seed` in config: expected Input should be greater than or equal to 0, got -1.",
        "error: bad setting `sft` in config: expected Input should be a valid dictionary",
        "error: impossible number of GPUs in parameter gpus: expected 0 to 64, got 65.",
        "error: this stage uses no GPU in resources.label.gpus: expected 0, got 2.",
    ]
    for line, start in zip(lines(findings), expected, strict=True):
        assert line.startswith(start)


CREDENTIALS = {
    "an AWS key": ({"teacher": "s3://AKIAABCDEFGHIJKLMNOP/t"}, "AKIAABCDEFGHIJKLMNOP", "teacher"),
    "a password in an address": ({"work_uri": "s3://me:hunter22@b/work"}, "hunter22", "work_uri"),
    "a Hugging Face token in settings": (
        {"config": {"judge": {"template": "hf_" + "a" * 34 + "{prompt}{completion}"}}},
        "hf_aaa",
        "config.judge.template",
    ),
    "a private key": (
        {"models": ["s3://b/m", "-----BEGIN RSA PRIVATE KEY-----"]},
        "PRIVATE KEY",
        "models[1]",
    ),
    "a key named like one": ({"config": {"api_key": "c2VjcmV0"}}, "c2VjcmV0", "config.api_key"),
    "a nested key named like one": (
        {"resources": {"ppo": {"s3_password": ["swordfish"]}}},
        "swordfish",
        "resources.ppo.s3_password[0]",
    ),
}


@pytest.mark.parametrize(("changes", "value", "place"), CREDENTIALS.values(), ids=CREDENTIALS)
def test_a_credential_is_named_by_its_place_and_repeated_nowhere(
    changes: dict[str, Any], value: str, place: str
) -> None:
    cleaned, findings = without_secrets(replace(FULL, **changes))
    (line,) = lines(findings)
    assert f"a credential in a parameter, where whoever sees the run reads it in {place}." in line
    assert value not in line
    assert value not in repr(cleaned)
    assert value not in repr(lines(read_settings(cleaned)[1]))


def test_plain_parameters_stay_as_they_are() -> None:
    cleaned, findings = without_secrets(FULL)
    assert findings == []
    assert cleaned == FULL


FEW: dict[str, Any] = {"num_minibatches": 1, "samples_per_prompt": 1, "micro_batch_size": None}
BLACK_BOX = {"teacher": {"sampler": "openai"}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ppo_rewards": ["model", "mixed"]}, []),
        ({"ppo_rewards": ["mixed"]}, ["an ablation without the row of the whole method"]),
        ({"config": BLACK_BOX}, ["an ablation tunes its teacher, which a black box does not allow"]),
        ({"config": BLACK_BOX, "ppo_rewards": ["mixed"]}, ["an ablation without", "an ablation tunes"]),
        ({"config": BLACK_BOX, "ppo_rewards": ["mixed"], "stages": STAGES}, []),
    ],
)
def test_an_ablation_wants_the_whole_method_and_a_teacher_that_can_be_tuned(
    changes: dict[str, Any], says: list[str]
) -> None:
    found = lines(incomparable(replace(FULL, **{"stages": [*STAGES, "ablation"]} | changes)))
    assert len(found) == len(says)
    assert all(line.startswith(f"error: {start}") for line, start in zip(found, says, strict=True))


@pytest.mark.parametrize(
    ("config", "variant", "says"),
    [
        ({"ppo": FEW | {"batch_size": 8}}, "ppo.num_minibatches=3", "must be a multiple of num_minibatches"),
        ({"ppo": FEW | {"batch_size": 9}}, "ppo.num_minibatches=3", ""),
    ],
)
def test_a_variant_is_checked_with_the_settings_of_the_run(
    config: dict[str, Any], variant: str, says: str
) -> None:
    _, findings = read_settings(replace(FULL, config=config, reward_variants=[variant]))
    assert len(findings) == bool(says)
    assert all(says in line for line in lines(findings))


@pytest.mark.parametrize(
    ("rule", "changes", "says"),
    [
        ("judged_majority", {}, ""),
        ("gold", {"gold_labels": True}, ""),
        ("gold", {}, "expected a rule that needs no gold answers, got gold. Run the pipeline distill_gold"),
        ("majority", {"gold_labels": True}, "expected gold, as this pipeline gives gold answers"),
        ("gold", {"label_uri": "s3://b/work/label/b"}, ""),  # nothing votes: labels are given
        ("gold", {"stages": EVALUATE}, ""),
    ],
)
def test_gold_labels_want_the_rule_and_the_pipeline(rule: str, changes: dict[str, Any], says: str) -> None:
    config = Config.model_validate({"label": {"rule": rule}})
    found = lines(mislabelled(replace(FULL, **changes), config))
    assert len(found) == bool(says)
    assert all(says in line for line in found)


@pytest.mark.parametrize(
    ("config", "changes", "says"),
    [
        (Config(), {}, ""),
        (OPEN, {"open_ended": True}, ""),
        (OPEN, {}, "expected a kind whose answers can be compared, got open. Run the pipeline distill_open"),
        (
            Config(),
            {"open_ended": True},
            "expected open, as nothing is compared here, got pattern",
        ),
        (OPEN, {"stages": REWARDS, **EARLIER}, "Run the pipeline distill_open"),
        (OPEN, {"stages": [*STAGES, "ablation"]}, "Run the pipeline distill_open"),
        (OPEN, {"stages": EVALUATE}, ""),  # which judges them by the teacher
    ],
)
def test_open_questions_want_the_kind_and_the_pipeline(
    config: Config, changes: dict[str, Any], says: str
) -> None:
    found = lines(misjudged(replace(FULL, **changes), config))
    assert len(found) == bool(says)
    assert all(says in line for line in found)


@pytest.mark.parametrize(
    ("config", "stages", "judged"),
    [(Config(), STAGES, True), (Config(), EVALUATE, False), (OPEN, EVALUATE, True), (OPEN, ["sft"], False)],
)
def test_who_judges_is_looked_at_where_anything_is_judged(
    config: Config, stages: list[str], judged: bool
) -> None:
    assert judges(replace(FULL, stages=stages), config) is judged
