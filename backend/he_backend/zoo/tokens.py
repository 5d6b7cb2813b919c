"""Rows of token ids: what the text networks look up, and images read as such rows where no text is at hand."""

from __future__ import annotations

from typing import Any

import numpy as np

PAD = 0  # the id of [PAD] in BERT's vocabulary


def entries(train_x: np.ndarray, ids: int, least: int) -> np.ndarray:
    """The entry of a network's table for each of `ids` token ids: int16 [ids].

    Tokens in fewer than `least` places of the training rows share entry 1, since nothing can be learned of them; [PAD] has entry 0. The
    data owner's tokenizer thus stays the standard one, while the table has a quarter of its entries.
    """
    counts = np.bincount(train_x.reshape(-1), minlength=ids)
    counts[PAD] = 0
    kept = np.flatnonzero(counts >= least)
    table = np.ones(ids, np.int16)
    table[PAD] = 0
    table[kept] = np.arange(2, 2 + len(kept), dtype=np.int16)
    return table


def row_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one row of ids: that of a text's, or one id for each line of an image."""
    return shape if len(shape) == 1 else (shape[-2],)


def image_tokens(images: np.ndarray) -> np.ndarray:
    """Grey images of 8 columns as rows of ids, one id for each line: its pixels at half brightness or more, as the bits of a number.

    float32 [rows, 1, height, 8] -> int64 [rows, height], ids from 1 to 256 (0 is [PAD], which images have none of).
    """
    bits = images[:, 0] >= 0.5
    return 1 + (bits * (1 << np.arange(images.shape[-1]))).sum(axis=-1).astype(np.int64)


IMAGE_IDS = 257


def lookup(table: np.ndarray, width: int) -> Any:
    """A torch module from ids [rows, length] to vectors [rows, length, width]: entry table[id] of a trained matrix; [PAD]'s is zero."""
    import torch
    from torch import nn

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("entry", torch.from_numpy(table))
            self.vectors = nn.Embedding(int(table.max()) + 1, width, padding_idx=0)
            nn.init.normal_(self.vectors.weight, std=0.1)
            with torch.no_grad():
                self.vectors.weight[0] = 0

        def forward(self, ids: Any) -> Any:
            return self.vectors(self.entry[ids].long())  # type: ignore[index]

    return Lookup()
