"""The generators that anything may draw from, in a training state: Python's, numpy's and torch's."""

import json
import random
from pathlib import Path

import numpy as np
import torch

NAME = "random.json"


def save_random(folder: Path) -> None:
    """Write the state of all generators; on a GPU also of that of this process's own one."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    version, numbers, next_gauss = random.getstate()
    state = {
        "python": [version, list(numbers), next_gauss],
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else None,
    }
    (folder / NAME).write_text(json.dumps(state))


def load_random(folder: Path) -> None:
    """Go on drawing where `save_random` was; a GPU's generator only if the state is of a GPU too."""
    state = json.loads((folder / NAME).read_text())
    version, numbers, next_gauss = state["python"]
    random.setstate((version, tuple(numbers), next_gauss))
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))
