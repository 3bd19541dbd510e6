"""Near-duplicates: which pairs are, which are not, and how far MinHash may be off."""

import random

import numpy as np
import pytest

from limbeck.near import NUM_PERM, Banding, alike, candidates, keep_first, shingles, similarity
from limbeck.wording import wording

PROBLEM = (
    "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting for her two "
    "neighbours, and afterwards she walked home through the old park. How much did she earn in total?"
)
LETTERS = "Sort these letters: d c b a h g f e i k j l m o n p"
CHINESE = "小明有三个苹果和五个梨,他把其中的两个苹果送给了妹妹,请问小明现在一共还剩下多少个水果?"
HINDI = (
    "राम के पास कुल 12 सेब थे और उसने अपनी छोटी बहन को उनमें से 5 सेब दे दिए, फिर वह पुराने बगीचे से होकर अपने घर "
    "चला गया, अब राम के पास कितने सेब बचे हैं"
)
THAI = "สมชายมีแอปเปิ้ล 12 ผลและให้น้องสาวไป 5 ผล ตอนนี้สมชายเหลือแอปเปิ้ลกี่ผล"
RUSSIAN = (
    "Утром возле дома маленькой Маши было 12 красных яблок, днём она отдала своему младшему брату 5 яблок и "
    "потом пошла домой через старый парк. Сколько яблок теперь осталось возле дома?"
)

