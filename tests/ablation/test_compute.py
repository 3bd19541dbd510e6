"""SFT at equal compute: the formulas by hand."""

from dataclasses import replace

import pytest

from limbeck.ablation.compute import Counts, equal_epochs, ppo_flops, reward_flops, sft_flops

COUNTS = Counts(
    student=10,
    scorer=20,
    critic=20,
    sft_rows=100,
    sft_epochs=2.0,
    student_rows=50,
    reward_rows=200,
    reward_epochs=1.0,
    rollouts=30,
    ppo_epochs=2,
    checked=5,
)


def test_each_stage_takes_what_a_hand_counts() -> None:
    assert sft_flops(COUNTS) == 6 * 10 * 100 * 2
    assert reward_flops(COUNTS) == 2 * 10 * 50 + 6 * 20 * 200
    seen = 30 * 2 * (10 + 10 + 10 + 20 + 20)
    assert ppo_flops(COUNTS) == seen + 6 * 30 * 30 * 2 + 5 * 2 * (10 + 20)


def test_sft_of_so_many_epochs_takes_what_the_whole_method_does() -> None:
    longer = replace(COUNTS, sft_epochs=equal_epochs(COUNTS))
    assert sft_flops(longer) == pytest.approx(sft_flops(COUNTS) + reward_flops(COUNTS) + ppo_flops(COUNTS))


def test_without_reward_model_and_ppo_the_epochs_stay() -> None:
    alone = replace(COUNTS, student_rows=0, reward_rows=0, rollouts=0, checked=0)
    assert equal_epochs(alone) == 2.0
