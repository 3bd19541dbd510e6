"""Near-duplicates: prompts of almost the same words and exactly the same figures.

Two texts are near-duplicates when the Jaccard similarity of their shingles (runs of 3 words) reaches a
threshold and their figures (`limbeck.wording`) are the same in the same order. MinHash proposes pairs, the
true similarity decides. Short texts, of which one word is too large a part, are compared by all their words.

What many prompts share is no copy but a template that was filled in, "Is this review friendly? ...": more
than `max_alike` prompts that are alike stay, all of them.

N: texts. B: bands. R: MinHash values of a band. P: pairs.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from limbeck.wording import POWERS, HashArray, Wording, runs

SHINGLE_WORDS = 3
MIN_WORDS = 12
"""Shorter texts are near-duplicates only with the same words in the same order."""
NUM_PERM = 128
"""MinHash values of a text: their share that is equal has a standard error of at most 0.044."""
MIN_RECALL = 0.95
"""Probability with which a pair at the threshold is proposed; far above it none is missed."""

RowArray = NDArray[np.int64]


class Banding:
    """Signs texts so that similar ones are likely to agree in a whole band of their signature.

    Two texts of Jaccard similarity s agree in one of B bands of R values with probability
    `1 - (1 - s^R)^B`.

    Source: Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman and Ullman,
    "Mining of Massive Datasets", section 3.4.
    """

    def __init__(self, threshold: float) -> None:
        """Choose the longest bands, which propose the fewest pairs in vain, that still miss few.

        Args:
            threshold: Jaccard similarity, 0.5 to 1.
        """
        self._rows = max(
            rows
            for rows in range(1, len(POWERS) + 1)
            if 1 - (1 - threshold**rows) ** (NUM_PERM // rows) >= MIN_RECALL
        )
        self.num_bands = NUM_PERM // self._rows
        self._minhash = MinHash(num_perm=NUM_PERM, hashfunc=int)

    def signature(self, wording: Wording) -> NDArray[np.uint32]:
        """The MinHash values of a text's shingles; at least 3 words."""
        self._minhash.clear()
        self._minhash.update_batch((shingles(wording) >> np.uint64(32)).tolist())
        return np.asarray(self._minhash.digest(), dtype=np.uint32)

    def bands(self, wording: Wording) -> HashArray:
        """A hash of each band of a text's signature and of its figures, of shape [B]."""
        used = self.signature(wording)[: self.num_bands * self._rows]
        signature_B_R = used.reshape(self.num_bands, self._rows).astype(np.uint64)
        # The figures' hash may be large: modulo 2 to the 64 as all else.
        return signature_B_R @ POWERS[: self._rows] + np.uint64(wording.figures)


class Candidates(NamedTuple):
    """What may be alike, by the bands."""

    pairs_P_2: RowArray
    """Pairs of rows that agree in a band; the lower row first, each once, sorted."""
    crowded_N: NDArray[np.bool_]
    """Rows that agree in a band with more than `max_alike - 1` others, too many to be compared."""


def shingles(wording: Wording) -> HashArray:
    """The runs of 3 words of a text, each once."""
    return runs(wording.words_T, SHINGLE_WORDS)


def similarity(one: Wording, other: Wording) -> float:
    """Jaccard similarity of two texts' shingles, 0 to 1; 0 when their figures differ or one is short."""
    if one.key == other.key:
        return 1.0
    if one.figures != other.figures or min(len(one.words_T), len(other.words_T)) < MIN_WORDS:
        return 0.0
    first, second = shingles(one), shingles(other)
    num_shared = len(np.intersect1d(first, second, assume_unique=True))
    return num_shared / (len(first) + len(second) - num_shared)


def candidates(bands_N_B: HashArray, max_alike: int) -> Candidates:
    """Pairs of texts that agree in a band: one band at a time is sorted, so memory stays at a few columns.

    Args:
        bands_N_B: From `Banding.bands`.
        max_alike: The largest number of texts that are compared with one another.
    """
    num_rows = len(bands_N_B)
    crowded_N = np.zeros(num_rows, dtype=np.bool_)
    pairs = np.empty(0, dtype=np.int64)  # a pair (i, j) is i * N + j
    for band_N in bands_N_B.T:
        order_N = np.argsort(band_N, kind="stable")
        sorted_N = band_N[order_N]
        starts = np.flatnonzero(np.append(True, sorted_N[1:] != sorted_N[:-1]))
        sizes = np.diff(np.append(starts, num_rows))
        size_N = np.repeat(sizes, sizes)  # how many agree with each
        crowded_N[order_N[size_N > max_alike]] = True
        for step in range(1, max_alike):
            same = (sorted_N[step:] == sorted_N[:-step]) & (size_N[step:] <= max_alike)
            if not same.any():
                break
            ends = np.sort(np.stack([order_N[:-step][same], order_N[step:][same]]), axis=0)
            pairs = np.union1d(pairs, ends[0] * num_rows + ends[1])
    return Candidates(np.stack(np.divmod(pairs, max(num_rows, 1)), axis=1), crowded_N)


class Alike(NamedTuple):
    """Pairs of texts that are near-duplicates."""

    pairs_P_2: RowArray
    """The lower row first, sorted."""
    similarity_P: NDArray[np.float64]
    template_N: NDArray[np.bool_]
    """Rows that are like too many others; they are in no pair."""


def alike(
    bands_N_B: HashArray, wording_of: Callable[[int], Wording], threshold: float, max_alike: int
) -> Alike:
    """Find the pairs whose true similarity reaches the threshold.

    Args:
        bands_N_B: From `Banding.bands`.
        wording_of: The text of a row again; asked for candidates alone.
        threshold: The least Jaccard similarity, above 0 and up to 1.
        max_alike: More texts than this that are alike, directly or through one another, are a template.
    """
    found = candidates(bands_N_B, max_alike)
    similar = np.empty(len(found.pairs_P_2), dtype=np.float64)
    last, one = -1, None
    for index, (first, second) in enumerate(found.pairs_P_2.tolist()):
        if one is None or first != last:
            last, one = first, wording_of(first)
        similar[index] = similarity(one, wording_of(second))
    near = similar >= threshold
    pairs_P_2, similar = found.pairs_P_2[near], similar[near]

    num_rows = len(bands_N_B)
    links = coo_array((np.ones(len(pairs_P_2)), tuple(pairs_P_2.T)), shape=(num_rows, num_rows))
    num_groups, group_N = connected_components(links, directed=False)
    too_many = np.bincount(group_N, minlength=num_groups) > max_alike
    too_many[group_N[found.crowded_N]] = True
    template_N = too_many[group_N]
    stay = ~template_N[pairs_P_2[:, 0]]
    return Alike(pairs_P_2[stay], similar[stay], template_N)


def keep_first(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Which rows leave so that no two of a pair are left: row -> the kept row that it is paired with.

    In the order of the rows each one leaves if it is paired with an earlier one that stays. So whatever
    leaves has its counterpart among what is kept, which a group of linked pairs would not promise.

    Args:
        pairs: The lower row first, sorted.
    """
    leaving: dict[int, int] = {}
    for first, second in pairs:
        if first not in leaving:
            leaving.setdefault(second, first)
    return leaving