NEAR = {
    "case and punctuation": (PROBLEM, PROBLEM.upper().replace(",", " -")),
    "one word changed": (PROBLEM, PROBLEM.replace("neighbours", "cousins")),
    "a name changed": (PROBLEM, PROBLEM.replace("Weng", "Anna")),
    "an instruction after it": (PROBLEM, PROBLEM + " Explain each step."),
    "a short text with other punctuation": ("What is 3 + 4?", "What is 3 + 4"),
    "Chinese, one word changed": (CHINESE, CHINESE.replace("妹妹", "弟弟")),
    "Hindi, one word changed": (HINDI, HINDI.replace("छोटी", "बड़ी")),
    "Thai, one word changed": (THAI, THAI.replace("สาว", "ชาย")),
    "Russian, one word changed": (RUSSIAN, RUSSIAN.replace("старый", "новый")),
}
NOT_NEAR = {
    "another number": (PROBLEM, PROBLEM.replace("12", "13")),
    "another number word": (PROBLEM, PROBLEM.replace("two", "three")),
    "numbers changed about": (PROBLEM, PROBLEM.replace("12", "#").replace("50", "12").replace("#", "50")),
    "one number more": (PROBLEM, PROBLEM + " She spent 3 dollars."),
    "another sign in a long sum": ("+".join(map(str, range(30))), "+".join(map(str, range(29))) + "-29"),
    "other letters": (LETTERS, LETTERS.replace("d c", "c d")),
    "another variable": (PROBLEM + " Call it x.", PROBLEM + " Call it y."),
    "short and of one other word": ("How tall is Mount Everest?", "How tall is Mount Fuji?"),
    "short and in another case": ("Is Polish polish?", "Is polish polish?"),
    "another question": (PROBLEM, "How many legs do a spider and an ant have together, if none is lost?"),
    "Chinese numerals": (CHINESE, CHINESE.replace("五", "六")),
    "Hindi digits": (HINDI.replace("12", "१२"), HINDI.replace("12", "१३")),
    "half of it": (PROBLEM, PROBLEM[: len(PROBLEM) // 2]),
    "nothing and something": ("?!", PROBLEM),
}


@pytest.mark.parametrize(("one", "other"), NEAR.values(), ids=NEAR)
def test_near_duplicates(one: str, other: str) -> None:
    assert 0.8 <= similarity(wording(one), wording(other)) <= 1.0
    assert pairs([one, other]) == {(0, 1)} or wording(one).key == wording(other).key


@pytest.mark.parametrize(("one", "other"), NOT_NEAR.values(), ids=NOT_NEAR)
def test_no_near_duplicates(one: str, other: str) -> None:
    assert similarity(wording(one), wording(other)) < 0.8
    assert similarity(wording(other), wording(one)) < 0.8


def pairs(texts: list[str], threshold: float = 0.8, max_alike: int = 10) -> set[tuple[int, int]]:
    """The near-duplicates among texts of at least 12 words."""
    wordings = [wording(text) for text in texts]
    banding = Banding(threshold)
    bands = np.stack([banding.bands(item) for item in wordings])
    found = alike(bands, wordings.__getitem__, threshold, max_alike)
    return {(first, second) for first, second in found.pairs_P_2.tolist()}


def texts_of(num_words: int, num_shared: int, rng: random.Random) -> tuple[str, str]:
    """Two texts that share their first words."""
    words = ["".join(rng.choices("abcdefghij", k=9)) for _ in range(2 * num_words)]
    return " ".join(words[:num_words]), " ".join(
        words[:num_shared] + words[num_words : 2 * num_words - num_shared]
    )


def test_the_threshold_belongs_to_the_near_duplicates() -> None:
    """50 words are 48 shingles; with 10 and 11 of them gone at the end 38 / 48 and 37 / 48 are shared."""
    words = [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(50)]
    whole, part = " ".join(words), " ".join(words[:40])
    true = 38 / 48
    assert similarity(wording(whole), wording(part)) == pytest.approx(true)
    assert pairs([whole, part], threshold=true) == {(0, 1)}
    assert pairs([whole, part], threshold=true + 1e-9) == set()
    assert pairs([whole, whole], threshold=1.0) == {(0, 1)}
    assert pairs([whole, part], threshold=1.0) == set()


@pytest.mark.parametrize("num_shared", [20, 60, 100, 140])
def test_the_estimate_is_within_the_error_of_minhash(num_shared: int) -> None:
    """Its standard error is sqrt(s (1 - s) / 128); over 60 pairs the mean is within 4 errors of the mean."""
    rng = random.Random(num_shared)  # noqa: S311
    banding = Banding(0.8)
    errors = []
    for _ in range(60):
        one, other = (wording(text) for text in texts_of(150, num_shared, rng))
        true = similarity(one, other)
        estimate = float((banding.signature(one) == banding.signature(other)).mean())
        error = np.sqrt(true * (1 - true) / NUM_PERM)
        assert abs(estimate - true) < 5 * error
        errors.append((estimate - true) / error)
    assert abs(np.mean(errors)) < 4 / np.sqrt(60)
    assert 0.6 < np.std(errors) < 1.5


def test_pairs_at_the_threshold_are_mostly_proposed_and_pairs_far_below_are_not() -> None:
    rng = random.Random(7)  # noqa: S311
    banding = Banding(0.8)

    def share_proposed(num_shared: int) -> float:
        hits = []
        for _ in range(200):
            one, other = (wording(text) for text in texts_of(100, num_shared, rng))
            hits.append(bool((banding.bands(one) == banding.bands(other)).any()))
        return float(np.mean(hits))

    assert len(shingles(wording(texts_of(100, 89, rng)[0]))) == 98
    assert share_proposed(89) > 0.9  # similarity 0.8
    assert share_proposed(95) == 1.0  # 0.9
    assert share_proposed(50) < 0.1  # 0.33


@pytest.mark.parametrize("threshold", [0.5, 0.65, 0.8, 0.95, 1.0])
def test_every_threshold_has_its_bands(threshold: float) -> None:
    assert pairs([PROBLEM, PROBLEM + "!", LETTERS], threshold) <= {(0, 1)}
    assert pairs([PROBLEM, PROBLEM.lower(), LETTERS], threshold) == {(0, 1)}


FILLED = [
    f"Is this review of the film friendly or unfriendly to its maker: {word}ish, plainly"
    for word in ("blu", "re", "gree", "boo", "fe", "child", "old", "longer", "sweet", "dull", "small", "big")
]


@pytest.mark.parametrize(("number", "stays"), [(10, False), (11, True), (12, True)])
def test_more_than_max_alike_that_are_alike_are_a_template(number: int, stays: bool) -> None:
    texts = [*FILLED[:number], PROBLEM, PROBLEM.replace("neighbours", "cousins")]
    found = pairs(texts, threshold=0.6)
    assert (number, number + 1) in found
    assert bool(found - {(number, number + 1)}) is not stays


def test_a_huge_template_costs_no_comparison() -> None:
    asked: list[int] = []
    same = wording(PROBLEM)
    bands = np.stack([Banding(0.8).bands(same)] * 5000)

    def wording_of(row: int) -> object:
        asked.append(row)
        return same

    found = alike(bands, wording_of, 0.8, 10)  # type: ignore[arg-type]
    assert found.template_N.all()
    assert not len(found.pairs_P_2)
    assert not asked


def test_candidates_are_named_once_in_order() -> None:
    bands = np.array([[1, 5], [2, 6], [1, 5], [3, 6], [1, 7]], dtype=np.uint64)
    found = candidates(bands, 10)
    assert found.pairs_P_2.tolist() == [[0, 2], [0, 4], [1, 3], [2, 4]]
    assert not found.crowded_N.any()
    crowded = candidates(bands, 2)
    assert crowded.pairs_P_2.tolist() == [[0, 2], [1, 3]]
    assert crowded.crowded_N.tolist() == [True, False, True, False, True]
    assert len(candidates(np.empty((0, 2), dtype=np.uint64), 10).pairs_P_2) == 0


def test_what_leaves_has_its_counterpart_among_what_stays() -> None:
    """1 is like 0 and leaves; 2 is like 1 alone and stays, 3 is like 2 and leaves."""
    assert keep_first([(0, 1), (1, 2), (2, 3)]) == {1: 0, 3: 2}
    assert keep_first([(0, 1), (0, 2), (1, 2)]) == {1: 0, 2: 0}
    assert keep_first([]) == {}
