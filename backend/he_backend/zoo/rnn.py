"""RNN: a bidirectional gated recurrent unit (Cho et al., EMNLP 2014) over word pieces, averaged over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from he_backend.zoo import tokens

WIDTH, HIDDEN = 32, 48


def build(shape: tuple[int, ...], classes: int, activation_name: str, table: np.ndarray, dropout: float = 0.4) -> Any:
    """A torch module from ids int64 [rows, length] to scores [rows, classes].

    Each id's vector of 32 numbers; two directions of 48 units; the mean of their states over the tokens that are not [PAD]; scores.
    The mean needs no weights, so an inference takes one round for each token but the first, one for the inputs, and one for the scores.
    """
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = tokens.lookup(table, WIDTH)
            self.layer = nn.GRU(WIDTH, HIDDEN, batch_first=True, bidirectional=True)
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(2 * HIDDEN, classes)

        def forward(self, ids: Any) -> Any:
            there = (ids != tokens.PAD).to(torch.float32).unsqueeze(-1)
            states = self.layer(self.dropout(self.words(ids)))[0]
            mean = (states * there).sum(1) / there.sum(1)
            return self.head(self.dropout(mean))

    return Network()
