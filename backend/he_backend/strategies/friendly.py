"""What each operator is replaced by under `he-friendly`: how it is computed while training, and which ONNX operators it ends as.

A quadratic polynomial has three learned numbers for a layer. It ends as a·(x + s)² + c, of which s joins the weights of the layer before;
the data owner squares, and sees a and c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import numpy as np

from he_backend.strategies.network import Network, Op
from he_backend.strategies.operators import average_pool
from he_backend.strategies.recurrent import gru

_QUADRATIC, _CUBIC = ("Relu", "Gelu"), ("Tanh", "Sigmoid")
_LEAST_CURVE = 1e-4  # of a quadratic polynomial, so that it can be written as a shifted square
_SOFTMAX_SHIFT = 2.0  # max(0, x + 2)² is close to 4·exp(x) around zero


@dataclass(frozen=True)
class Replacement:
    """What is put in the place of one operator. `numbers` are learned too; without any it has nothing of its own to learn."""

    op: Op
    kind: str
    numbers: tuple[float, ...] = ()  # a polynomial's coefficients, constant first

    def __str__(self) -> str:
        return f"{self.op.op} -> {self.kind}"


def replacements(network: Network, samples: Mapping[str, np.ndarray]) -> dict[str, Replacement]:
    """What is replaced, by the name of the operator's first output.

    samples: values that enter each polynomial's place, by the operator's first output; a polynomial starts as the least-squares fit there.
    """
    found = {}
    for op in network.ops:
        name = op.outputs[0]
        if op.op in _QUADRATIC or op.op in _CUBIC:
            degree = 2 if op.op in _QUADRATIC else 3
            found[name] = Replacement(op, f"polynomial of degree {degree}", fit(op.op, samples[name], degree))
        elif op.op == "MaxPool" and len([output for output in op.outputs if output]) == 1:
            found[name] = Replacement(op, "AveragePool")
        elif op.op == "Softmax":
            found[name] = Replacement(op, "squares over their sum")
        elif op.op == "GRU" and "activations" not in op.attributes:
            found[name] = Replacement(op, "GRU with HardSigmoid and Softsign")
    return found


def replaced_inputs(network: Network) -> dict[str, str]:
    """The places where polynomials will be: the operator's first output -> the value that enters it."""
    return {op.outputs[0]: op.inputs[0] for op in network.ops if op.op in _QUADRATIC or op.op in _CUBIC}


def fit(op: str, values: np.ndarray, degree: int) -> tuple[float, ...]:
    """Coefficients, constant first, of the polynomial closest to an activation on `values`.

    A twentieth of the weight lies evenly on the whole range, so that the polynomial does not run away where values are rare.
    """
    values = values.reshape(-1).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    grid = np.linspace(low, high if high > low else low + 1.0, 512)
    points = np.concatenate([values, grid])
    weights = np.concatenate([np.full(len(values), 1 / len(values)), np.full(len(grid), 0.05 / len(grid))])
    powers = np.stack([points**exponent for exponent in range(degree + 1)], axis=1)
    root = np.sqrt(weights)
    solution = np.linalg.lstsq(powers * root[:, None], _exact(op, points) * root, rcond=None)[0]
    return tuple(float(number) for number in solution)


