"""Prompts that are to be compared, a million of them: hashes and lengths in memory, texts in a local file.

N: places, see `limbeck.cleaning`.
"""

import tempfile
from array import array
from typing import Self

import numpy as np
from numpy.typing import NDArray

from limbeck.near import MIN_WORDS, Alike, Banding, RowArray, alike
from limbeck.wording import Wording, holds_figures, wording


class HashedPrompts:
    """Prompts in the order in which they came: row 0, 1, ..."""

    def __init__(self, banding: Banding | None) -> None:
        """Start without prompts; `banding` is None where near-duplicates are of no interest."""
        self.ids, self.keys = array("Q"), array("Q")
        self.words, self.characters, self.numbers = array("I"), array("I"), array("I")
        self.bands, self.banded_rows = array("Q"), array("q")
        self._banding = banding
        self._ends = array("Q", [0])

    def __enter__(self) -> Self:
        """Open the file."""
        self._file = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        """Drop the file."""
        self._file.close()

    def add(self, prompt_id: str, text: str) -> Wording:
        """Take in one prompt, whose id is 16 hexadecimal digits."""
        words = wording(text)
        if self._banding and len(words.words_T) >= MIN_WORDS:
            self.banded_rows.append(len(self.ids))
            self.bands.frombytes(self._banding.bands(words).tobytes())
        self.ids.append(int(prompt_id, 16))
        self.keys.append(words.key)
        self.words.append(len(words.words_T))
        self.characters.append(len(text))
        self.numbers.append(words.num_numbers)
        data = text.encode()
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        return words

    def text(self, row: int) -> str:
        """The prompt of a row again."""
        self._file.seek(self._ends[row])
        return self._file.read(self._ends[row + 1] - self._ends[row]).decode()

    def with_figures(self, pairs_P_2: RowArray, rows_N: RowArray) -> dict[int, int]:
        """Of pairs (train row, held-out row) those whose first has the figures of the second.

        Args:
            pairs_P_2: The first row of a pair holds most words of the second.
            rows_N: The row of each place.

        Returns:
            Train place -> the first held-out place that it is paired with.
        """
        place_of = np.empty(len(rows_N), dtype=np.int64)
        place_of[rows_N] = np.arange(len(rows_N))
        found: dict[int, int] = {}
        last, train = -1, wording("")
        for row, heldout_row in pairs_P_2.tolist():
            if row != last:
                last, train = row, wording(self.text(row))
            if holds_figures(train, wording(self.text(heldout_row))):
                place = int(place_of[row])
                found[place] = min(int(place_of[heldout_row]), found.get(place, len(rows_N)))
        return found

    def alike(self, rows_N: RowArray, chosen_N: NDArray[np.bool_], threshold: float, max_alike: int) -> Alike:
        """Pairs of near-duplicates, by place.

        Args:
            rows_N: The row of each place.
            chosen_N: The places that are compared; short texts among them are left out.
            threshold: See `limbeck.near.alike`, as for the next.
            max_alike: How many may be alike.
        """
        band_row = np.full(len(rows_N), -1, dtype=np.int64)
        banded_rows = np.array(self.banded_rows, dtype=np.int64)
        band_row[banded_rows] = np.arange(len(banded_rows))
        places = np.flatnonzero(chosen_N & (band_row[rows_N] >= 0))
        num_bands = self._banding.num_bands if self._banding else 1
        bands = np.frombuffer(self.bands, dtype=np.uint64).reshape(-1, num_bands)[band_row[rows_N[places]]]
        found = alike(bands, lambda i: wording(self.text(rows_N[places[i]])), threshold, max_alike)
        template_N = np.zeros(len(rows_N), dtype=np.bool_)
        template_N[places[found.template_N]] = True
        return Alike(places[found.pairs_P_2], found.similarity_P, template_N)
