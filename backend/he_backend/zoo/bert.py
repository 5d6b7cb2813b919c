"""BERT: a transformer encoder for one sentence (Devlin et al., NAACL 2019; Vaswani et al., NeurIPS 2017), tiny."""

from __future__ import annotations

from typing import Any

import numpy as np

from he_backend.zoo import tokens

WIDTH, HEADS, LAYERS, INNER = 64, 2, 2, 128


def build(shape: tuple[int, ...], classes: int, activation_name: str, table: np.ndarray, dropout: float = 0.3) -> Any:
    """A torch module from ids int64 [rows, length] to scores [rows, classes].

    Two post-norm layers of two heads, 64 wide with 128 inside, GELU; vectors of tokens and positions added; scores from the mean of the
    last states over the tokens that are not [PAD], which small encoders trained on few sentences learn better from than from [CLS].
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
            self.norm_attention, self.norm_out = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.dropout = nn.Dropout(dropout)

        def forward(self, x: Any, hidden_from: Any) -> Any:
            length = x.shape[1]

            def heads(values: Any) -> Any:
                return values.reshape(-1, length, HEADS, WIDTH // HEADS).transpose(1, 2)

            scores = heads(self.query(x)) @ heads(self.key(x)).transpose(2, 3) * (WIDTH // HEADS) ** -0.5
            seen = functional.softmax(scores + hidden_from, dim=-1) @ heads(self.value(x))
            x = self.norm_attention(x + self.dropout(self.out(seen.transpose(1, 2).reshape(-1, length, WIDTH))))
            return self.norm_out(x + self.dropout(self.down(functional.gelu(self.up(x)))))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = tokens.lookup(table, WIDTH)
            self.positions = nn.Parameter(torch.randn(shape[0], WIDTH) * 0.02)
            self.norm = nn.LayerNorm(WIDTH)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(WIDTH, classes)

        def forward(self, ids: Any) -> Any:
            there = (ids != tokens.PAD).to(torch.float32)
            hidden_from = (there - 1)[:, None, None, :] * 1e4
            x = self.dropout(self.norm(self.words(ids) + self.positions[: ids.shape[1]]))
            for layer in self.layers:
                x = layer(x, hidden_from)
            mean = (x * there.unsqueeze(-1)).sum(1) / there.sum(1, keepdim=True)
            return self.head(self.dropout(mean))

    return Network()
