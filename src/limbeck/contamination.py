"""Contamination: train texts that share a run of n words with a held-out text.

One shared run is enough. A run in more than `max_alike` train texts is common wording, such as a template or
an instruction, and says nothing.

Source: Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C: 13-grams of lower-case words
without punctuation; those that matched more than 10 training documents were ignored. There only the piece
around the run left a long document; a prompt leaves whole.

G: runs of the held-out texts. H: hits.
"""

from array import array
from collections.abc import Iterable

import numpy as np

from limbeck.wording import HashArray


class Overlap:
    """The runs of the held-out texts, and which train texts have one."""

    def __init__(self, heldout: Iterable[tuple[int, HashArray]], max_alike: int) -> None:
        """Take the held-out side.

        Args:
            heldout: The id of each held-out text, any 64 bits, and its runs from `limbeck.wording.runs`.
            max_alike: Runs in more train texts than this are ignored.
        """
        hashes, owners = array("Q"), array("Q")
        for owner, runs in heldout:
            hashes.frombytes(runs.tobytes())
            owners.extend([owner] * len(runs))
        all_hashes, all_owners = np.frombuffer(hashes, np.uint64), np.frombuffer(owners, np.uint64)
        order = np.lexsort((all_owners, all_hashes))
        self._runs_G, first = np.unique(all_hashes[order], return_index=True)
        self._owner_G = all_owners[order][first]  # the lowest id, whatever the order
        self._count_G = np.zeros(len(self._runs_G), dtype=np.uint32)
        self._hit_rows, self._hit_runs = array("q"), array("q")
        self._max_alike = max_alike

    def add(self, row: int, runs: HashArray) -> None:
        """Look for the runs of one train text, of which each is given once."""
        if not len(self._runs_G):
            return
        place = np.minimum(np.searchsorted(self._runs_G, runs), len(self._runs_G) - 1)
        hits = place[self._runs_G[place] == runs]
        self._count_G[hits] += 1
        # Where a run is too common already, one hit more would only cost memory.
        hits = hits[self._count_G[hits] <= self._max_alike]
        self._hit_rows.extend([row] * len(hits))
        self._hit_runs.extend(hits.tolist())

    def contaminated(self) -> dict[int, int]:
        """Train rows that share a run that is not common -> the lowest held-out id with one of these."""
        rows_H, runs_H = np.frombuffer(self._hit_rows, np.int64), np.frombuffer(self._hit_runs, np.int64)
        rare = self._count_G[runs_H] <= self._max_alike
        found: dict[int, int] = {}
        for row, owner in zip(rows_H[rare].tolist(), self._owner_G[runs_H[rare]].tolist(), strict=True):
            found[row] = min(owner, found.get(row, owner))
        return found
