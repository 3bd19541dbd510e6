"""Variants: settings changed by a short text, and names that carry it."""

import pytest

from limbeck.config import parse_config
from limbeck.errors import ConfigError
from limbeck.run_file import RunFile
from limbeck.variants import named, point


def test_a_variant_changes_what_it_names_and_lets_a_weak_reward_model_pass() -> None:
    given = {"reward": {"num_epochs": 3}, "seed": 7}
    config = parse_config(given, "reward.source_weight=0.25,label.rule=gold")
    assert (config.reward.source_weight, config.label.rule, config.reward.num_epochs) == (0.25, "gold", 3)
    assert (config.seed, config.reward.min_auc) == (7, 0.0)
    assert given == {"reward": {"num_epochs": 3}, "seed": 7}


def test_no_variant_changes_nothing() -> None:
    assert parse_config({"reward": {"min_auc": 0.9}}) == parse_config({"reward": {"min_auc": 0.9}}, "")


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("reward", "not a variant"),
        ("reward.source_weight=", "not a variant"),
        ("label.noise=0.1,label.noise=0.2", "not a variant"),
        ("reward.lambda=0.2", "unknown setting `reward.lambda`"),
        ("label.noise=2", "bad setting `label.noise`"),
        ("label.noise=0.1,ppo.deepspeed.nodes=2", "a variant with nodes or processes of its own"),
        ('label.noise=0.1,reward.deepspeed={"processes": 2}', "a variant with nodes or processes of its own"),
    ],
)
def test_what_is_no_variant_is_refused_before_anything_starts(variant: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config({}, variant)
    with pytest.raises(ValueError, match=said):
        RunFile(noise_variants=(variant,))


@pytest.mark.parametrize(
    ("sweep", "variant", "said"),
    [
        ("reward_variants", "reward.source_weight=0,ppo.kl_coef=0.1", ""),
        ("reward_variants", "sft.num_epochs=4", "Take `sft.num_epochs` out: nothing reads it there"),
        ("reward_variants", "label.noise=0.1", "Take `label.noise` out"),
        ("noise_variants", "label.noise=0.1,reward.num_epochs=2", ""),
        ("noise_variants", "label.noise=0.1,label.rule=gold", "Take `label.rule` out"),
        ("noise_variants", "reward.num_epochs=2", "Add label.noise"),
    ],
)
def test_a_sweep_takes_only_what_it_trains_anew(sweep: str, variant: str, said: str) -> None:
    if not said:
        assert RunFile.model_validate({sweep: [variant]})
    else:
        with pytest.raises(ValueError, match=said):
            RunFile.model_validate({sweep: [variant]})


def test_names_carry_the_variant_and_give_it_back() -> None:
    assert named("ppo_model", "") == "ppo_model"
    name = named("ppo_model", "reward.source_weight=0.25")
    assert name == "ppo_model@reward.source_weight=0.25"
    assert point(name) == ("ppo_model", "reward.source_weight", 0.25)


@pytest.mark.parametrize("name", ["ppo_model", "ppo_agreement@label.rule=gold,label.calibrate=none", "a@b=c"])
def test_what_is_not_one_number_is_no_point_of_a_sweep(name: str) -> None:
    assert point(name) is None
