"""What the peers' programs share; numpy is all that it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

import numpy as np


def start(arguments: Sequence[str]) -> tuple[dict[str, np.ndarray], int]:
    """The network's arrays (float32: x [1, 1, 28, 28], scores [10], weights as x @ weight takes them) and the number of repeats."""
    with np.load(arguments[1]) as arrays:
        return {name: arrays[name] for name in arrays.files}, int(arguments[3])


def finish(arguments: Sequence[str], network: dict[str, np.ndarray], scores: np.ndarray, seconds: float, setup: float, **more: Any) -> None:
    """Writes the figures to the second argument's path."""
    due = network["scores"].ravel()
    found = np.asarray(scores, np.float64).ravel()[: len(due)]
    figures = {
        "seconds": seconds,
        "setup_seconds": setup,
        "max_abs_error": float(np.abs(found - due).max()),
        "largest_score": float(np.abs(due).max()),
        "same_prediction": bool(found.argmax() == due.argmax()),
        **more,
    }
    Path(arguments[2]).write_text(json.dumps(figures))