def _exact(op: str, x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    functions = {
        "Relu": lambda: np.maximum(x, 0),
        "Gelu": lambda: 0.5 * x * (1 + erf(x / np.sqrt(2))),
        "Tanh": lambda: np.tanh(x),
        "Sigmoid": lambda: 1 / (1 + np.exp(-x)),
    }
    return np.asarray(functions[op]())


def compute(replacement: Replacement, values: Sequence[Any], numbers: Any, share: float, original: Any) -> Any:
    """The replaced operator's output while training: `share` of the replacement, the rest of the original operator.

    values: the operator's inputs as torch tensors; numbers: the polynomial's coefficients as a tensor; original: a function of no
    arguments that computes the operator itself.
    """
    op = replacement.op
    if op.op == "GRU":
        return gru(values, op.attributes, _mixed_gates(share))
    if op.op == "MaxPool":
        cheap = average_pool(values[0], op.attributes)
    elif op.op == "Softmax":
        cheap = _square_softmax(values[0], op.attributes.get("axis", -1))
    else:
        cheap = numbers[-1]
        for index in reversed(range(len(numbers) - 1)):
            cheap = cheap * values[0] + numbers[index]
    return cheap if share >= 1 else share * cheap + (1 - share) * original()


def _square_softmax(x: Any, axis: int) -> Any:
    from torch.nn import functional

    squares = functional.relu(x + _SOFTMAX_SHIFT) ** 2
    return squares / (squares.sum(dim=axis, keepdim=True) + 1e-6)


def _mixed_gates(share: float) -> tuple[Any, Any]:
    import torch

    def gate(x: Any) -> Any:
        cheap = torch.clamp(0.2 * x + 0.5, 0, 1)  # ONNX's HardSigmoid
        return cheap if share >= 1 else share * cheap + (1 - share) * torch.sigmoid(x)

    def new(x: Any) -> Any:
        cheap = x / (1 + x.abs())
        return cheap if share >= 1 else share * cheap + (1 - share) * torch.tanh(x)

    return gate, new


def ops_of(replacement: Replacement) -> tuple[list[Op], dict[str, np.ndarray]]:
    """The ONNX operators that the replacement ends as, and their constants."""
    op, name = replacement.op, replacement.op.outputs[0]
    if op.op == "MaxPool":
        return [Op("AveragePool", op.inputs, (name,), _pooling(op.attributes))], {}
    if op.op == "GRU":
        directions = 2 if op.attributes.get("direction", b"forward") == b"bidirectional" else 1
        return [Op("GRU", op.inputs, op.outputs, {**op.attributes, "activations": ["HardSigmoid", "Softsign"] * directions})], {}
    if op.op == "Softmax":
        return _softmax_ops(op)
    return _polynomial_ops(op, replacement.numbers)


def _pooling(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """MaxPool's attributes as AveragePool takes them: opset 17 has no dilations there."""
    return {key: value for key, value in attributes.items() if key not in ("dilations", "storage_order")}


def _softmax_ops(op: Op) -> tuple[list[Op], dict[str, np.ndarray]]:
    name = op.outputs[0]
    labels = {part: f"{name}/{part}" for part in ("shift", "axes", "tiny", "moved", "positive", "squares", "sum", "safe")}
    constants = {
        labels["shift"]: np.float32(_SOFTMAX_SHIFT),
        labels["axes"]: np.array([op.attributes.get("axis", -1)], np.int64),
        labels["tiny"]: np.float32(1e-6),
    }
    ops = [
        Op("Add", (op.inputs[0], labels["shift"]), (labels["moved"],)),
        Op("Relu", (labels["moved"],), (labels["positive"],)),
        Op("Mul", (labels["positive"], labels["positive"]), (labels["squares"],)),
        Op("ReduceSum", (labels["squares"], labels["axes"]), (labels["sum"],), {"keepdims": 1}),
        Op("Add", (labels["sum"], labels["tiny"]), (labels["safe"],)),
        Op("Div", (labels["squares"], labels["safe"]), (name,)),
    ]
    return ops, {key: np.asarray(value) for key, value in constants.items()}


def _polynomial_ops(op: Op, numbers: Sequence[float]) -> tuple[list[Op], dict[str, np.ndarray]]:
    """Degree 2: a·(x + s)² + c, so that one value for each place travels each way: in Horner's rule both x and
    a·x + b would be asked of the model owner. Degree 3: Horner's rule, ((c3·x + c2)·x + c1)·x + c0.
    """
    x, name = op.inputs[0], op.outputs[0]
    if len(numbers) == 3:
        c0, c1, c2 = numbers
        c2 = c2 if abs(c2) > _LEAST_CURVE else _LEAST_CURVE
        constants = {f"{name}/shift": c1 / (2 * c2), f"{name}/scale": c2, f"{name}/offset": c0 - c1 * c1 / (4 * c2)}
        ops = [
            Op("Add", (x, f"{name}/shift"), (f"{name}/moved",)),
            Op("Mul", (f"{name}/moved", f"{name}/moved"), (f"{name}/square",)),
            Op("Mul", (f"{name}/square", f"{name}/scale"), (f"{name}/scaled",)),
            Op("Add", (f"{name}/scaled", f"{name}/offset"), (name,)),
        ]
        return ops, {key: np.asarray(number, np.float32) for key, number in constants.items()}
    constants = {f"{name}/c{index}": number for index, number in enumerate(numbers)}
    ops, value = [], f"{name}/c{len(numbers) - 1}"
    for index in reversed(range(len(numbers) - 1)):
        ops.append(Op("Mul", (value, x), (f"{name}/x{index}",)))
        value = name if index == 0 else f"{name}/s{index}"
        ops.append(Op("Add", (f"{name}/x{index}", f"{name}/c{index}"), (value,)))
    return ops, {key: np.asarray(number, np.float32) for key, number in constants.items()}
