"""Which prompts of a data set leave, seen from outside: texts in, texts out."""

import random
from collections import Counter
from collections.abc import Iterable

import pytest

from limbeck.cleaning import Cleaned, clean
from limbeck.demo.task import make_split
from limbeck.records import row_id

STORY = (
    "Natalia sold clips to {} of her friends in April, and then she sold half as many clips in May, after "
    "the long holidays were over. How many clips did Natalia sell altogether in April and May?"
)
OTHER = (
    "A robe takes 2 bolts of blue fibre and half that much white fibre, says the old tailor of the village. "
    "How many bolts in total does it take?"
)


def cleaned(
    train: Iterable[str],
    heldout: Iterable[str] = (),
    near_duplicates: float | None = 0.8,
    ngram: int | None = 13,
    max_alike: int = 10,
) -> Cleaned:
    """Clean texts, whose ids are hashes of them."""

    def named(texts: Iterable[str]) -> list[tuple[str, str]]:
        return [(row_id(text), text) for text in texts]

    return clean(named(train), named(heldout), near_duplicates, ngram, max_alike)


def leaving(texts: Iterable[str], made: Cleaned) -> dict[str, str]:
    """Text -> reason."""
    return {text: made.leaving[row_id(text)].reason for text in texts if row_id(text) in made.leaving}


def test_the_demo_loses_nothing() -> None:
    for seed in range(1, 4):
        split = make_split(seed)
        train, heldout = ([item.prompt for item in side] for side in (split.train, split.heldout))
        made = cleaned(train, heldout)
        assert not made.leaving
        assert (made.train.num_prompts, made.heldout.num_prompts) == (500, 1000)
        assert not made.train.num_from_templates
        assert not made.heldout.num_alike


def test_problems_that_differ_in_numbers_stay() -> None:
    """Synthetic arithmetic and number variants of one problem, on both sides of the split."""
    problems = [STORY.format(number) for number in range(2, 400)]
    sums = [f"What is {a} + {b}?" for a in range(20) for b in range(20)]
    long_sums = ["What is " + " + ".join(map(str, range(n, n + 20))) + "?" for n in range(100)]
    texts = [*problems, *sums, *long_sums]
    made = cleaned(texts[::2], texts[1::2])
    assert not made.leaving
    assert not made.heldout.num_alike


def test_a_copy_is_found_among_hundreds_of_number_variants() -> None:
    """They are no template either, of which copies would stay."""
    problems = [STORY.format(number) for number in range(2, 400)]
    copy = problems[50].replace("Natalia", "Maria", 1)
    made = cleaned([*problems, copy])
    assert len(leaving([problems[50], copy], made)) == len(made.leaving) == 1
    assert not made.train.num_from_templates


@pytest.mark.parametrize("number", [2, 5, 8, 12])
def test_number_variants_of_one_problem_stay_however_few_they_are(number: int) -> None:
    """As in GSM-Plus, where each problem has eight."""
    variants = [STORY.format(48 + n) for n in range(number)]
    assert not cleaned(variants[:1], variants[1:]).leaving
    assert not cleaned(variants[1:], variants[:1]).leaving
    later = [
        f"{STORY.format(48)} Start with {n} clips." for n in range(number)
    ]  # 91% of the runs are the same
    assert not cleaned(later[1:], later[:1]).leaving


def test_of_near_duplicates_the_lowest_id_stays() -> None:
    texts = [
        STORY.format("48"),
        STORY.format("48").replace("Natalia", "Maria", 1),
        STORY.format("48").lower(),
        OTHER,
    ]
    made = cleaned(texts)
    (kept,) = [text for text in texts[:3] if row_id(text) not in made.leaving]
    assert row_id(kept) == min(map(row_id, texts[:3]))
    assert {item.other_id for item in made.leaving.values()} == {row_id(kept)}
    assert {item.reason for item in made.leaving.values()} == {"near duplicate"}
    assert made.train.num_prompts == 2
    assert made.train.num_alike == {"near duplicate": 2}


def test_the_order_of_the_rows_decides_nothing() -> None:
    rng = random.Random(3)  # noqa: S311
    words = ["ash", "birch", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew", "lime"]
    texts = []
    for number in range(60):
        text = " ".join(rng.choices(words, k=40)) + f" {number}"
        texts += [text, text.replace("ash", "rose", 1), text.upper(), f"{text}!?"][: rng.randrange(1, 5)]
    heldout = [text.replace("oak", "sloe", 1) + " Say it." for text in texts[:20]]
    texts += [" ".join([*rng.choices(words, k=60), text]) for text in heldout[:5]]
    made = cleaned(texts, heldout)
    assert len(made.leaving) > 40
    assert len(set(Counter(item.reason for item in made.leaving.values()))) == 3
    for seed in range(3):
        rng = random.Random(seed)  # noqa: S311
        rng.shuffle(texts)
        rng.shuffle(heldout)
        assert cleaned(texts, heldout) == made


def test_what_leaves_is_like_something_that_stays() -> None:
    rng = random.Random(4)  # noqa: S311
    words = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(90)]
    chain = [" ".join(words[n : n + 60]) for n in range(0, 30, 3)]  # each is like its neighbours alone
    made = cleaned(chain, near_duplicates=0.85)
    assert made.leaving
    for text in chain:
        if row_id(text) in made.leaving:
            assert made.leaving[row_id(text)].other_id not in made.leaving
    assert 3 <= len(made.leaving) <= 7  # of ten in a row at least every third stays


