"""Labels that are made wrong on purpose: how many, which, and by what answers."""

import pytest

from limbeck.ablation.noise import NOISE, with_noise
from limbeck.records import PseudoLabel


def labels(num: int, answer: str = "right") -> list[PseudoLabel]:
    return [
        PseudoLabel(
            prompt_id=f"p{number}",
            answer=answer if number % 10 else None,
            vote_share=1.0,
            num_votes=4,
            reason="labelled" if number % 10 else "tie",
            validation=False,
        )
        for number in range(num)
    ]


def same(a: str, b: str) -> bool:
    return a == b


ANSWERS = {f"p{number}": ["right", "wrong", "right", "odd"] for number in range(100)}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_share_of_the_labelled_prompts_becomes_wrong_and_says_so(share: float) -> None:
    made = with_noise(labels(100), ANSWERS, same, share, seed=1)
    wrong = [row for row in made if row.reason == NOISE]
    assert len(wrong) == round(share * 90)
    assert {row.answer for row in wrong} <= {"wrong", "odd"}
    assert [row for row in made if row.reason != NOISE] == [
        row for row in labels(100) if row.prompt_id not in {item.prompt_id for item in wrong}
    ]


def test_more_noise_replaces_all_that_less_noise_does_by_the_same_answers() -> None:
    little, much = (with_noise(labels(100), ANSWERS, same, share, seed=1) for share in (0.1, 0.4))
    assert all(more == less for less, more in zip(little, much, strict=True) if less.reason == NOISE)


def test_another_seed_chooses_others_and_the_same_seed_the_same() -> None:
    first, again, other = (with_noise(labels(100), ANSWERS, same, 0.2, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_where_all_answers_are_alike_the_label_of_another_prompt_is_taken() -> None:
    mixed = labels(20, "a") + [
        row.model_copy(update={"prompt_id": f"q{number}", "answer": "b"})
        for number, row in enumerate(labels(20)[1:9])
    ]
    made = with_noise(mixed, {}, same, 1.0, seed=3)
    assert all(row.answer == ("b" if row.prompt_id.startswith("p") else "a") for row in made if row.answer)


def test_a_label_stays_where_no_other_answer_is_known() -> None:
    assert with_noise(labels(20), {}, same, 1.0, seed=1) == labels(20)
