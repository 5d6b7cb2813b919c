"""Fine-tuning a network with replacements, its original as teacher.

The replacements are faded in over the first half of the steps, as Baruch, Drucker, Greenberg and Moshkowich do ("A methodology for training
homomorphic encryption friendly neural networks", ACNS workshops 2022, section 3); the loss is half cross-entropy with the labels and half
the divergence from the original's softened scores (Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable, Mapping

import numpy as np

from he_backend.errors import EngineError, ModelError
from he_backend.strategies import friendly
from he_backend.strategies.network import Network
from he_backend.strategies.operators import operators
from he_backend.strategies.recurrent import gru

_TEMPERATURE = 2.0
_SAMPLED_ROWS, _SAMPLED_VALUES = 256, 20000

Batches = Callable[[], Iterable[Any]]  # one pass over the training rows: pairs of torch tensors


@dataclass(frozen=True)
class Tuning:
    """How long and how fast is trained."""

    epochs: int
    peak_learning_rate: float


class Runner:
    """A network in torch: its learned arrays as parameters, and the replacements' numbers."""

    def __init__(self, network: Network, replacements: Mapping[str, friendly.Replacement] | None = None) -> None:
        import torch

        self._network, self._replacements = network, dict(replacements or {})
        self._operators = {**operators(), "GRU": lambda values, attributes: gru(values, attributes, (torch.sigmoid, torch.tanh))}
        unknown = sorted({op.op for op in network.ops} - set(self._operators))
        if unknown:
            raise ModelError(f"the network has operators that cannot be trained here: {', '.join(unknown)}; take the strategy 'exact'")
        self.learned = {name: torch.tensor(array, requires_grad=True) for name, array in network.learned.items()}
        self.numbers = {name: torch.tensor(one.numbers, requires_grad=True) for name, one in self._replacements.items() if one.numbers}
        self._constants = {name: torch.from_numpy(np.array(array)) for name, array in network.constants.items()}

    def parameters(self) -> list[Any]:
        """Everything that training changes."""
        return [*self.learned.values(), *self.numbers.values()]

    def values(self, x: Any, share: float = 1.0) -> dict[str, Any]:
        """Every value of the network for the rows x, with `share` of each replacement."""
        known: dict[str, Any] = {**self._constants, **self.learned, self._network.input: x}
        for op in self._network.ops:
            given = [known[name] if name else None for name in op.inputs]
            name = op.outputs[0]

            def original(op: Any = op, given: Any = given) -> Any:
                return self._operators[op.op](given, op.attributes)

            if name in self._replacements:
                known[name] = friendly.compute(self._replacements[name], given, self.numbers.get(name), share, original)
            else:
                known[name] = original()
        return known

    def scores(self, x: Any, share: float = 1.0) -> Any:
        """The first output [rows, classes]."""
        return self.values(x, share)[self._network.output]

    def trained(self) -> tuple[Network, dict[str, friendly.Replacement]]:
        """The network and its replacements with what they have learned."""
        learned = {name: tensor.detach().numpy().copy() for name, tensor in self.learned.items()}
        changed = dict(self._replacements)
        for name, tensor in self.numbers.items():
            changed[name] = replace(changed[name], numbers=tuple(float(number) for number in tensor.detach()))
        return replace(self._network, learned=learned), changed


def samples(network: Network, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Values that enter the places of polynomials, from some of the rows: at most 20000 for each place."""
    import torch

    with torch.no_grad():
        known = Runner(network).values(torch.from_numpy(rows[:_SAMPLED_ROWS]))
    found = {}
    for name, entering in friendly.replaced_inputs(network).items():
        flat = known[entering].reshape(-1).numpy()
        found[name] = flat[:: max(1, len(flat) // _SAMPLED_VALUES)]
    return found


def fine_tune(
    network: Network,
    replacements: Mapping[str, friendly.Replacement],
    batches: Batches,
    steps_per_epoch: int,
    tuning: Tuning,
    progress: Callable[[int, float], None] | None = None,
) -> Network:
    """The network after training, its replacements written out as ONNX operators.

    progress: called after each epoch with its number and the mean loss. Raises EngineError when the loss is no number any more.
    """
    import torch
    from torch.nn import functional

    teacher, student = Runner(network), Runner(network, replacements)
    steps = tuning.epochs * steps_per_epoch
    optimizer = torch.optim.Adam(student.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, tuning.peak_learning_rate, total_steps=steps)
    step = 0
    for epoch in range(1, tuning.epochs + 1):
        total, seen = 0.0, 0
        for x, y in batches():
            share = min(1.0, (step + 1) / max(1.0, steps / 2))
            with torch.no_grad():
                wanted = functional.softmax(teacher.scores(x) / _TEMPERATURE, dim=-1)
            scores = student.scores(x, share)
            apart = functional.kl_div(functional.log_softmax(scores / _TEMPERATURE, dim=-1), wanted, reduction="batchmean")
            loss = 0.5 * functional.cross_entropy(scores, y) + 0.5 * _TEMPERATURE**2 * apart
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            total, seen = total + loss.item() * len(y), seen + len(y)
        if not np.isfinite(total):
            raise EngineError(f"the fine-tuning diverged in epoch {epoch}: take a smaller learning rate than {tuning.peak_learning_rate:g}")
        if progress is not None:
            progress(epoch, total / seen)
    return written(*student.trained())


def written(network: Network, replacements: Mapping[str, friendly.Replacement]) -> Network:
    """The network with each replaced operator written out as what replaces it."""
    ops, constants = [], dict(network.constants)
    for op in network.ops:
        one = replacements.get(op.outputs[0])
        if one is None:
            ops.append(op)
            continue
        made, numbers = friendly.ops_of(one)
        ops += made
        constants.update(numbers)
    return replace(network, ops=tuple(ops), constants=constants)
