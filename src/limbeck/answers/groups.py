"""Answers of one prompt in groups: what is the same answer is written in one way, so votes can be counted."""

from collections import Counter
from collections.abc import Callable, Iterable


def representatives(
    answers: Iterable[str | None], same: Callable[[str, str], bool], first: str | None = None
) -> dict[str, str]:
    """The way of writing that stands for each answer.

    Being the same need not be transitive (0.333333 and 0.333334 are both 1/3), so each answer is compared
    with those that already stand for a group, and joins the first that it fits.

    Args:
        answers: Of one prompt, repeated as often as they were given; None does not count.
        same: Whether two are the same.
        first: One that stands for its group whatever its number: gold, or a label.

    Returns:
        Answer -> the most frequent one of its group; of equally frequent ones that which came first.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    stands: dict[str, str] = {} if first is None else {first: first}
    heads = list(stands)
    for answer, _ in counts.most_common():  # equal counts keep their order
        if answer not in stands:
            head = next((head for head in heads if same(answer, head)), answer)
            stands[answer] = head
            if head is answer:
                heads.append(answer)
    return stands
