"""Contamination: train texts that hold most of a held-out text, word for word.

A run of n words in more than `max_alike` texts of one side is common wording, such as a template or an
instruction, and does not count. Of the others a train text must have at least 70%.

Source: runs of 13 lower-case words without punctuation, and that those in more than 10 training documents do
not count: Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C. A share of 70% (of 8-grams)
instead of a single run: Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with Pathways", section 8;
one run in common is usual among the problems of one kind.

G: different runs of the held-out texts. E: the entries (run, text that has it). H: hits. P: pairs.
"""

from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from limbeck.wording import HashArray

MIN_SHARE = 0.7


class Overlap:
    """The runs of the held-out texts, and which train texts have them."""

    def __init__(self, heldout: Iterable[HashArray], max_alike: int) -> None:
        """Take the held-out side.

        Args:
            heldout: The runs of each text, from `limbeck.wording.runs`.
            max_alike: Runs in more texts of one side than this do not count.
        """
        hashes, texts = array("Q"), array("i")
        for text, runs in enumerate(heldout):
            hashes.frombytes(runs.tobytes())
            texts.extend([text] * len(runs))
        hash_E = np.frombuffer(hashes, dtype=np.uint64)
        order_E = np.argsort(hash_E, kind="stable")
        hash_E = hash_E[order_E]
        self._text_E = np.frombuffer(texts, dtype=np.int32)[order_E]
        self._start_G = np.flatnonzero(np.append(True, hash_E[1:] != hash_E[:-1])[: len(hash_E)])
        self._runs_G = hash_E[self._start_G]
        self._texts_G = np.diff(np.append(self._start_G, len(hash_E)))
        # Whether any run begins with so many bits: 4 to 8 places a run. Most of a train text's runs are
        # nowhere, and a search among millions of runs would miss the processor's cache at each step.
        num_bits = max(1, (4 * len(self._runs_G)).bit_length())
        self._shift = np.uint64(64 - num_bits)
        self._begins = np.zeros(1 << num_bits, dtype=np.bool_)
        self._begins[self._runs_G >> self._shift] = True
        self._count_G = np.zeros(len(self._runs_G), dtype=np.int64)
        self._hit_rows, self._hit_runs = array("i"), array("i")
        self._max_alike = max_alike

    def add(self, row: int, runs: HashArray) -> None:
        """Look for the runs of one train text, of which each is given once."""
        if not len(self._runs_G):
            return
        runs = runs[self._begins[runs >> self._shift]]
        place = np.minimum(np.searchsorted(self._runs_G, runs), len(self._runs_G) - 1)
        hits = place[self._runs_G[place] == runs]
        self._count_G[hits] += 1
        # Where a run is too common already, one hit more would only cost memory.
        hits = hits[self._are_rare(hits)]
        self._hit_rows.extend([row] * len(hits))
        self._hit_runs.extend(hits.tolist())

    def pairs(self) -> NDArray[np.int64]:
        """Pairs (train row, held-out text) of which the first has most of the second, of shape [P, 2]."""
        rows_H, runs_H = np.array(self._hit_rows, dtype=np.int64), np.array(self._hit_runs, dtype=np.int64)
        rare_G = self._are_rare(np.arange(len(self._runs_G)))
        rows_H, runs_H = rows_H[rare_G[runs_H]], runs_H[rare_G[runs_H]]
        times_H = self._texts_G[runs_H]
        # The entries of a run follow one another: its first one, the next, ...
        entry = np.repeat(self._start_G[runs_H] - np.cumsum(times_H) + times_H, times_H)
        entry += np.arange(len(entry))
        num_texts = int(self._text_E.max(initial=-1)) + 1
        pairs, shared_P = np.unique(
            np.repeat(rows_H, times_H) * num_texts + self._text_E[entry], return_counts=True
        )
        rows_P, texts_P = np.divmod(pairs, max(num_texts, 1))
        rare_E = np.repeat(rare_G, self._texts_G)
        num_rare = np.bincount(self._text_E[rare_E], minlength=num_texts)
        found = shared_P >= MIN_SHARE * num_rare[texts_P]
        return np.stack([rows_P[found], texts_P[found]], axis=1)

    def _are_rare(self, runs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which runs count, by their index in G."""
        return (self._count_G[runs] <= self._max_alike) & (self._texts_G[runs] <= self._max_alike)
