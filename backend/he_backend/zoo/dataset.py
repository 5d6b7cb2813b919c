"""`DataSet`: labelled rows with a fixed split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DataSet:
    """Labelled images, scaled to [0, 1], or labelled sentences, as token ids."""

    name: str
    classes: int
    train_x: np.ndarray  # float32 [train rows, channels, height, width], or int64 [train rows, length]
    train_y: np.ndarray  # int64 [train rows]
    test_x: np.ndarray  # as train_x
    test_y: np.ndarray  # int64 [test rows]
    ids: int = 0  # how many token ids there are; 0 for images

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row: (channels, height, width), or (length,) of a sentence."""
        return self.test_x.shape[1:]