@pytest.mark.parametrize("seed", range(6))
def test_what_is_like_a_contaminated_prompt_alone_stays(seed: int) -> None:
    """The contaminated one is no counterpart: it leaves itself. Ids are in either order."""
    rng = random.Random(seed)  # noqa: S311
    words = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(66)]
    heldout, contaminated, other = (" ".join(words[n : n + 60]) for n in (0, 3, 6))
    made = cleaned([contaminated, other], [heldout], near_duplicates=0.85, ngram=None)
    assert leaving([contaminated, other], made) == {contaminated: "contaminated: near duplicate"}


def test_near_duplicates_across_the_split_leave_the_train_side() -> None:
    heldout = [STORY.format(48)]
    train = [STORY.format(48).replace("Natalia", "Maria", 1), STORY.format(48) + "!", OTHER]
    made = cleaned(train, heldout, ngram=None)
    assert leaving(train, made) == dict.fromkeys(train[:2], "contaminated: near duplicate")
    assert {item.other_id for item in made.leaving.values()} == {row_id(heldout[0])}
    assert made.heldout.num_prompts == 1


def test_short_prompts_of_the_same_words_are_the_same() -> None:
    train = ["What is 3 + 4?", "What is 3+4 ?", "What is 3 - 4?", "what is 3 + 4?", "Name x.", "Name y."]
    made = cleaned(train)
    assert set(leaving(train, made).values()) == {"near duplicate"}
    assert len(set(train[:2]) & set(leaving(train, made))) == len(made.leaving) == 1
    assert leaving(train, cleaned(train, ["What is 3+4"])) == dict.fromkeys(
        train[:2], "contaminated: near duplicate"
    )


def test_copies_in_other_punctuation_leave_however_many_they_are() -> None:
    """A template is more than ten prompts that are alike, not one prompt thirty times."""
    copies = [STORY.format(48) + "." * n for n in range(30)]
    made = cleaned(copies)
    assert len(made.leaving) == 29
    assert not made.train.num_from_templates


def test_all_copies_of_a_contaminated_prompt_leave() -> None:
    inside = f"A friend asked me this one today, and I had no idea at all: {OTHER} What would you say to her?"
    copies = [inside, inside + ".", inside + "..."]
    made = cleaned(copies, [OTHER])
    assert leaving(copies, made) == dict.fromkeys(copies, "contaminated: n-gram")
    assert {item.other_id for item in made.leaving.values()} == {row_id(OTHER)}


def test_near_duplicates_within_the_held_out_side_are_counted_and_stay() -> None:
    heldout = [
        STORY.format(48),
        STORY.format(48).replace("Natalia", "Maria", 1),
        STORY.format(48) + "..",
        OTHER,
    ]
    made = cleaned([], heldout)
    assert not made.leaving
    assert made.heldout.num_prompts == 4
    assert made.heldout.num_alike == {"near duplicate": 2}
    assert len(made.heldout.examples) == 2


def test_a_filled_in_template_stays_and_is_counted() -> None:
    task = (
        "Read the review below and say in one word whether it is friendly or unfriendly to the film, to its "
        "maker and to those who play in it. Review: {} film"
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    train = [task.format(f"{a}{b}sh {b}{a}rk") for a in letters[:6] for b in letters[:5]]
    made = cleaned(train, [task.format("a very dull")])
    assert not made.leaving
    assert made.train.num_from_templates == 30
    assert len(cleaned(train[:8]).leaving) == 7


def test_rules_can_be_switched_off() -> None:
    train = [STORY.format(48), STORY.format(48).lower(), STORY.format(48) + "!"]
    heldout = [STORY.format(48).upper()]
    assert not cleaned(train, heldout, near_duplicates=None, ngram=None).leaving
    assert set(leaving(train, cleaned(train, heldout, near_duplicates=None)).values()) == {
        "contaminated: n-gram"
    }
    assert len(cleaned(train, near_duplicates=None).leaving) == 0


def test_statistics_are_of_the_prompts_that_stay() -> None:
    texts = [" ".join(["word"] * n) + f" {n}" for n in range(1, 101)]
    made = cleaned([*texts, STORY.format(48), STORY.format(48) + "."])
    words = made.train.words
    assert made.train.num_prompts == 101
    assert (words.p5, words.median, words.p95, words.maximum) == (7, 51, 96, 101)
    assert made.train.numbers.maximum == 1
    assert made.train.characters.maximum == max(map(len, texts))
    assert made.heldout.model_dump()["words"] == {"p5": 0, "median": 0, "p95": 0, "maximum": 0}


def test_examples_are_ten_of_each_reason_and_cut() -> None:
    texts = [f"{STORY.format(number)} {'Why? ' * 200}" for number in range(30)]
    made = cleaned([*texts, *(text + "!" for text in texts)])
    assert made.train.num_alike == {"near duplicate": 30}
    assert len(made.train.examples) == 10
    assert [item.prompt_id for item in made.train.examples] == sorted(made.leaving)[:10]
    for item in made.train.examples:
        assert made.leaving[item.prompt_id].other_id == item.other_id
        assert len(item.prompt) == len(item.other) == 500
        assert item.similarity == pytest.approx(1.0)
