"""What an ONNX LSTM, GRU or RNN node computes, read into a value: weights per direction, activations, options; or why it cannot run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from he_backend.graph.model import Graph, Node
from he_backend.graph.ops import Refusal

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULT_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}

# Activation -> its attributes, with ONNX's defaults, in the order in which activation_alpha and activation_beta give them.
_ACTIVATIONS: Mapping[str, Mapping[str, float]] = {
    "Sigmoid": {}, "Tanh": {}, "Relu": {}, "Softsign": {}, "Softplus": {}, "LeakyRelu": {"alpha": 0.01}, "Elu": {"alpha": 1.0},
    "ThresholdedRelu": {"alpha": 1.0}, "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
}  # fmt: skip
_TRAINED = (1, 2, 3)  # inputs W, R and B
_LSTM_PEEPHOLES = 7
_OLDEST_WITH_LENGTHS = 9  # Where


class Activation(NamedTuple):
    """An ONNX operator and its attributes."""

    op: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Direction:
    """The weights of one direction, for rows on the left: x @ input_weight + input_bias + h @ weight + bias.

    The gates lie side by side, each `hidden` wide: input, output, forget, cell (LSTM); update, reset, hidden (GRU).
    """

    reverse: bool
    input_weight: np.ndarray  # [inputs, gates·hidden]
    weight: np.ndarray  # [hidden, gates·hidden]
    input_bias: np.ndarray  # [gates·hidden]
    bias: np.ndarray  # [gates·hidden]
    activations: tuple[Activation, ...]


@dataclass(frozen=True)
class Recurrence:
    """A recurrent layer that reads [time, batch, inputs]; `hidden` is the width of its state."""

    op: str
    hidden: int
    directions: tuple[Direction, ...]
    clip: float | None  # bound of what enters the activations
    linear_before_reset: bool  # GRU: the reset gate multiplies R·h + b, not h
    coupled: bool  # LSTM: the forget gate is one minus the input gate


def refusal_of(graph: Graph, node: Node) -> Refusal | None:
    """Why a recurrent node cannot be unrolled; None when it can."""
    names = [node.inputs[i] if i < len(node.inputs) else "" for i in range(8)]
    moving = [names[i] for i in _TRAINED if names[i] and names[i] not in graph.constants]
    if moving:
        return Refusal(f"its weights {moving[0]} depend on the data", "export it with constant weights")
    peepholes = names[_LSTM_PEEPHOLES]
    if node.op == "LSTM" and peepholes and (peepholes not in graph.constants or np.any(graph.constants[peepholes])):
        return Refusal(
            "has peepholes: the output gate reads the new cell state through weights, a second round for every time step",
            "train it without peepholes, as PyTorch and Keras do",
        )
    unknown = sorted({name for name in _names(node) if name not in _ACTIVATIONS})
    if unknown:
        return Refusal(f"has activation {unknown[0]}", f"use one of {', '.join(_ACTIVATIONS)}")
    if names[4] and graph.opset < _OLDEST_WITH_LENGTHS:
        return Refusal("has sequence lengths, which opsets before 9 cannot select by", "export with opset 9 or newer")
    if graph.dtypes.get(names[0], "float32") not in ("float16", "float32", "float64"):
        return Refusal(f"works on {graph.dtypes[names[0]]}", "use floating values")
    if len(graph.shapes.get(names[0], ())) != 3:
        return Refusal("its input has no known sequence length", "give it a size, for example dims={'seq': 20}")
    return None


def recurrence_of(graph: Graph, node: Node) -> Recurrence:
    """The layer of a node that `refusal_of` lets through."""
    hidden = graph.constants[node.inputs[2]].shape[-1]
    mode = str(node.attribute("direction", "forward"))
    reverses = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[mode]
    activations = _activations(node)
    each = len(_DEFAULT_ACTIVATIONS[node.op])
    directions = tuple(
        _direction(graph, node, index, reverse, activations[index * each : (index + 1) * each]) for index, reverse in enumerate(reverses)
    )
    clip = float(node.attribute("clip", 0.0))
    return Recurrence(
        op=node.op,
        hidden=int(hidden),
        directions=directions,
        clip=clip if clip > 0 else None,
        linear_before_reset=bool(node.attribute("linear_before_reset", 0)),
        coupled=bool(node.attribute("input_forget", 0)),
    )


def _direction(graph: Graph, node: Node, index: int, reverse: bool, activations: Sequence[Activation]) -> Direction:
    weight, recurrent = (graph.constants[node.inputs[i]][index] for i in (1, 2))
    name = node.inputs[3] if len(node.inputs) > 3 else ""
    width = len(weight)
    biases = graph.constants[name][index] if name else np.zeros(2 * width, weight.dtype)
    return Direction(reverse, weight.T, recurrent.T, biases[:width], biases[width:], tuple(activations))


def _names(node: Node) -> list[str]:
    given = [name.decode() if isinstance(name, bytes) else str(name) for name in node.attribute("activations", ())]
    count = 2 if node.attribute("direction", "forward") == "bidirectional" else 1
    names = given or list(_DEFAULT_ACTIVATIONS[node.op]) * count
    found = {name.lower(): name for name in _ACTIVATIONS}  # ONNX Runtime does not mind how they are written
    return [found.get(name.lower(), name) for name in names]


def _activations(node: Node) -> list[Activation]:
    """The activations of all directions; each takes the next alpha and beta if it has such an attribute and some are left."""
    left: dict[str, list[Any]] = {name: list(node.attribute(f"activation_{name}", ())) for name in ("alpha", "beta")}
    made = []
    for name in _names(node):
        values = {key: float(left[key].pop(0)) if left[key] else default for key, default in _ACTIVATIONS[name].items()}
        made.append(Activation(name, values))
    return made
