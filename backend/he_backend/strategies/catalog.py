"""The strategies by name, and what each does to each model type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from he_backend.errors import ParameterError

EXACT, FRIENDLY = "exact", "he-friendly"


@dataclass(frozen=True)
class Strategy:
    """One way to make a network run encrypted."""

    name: str
    summary: str
    by_type: Mapping[str, str]  # model type -> what is done to it


STRATEGIES = (
    Strategy(
        EXACT,
        "activations, pooling, softmax and normalisations stay as they are and are computed by the data owner: no accuracy is lost",
        {},
    ),
    Strategy(
        FRIENDLY,
        "activations become low-degree polynomials and max-pooling becomes average-pooling; then the network is trained on, with its "
        "original as teacher",
        {
            "MLP": "ReLU becomes a quadratic polynomial",
            "CNN": "ReLU becomes a quadratic polynomial (the CNN with squares is left as it is)",
            "AlexNet": "ReLU becomes a quadratic polynomial, max-pooling becomes average-pooling",
            "RNN": "sigmoid becomes piecewise linear (HardSigmoid), tanh becomes x/(1+|x|) (Softsign): no exponentials",
            "BERT": "GELU becomes a quadratic polynomial, softmax becomes squares over their sum: no exponentials",
        },
    ),
)


def strategy(name: str) -> Strategy:
    """The strategy of that name; raises ParameterError listing those there are."""
    for one in STRATEGIES:
        if one.name == name:
            return one
    raise ParameterError(f"strategy '{name}' is not known: take one of {', '.join(one.name for one in STRATEGIES)}")


def help_text() -> str:
    """The strategies as paragraphs of a command's help."""
    lines = []
    for one in STRATEGIES:
        lines.append(f"{one.name}: {one.summary}.")
        lines += [f"  {name}: {what}." for name, what in one.by_type.items()]
    return "\n".join(lines)
