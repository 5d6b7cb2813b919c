"""A GRU layer in torch, with the activations of its own or a mixture of those and cheaper ones (ONNX operator GRU, opset 14)."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence, Tuple

from he_backend.errors import ModelError

Gates = Tuple[Callable[[Any], Any], Callable[[Any], Any]]  # of the two gates, of the new state


def gru(values: Sequence[Any], attributes: Mapping[str, Any], gates: Gates) -> Any:
    """The states [time, directions, rows, hidden] for x [time, rows, inputs]; values are ONNX's inputs X, W, R, B, lengths, initial state.

    Raises ModelError for lengths, clipping, or time on the second axis.
    """
    import torch

    x, weight, recurrent, *rest = values
    bias, lengths, initial = (*rest, None, None, None)[:3]
    if lengths is not None or attributes.get("clip") or attributes.get("layout"):
        raise ModelError("a GRU with sequence lengths, clip or layout 1 cannot be trained here")
    hidden = recurrent.shape[-1]
    if bias is None:
        bias = torch.zeros(len(weight), 6 * hidden)
    kind = attributes.get("direction", b"forward").decode()
    reverses = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[kind]
    before_reset = bool(attributes.get("linear_before_reset", 0))
    outputs = []
    for index, reverse in enumerate(reverses):
        start = initial[index] if initial is not None else torch.zeros(x.shape[1], hidden)
        inputs = x @ weight[index].T + bias[index, : 3 * hidden]
        states = _scan(inputs.flip(0) if reverse else inputs, recurrent[index].T, bias[index, 3 * hidden :], start, gates, before_reset)
        outputs.append(states.flip(0) if reverse else states)
    return torch.stack(outputs, dim=1)


def _scan(inputs: Any, recurrent: Any, bias: Any, state: Any, gates: Gates, before_reset: bool) -> Any:
    """States [time, rows, hidden]; the gates lie side by side: update, reset, new."""
    import torch

    gate, new = gates
    hidden = state.shape[-1]
    states = []
    for given in inputs:
        update_in, reset_in, new_in = given.split(hidden, dim=-1)
        if before_reset:
            update_h, reset_h, new_h = (state @ recurrent + bias).split(hidden, dim=-1)
            update, reset = gate(update_in + update_h), gate(reset_in + reset_h)
            fresh = new(new_in + reset * new_h)
        else:
            update_h, reset_h = (state @ recurrent[:, : 2 * hidden] + bias[: 2 * hidden]).split(hidden, dim=-1)
            update, reset = gate(update_in + update_h), gate(reset_in + reset_h)
            fresh = new(new_in + (reset * state) @ recurrent[:, 2 * hidden :] + bias[2 * hidden :])
        state = (1 - update) * fresh + update * state
        states.append(state)
    return torch.stack(states)
