"""The activations that a network of the zoo may be built with."""

from __future__ import annotations

from typing import Any

from he_backend.errors import ParameterError

ACTIVATIONS = ("relu", "square")


def activation(name: str) -> Any:
    """A torch module that computes ReLU or x*x (which a ciphertext can compute without the data owner's help).

    Raises:
        ParameterError: another name.
    """
    from torch import nn

    class Square(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * x

    if name not in ACTIVATIONS:
        raise ParameterError(f"activation '{name}' is not known: take one of {', '.join(ACTIVATIONS)}")
    return nn.ReLU() if name == "relu" else Square()
