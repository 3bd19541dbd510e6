"""The generators that anything may draw from, in a training state: Python's, numpy's and torch's."""

import random
from pathlib import Path

import numpy as np
import torch

NAME = "random.pt"


def save_random(folder: Path) -> None:
    """Write the state of all generators."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    version, numbers, next_gauss = random.getstate()
    state = {
        "python": [version, list(numbers), next_gauss],
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    torch.save(state, folder / NAME)


def load_random(folder: Path) -> None:
    """Go on drawing where `save_random` was; read as tensors and plain values alone."""
    state = torch.load(folder / NAME, weights_only=True)
    version, numbers, next_gauss = state["python"]
    random.setstate((version, tuple(numbers), next_gauss))
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
