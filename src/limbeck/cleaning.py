"""Which train prompts leave: near-duplicates of each other, and what is too much like a held-out prompt.

Held-out prompts always stay: a test set is not tuned in silence. Of train prompts that are alike the one with
the lowest id stays, and an id is a hash; so the order of the rows decides nothing.

N: places, held-out prompts first, both sides in the order of their ids.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from heapq import nsmallest
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from limbeck.contamination import Overlap
from limbeck.data_statistics import (
    MAX_EXAMPLE_CHARS,
    MAX_EXAMPLES,
    DataStatistics,
    LikePair,
    Reason,
    Side,
    quantiles,
)
from limbeck.hashed_prompts import HashedPrompts
from limbeck.near import Alike, Banding, RowArray, keep_first
from limbeck.wording import HashArray, runs


class Leaving(NamedTuple):
    """Why a train prompt leaves."""

    reason: Reason
    other_id: str
    """The prompt that it is too much like, and that stays."""


class Cleaned(NamedTuple):
    """The result."""

    leaving: dict[str, Leaving]
    """Of the train prompts that leave, by id."""
    train: DataStatistics
    heldout: DataStatistics


class _Fate(NamedTuple):
    """A `Leaving` by place."""

    reason: Reason
    other: int
    similarity: float | None


def clean(
    train: Iterable[tuple[str, str]],
    heldout: Iterable[tuple[str, str]],
    near_duplicates: float | None,
    ngram: int | None,
    max_alike: int,
) -> Cleaned:
    """Compare all prompts of both sides.

    Args:
        train: Id and text of the train prompts, each once; an id is 16 hexadecimal digits.
        heldout: The same of the held-out prompts; none of them is a train prompt.
        near_duplicates: Jaccard similarity from which two prompts are near-duplicates; None: none are.
        ngram: Words that train and held-out prompts may not share in one run; None: any.
        max_alike: What more prompts than this share is a template.
    """

    def heldout_runs() -> Iterator[HashArray]:
        for prompt_id, text in heldout:
            words_T = prompts.add(prompt_id, text).words_T
            yield runs(words_T, ngram) if ngram else words_T[:0]

    with HashedPrompts(Banding(near_duplicates) if near_duplicates is not None else None) as prompts:
        overlap = Overlap(heldout_runs(), max_alike)
        num_heldout = len(prompts.ids)
        for row, (prompt_id, text) in enumerate(train, num_heldout):
            words_T = prompts.add(prompt_id, text).words_T
            if ngram is not None:
                overlap.add(row, runs(words_T, ngram))

        ids = np.array(prompts.ids, dtype=np.uint64)
        num_prompts = len(ids)
        rows_N = np.lexsort((ids, np.arange(num_prompts) >= num_heldout))
        ids_N = ids[rows_N]
        by_ngram = prompts.with_figures(overlap.pairs(), rows_N)
        first_N = np.arange(num_prompts)
        near = Alike(np.empty((0, 2), np.int64), np.empty(0), np.zeros(num_prompts, dtype=np.bool_))
        if near_duplicates is not None:
            _, firsts, group_N = np.unique(
                np.array(prompts.keys, dtype=np.uint64)[rows_N], return_index=True, return_inverse=True
            )
            first_N = firsts[group_N]  # the first place with the same words
            near = prompts.alike(rows_N, first_N == np.arange(num_prompts), near_duplicates, max_alike)
        fates = _fates(near, first_N, by_ngram, num_heldout)
        alike_heldout = _alike_heldout(near, first_N, num_heldout)

        def name(place: int) -> str:
            return f"{ids_N[place]:016x}"

        def statistics(side: Side, alike: Mapping[int, _Fate], stay_N: NDArray[np.bool_]) -> DataStatistics:
            number = Counter(fate.reason for fate in alike.values())
            return DataStatistics(
                side=side,
                num_prompts=int(stay_N.sum()),
                words=quantiles(np.array(prompts.words)[rows_N][stay_N]),
                characters=quantiles(np.array(prompts.characters)[rows_N][stay_N]),
                numbers=quantiles(np.array(prompts.numbers)[rows_N][stay_N]),
                num_alike={reason: number[reason] for reason in get_args(Reason) if number[reason]},
                num_from_templates=int((near.template_N & stay_N).sum()),
                examples=tuple(
                    LikePair(
                        reason=reason,
                        prompt_id=name(place),
                        prompt=prompts.text(rows_N[place])[:MAX_EXAMPLE_CHARS],
                        other_id=name(alike[place].other),
                        other=prompts.text(rows_N[alike[place].other])[:MAX_EXAMPLE_CHARS],
                        similarity=alike[place].similarity,
                    )
                    for reason in get_args(Reason)
                    for place in nsmallest(
                        MAX_EXAMPLES, (place for place, fate in alike.items() if fate.reason == reason)
                    )
                ),
            )

        is_train_N = np.arange(num_prompts) >= num_heldout
        stay_N = is_train_N.copy()
        stay_N[list(fates)] = False
        return Cleaned(
            leaving={name(place): Leaving(fate.reason, name(fate.other)) for place, fate in fates.items()},
            train=statistics("train", fates, stay_N),
            heldout=statistics("held-out", alike_heldout, ~is_train_N),
        )


def _fates(near: Alike, first_N: RowArray, by_ngram: Mapping[int, int], num_heldout: int) -> dict[int, _Fate]:
    """The train places that leave, with what stays in their stead.

    Args:
        near: Pairs of near-duplicates among the places that are the first of their words.
        first_N: The first place with the same words.
        by_ngram: Train place -> held-out place that it shares a run of words with.
        num_heldout: From this place on prompts are train prompts.
    """
    fates: dict[int, _Fate] = {}
    pairs = zip(near.pairs_P_2.tolist(), near.similarity_P.tolist(), strict=True)
    among_train = []
    similarity_of: dict[tuple[int, int], float] = {}
    for (first, second), similarity in pairs:
        if first >= num_heldout:
            among_train.append((first, second))
            similarity_of[first, second] = similarity
        elif second >= num_heldout:
            known = fates.get(second)
            if known is None or similarity > (known.similarity or 0.0):
                fates[second] = _Fate("contaminated: near duplicate", first, similarity)
    for place, other in by_ngram.items():
        fates.setdefault(place, _Fate("contaminated: n-gram", other, None))
    clean_pairs = [(a, b) for a, b in among_train if a not in fates and b not in fates]
    for place, other in keep_first(clean_pairs).items():
        fates[place] = _Fate("near duplicate", other, similarity_of[other, place])
    for place in np.flatnonzero(first_N != np.arange(len(first_N))).tolist():
        first = int(first_N[place])
        if place < num_heldout:
            continue
        if first < num_heldout:
            fates[place] = _Fate("contaminated: near duplicate", first, 1.0)
        else:  # what happens to the first of these words happens to all
            fates[place] = fates.get(first, _Fate("near duplicate", first, 1.0))
    return fates


def _alike_heldout(near: Alike, first_N: RowArray, num_heldout: int) -> dict[int, _Fate]:
    """The held-out places that have a near-duplicate before them on their side; all stay."""
    found: dict[int, _Fate] = {}
    pairs = zip(near.pairs_P_2.tolist(), near.similarity_P.tolist(), strict=True)
    for (first, second), similarity in pairs:
        if second < num_heldout:
            found.setdefault(second, _Fate("near duplicate", first, similarity))
    for place in range(num_heldout):
        if first_N[place] != place:
            found[place] = _Fate("near duplicate", int(first_N[place]), 1.0)
    return found
