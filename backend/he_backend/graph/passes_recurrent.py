"""The pass that unrolls recurrent layers in time, so that only products with weights reach the model owner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Sequence, Union

import numpy as np

from he_backend.graph import infer
from he_backend.graph.model import Graph, Node
from he_backend.graph.passes_movement import source_in_order, straighten_movement
from he_backend.graph.recurrent import GATES, Activation, Direction, Recurrence, recurrence_of, refusal_of
from he_backend.graph.rewriting import Workbench

State = Union[str, np.ndarray]  # a value [batch, 1, hidden], or a constant of that shape


def unroll_recurrent(graph: Graph) -> Graph:
    """LSTM, GRU, RNN   ->   MatMul(x, W) + b for all time steps at once; then per step MatMul(h, R), sigmoids, tanhs and products.

    For each step t of an LSTM:  i, o, f, c̃ = split(x_t·W + h·R + b);  c = σ(f)·c + σ(i)·tanh(c̃);  h = σ(o)·tanh(c).

    The products with W of all steps are one round, h·R is one round per step (two for a GRU with linear_before_reset = 0, whose reset
    gate stands between two products). The directions of a layer do not wait for each other. A layer that reads the states of the one
    below multiplies each as soon as it is there, so that L layers over T steps take T + L − 1 rounds, not L·T. A constant initial state
    is folded into the biases.
    """
    for _ in range(len(graph.nodes)):
        node = next((n for n in graph.nodes if n.op in GATES and refusal_of(graph, n) is None), None)
        if node is None:
            break
        graph = straighten_movement(infer.with_shapes(_replaced(graph, node)))
    return graph


def _replaced(graph: Graph, node: Node) -> Graph:
    constants, weights = dict(graph.constants), set(graph.weights)
    cell = recurrence_of(graph, node)
    unroller = _Unroller(Workbench(graph, node, constants, weights), cell)
    made = unroller.unroll()
    nodes = [new for old in graph.nodes for new in (made if old is node else [old])]
    twice = cell.op == "GRU" and not cell.linear_before_reset
    rounds = "two rounds each (linear_before_reset=1 would need one)" if twice else "a round each"
    both = ", both directions together" if len(cell.directions) == 2 else ""
    if unroller.follows:
        rounds += ", one round behind the layer below"
    note = f"{node.op} {node.name}: {unroller.length} time steps, {rounds}{both}"
    changed = replace(graph, weights=frozenset(weights), notes=(*graph.notes, note))
    return infer.drop_dead(changed.with_nodes(nodes, constants))


class _Unroller:
    """One recurrent node turned into nodes. Values of one step are [batch, 1, width], sequences [batch, time, width]."""

    def __init__(self, bench: Workbench, cell: Recurrence) -> None:
        self._bench = bench
        self._cell = cell
        self._nodes: list[Node] = []
        self.length, self._batch, self._inputs = bench.shape(0)
        self._dtype = bench.dtype(0)
        self._shared: dict[str, str] = {}
        self._masks: list[str] = []
        self.follows = False  # a layer below, step by step

    def unroll(self) -> list[Node]:
        """The nodes, in order, that write the outputs of the node."""
        steps = self._steps_below()
        self.follows = bool(steps)
        sequence = "" if steps else self._time_second(self._bench.name(0))
        self._first = steps[0] if steps else self._part(sequence, 1, 0, self.length)
        projected = self._project_steps(steps) if steps else self._project(sequence)
        states = [self._initial(5, index) for index in range(len(self._cell.directions))]
        cells = [self._initial(6, index) for index in range(len(self._cell.directions))]
        sequences, last = [], []
        for direction, ahead, state, memory in zip(self._cell.directions, projected, states, cells):
            outputs, state, memory = self._run(direction, ahead, state, memory)
            sequences.append(outputs)
            last.append((state, memory))
        self._write_sequence(sequences)
        for position in (1, 2):
            self._write_last(position, [both[position - 1] for both in last])
        return self._nodes

    # Small parts.

    def _add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        node = self._bench.make(op, inputs, output, **attributes)
        self._nodes.append(node)
        return node.outputs[0]

    def _constant(self, suffix: str, value: np.ndarray) -> str:
        """A learned constant of the layer's type."""
        return self._bench.constant(f"{suffix}{len(self._shared)}.{len(self._nodes)}", value.astype(self._dtype), True)

    def _once(self, suffix: str, value: object, dtype: Any = None, learned: bool = False) -> str:
        """A constant made on first use."""
        if suffix not in self._shared:
            self._shared[suffix] = self._bench.constant(suffix, np.asarray(value, dtype or self._dtype), learned)
        return self._shared[suffix]

    def _split(self, value: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Pieces of these sizes along an axis."""
        if len(sizes) == 1:
            return [value]
        node = self._bench.make("Split", [value], axis=axis)
        names = tuple(f"{node.outputs[0]}.{i}" for i in range(len(sizes)))
        if self._bench.graph.opset < 13:
            node = replace(node, outputs=names, attributes={"axis": axis, "split": tuple(int(s) for s in sizes)})
        else:
            label = "split/" + ",".join(map(str, sizes)) if len(set(sizes)) > 1 else f"split/{sizes[0]}x{len(sizes)}"
            node = replace(node, outputs=names, inputs=(value, self._once(label, sizes, np.int64)))
        self._nodes.append(node)
        return list(names)

    def _part(self, value: str, axis: int, index: int, count: int) -> str:
        if count == 1:
            return value
        return self._add("Gather", [value, self._once(f"index/{index}", [index], np.int64)], axis=axis)

    def _reshape(self, value: str, shape: Sequence[int], output: str = "") -> str:
        return self._add("Reshape", [value, self._once("shape/" + ",".join(map(str, shape)), shape, np.int64)], output)

    def _joined(self, values: Sequence[str], axis: int) -> str:
        return values[0] if len(values) == 1 else self._add("Concat", values, axis=axis)

    # What goes in.

    def _steps_below(self) -> list[str]:
        """The time steps of the input, when a layer below makes them one by one; [] otherwise."""
        graph = self._bench.graph
        maker = source_in_order(graph, self._bench.name(0))
        if maker is None or maker.op != "Concat" or int(maker.attribute("axis", 0)) != 1 or self._batch != 1:
            return []
        if len(self._cell.directions) > 1 or self._cell.directions[0].reverse or len(maker.inputs) != self.length:
            return []
        same = all(name not in graph.constants and graph.shapes[name] == (1, 1, self._inputs) for name in maker.inputs)
        return list(maker.inputs) if same else []

    def _time_second(self, value: str) -> str:
        """The input as [batch, time, width]; on one row that moves nothing."""
        if self._batch == 1:
            return self._reshape(value, (-1, self.length, self._inputs))
        return self._add("Transpose", [value], perm=(1, 0, 2))

    def _biases(self, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
        """(What is added to x·W, what is added to h·R): all to the first, but for the hidden gate of a GRU that resets R·h + b."""
        apart = np.zeros_like(direction.bias)
        if self._cell.op == "GRU" and self._cell.linear_before_reset:
            apart[2 * self._cell.hidden :] = direction.bias[2 * self._cell.hidden :]
        return direction.input_bias + direction.bias - apart, apart

    def _project(self, sequence: str) -> list[list[str]]:
        """x·W + b of all steps and directions, one product; per direction a value for each step, in order of time."""
        directions = self._cell.directions
        weight = np.concatenate([direction.input_weight for direction in directions], axis=1)
        bias = np.concatenate([self._biases(direction)[0] for direction in directions])
        product = self._affine(sequence, weight, bias)
        width = GATES[self._cell.op] * self._cell.hidden
        halves = self._split(product, [width] * len(directions), 2)
        return [self._split(half, [1] * self.length, 1) for half in halves]

    def _project_steps(self, steps: Sequence[str]) -> list[list[str]]:
        (direction,) = self._cell.directions
        return [[self._affine(step, direction.input_weight, self._biases(direction)[0], "W") for step in steps]]

    def _affine(self, value: str, weight: np.ndarray, bias: np.ndarray, shared: str = "") -> str:
        """value @ weight + bias; `shared` names constants that several products use."""
        if shared:
            weight_name, bias_name = self._once(shared, weight, learned=True), self._once(f"{shared}/bias", bias, learned=True)
        else:
            weight_name, bias_name = self._constant("W", weight), self._constant("B", bias)
        product = self._add("MatMul", [value, weight_name])
        return self._add("Add", [product, bias_name]) if np.any(bias) else product

    def _initial(self, position: int, index: int) -> State:
        """The initial state of one direction (input 5: hidden, 6: cell): zeros when it is left out."""
        name, hidden, count = self._bench.name(position), self._cell.hidden, len(self._cell.directions)
        if not name or (position == 6 and self._cell.op != "LSTM"):
            return np.zeros((self._batch, 1, hidden), self._dtype)
        value = self._bench.value(position)
        if value is not None:
            return value.swapaxes(0, 1)[:, index : index + 1]
        name = self._reshape(name, (-1, count, hidden)) if self._batch == 1 else self._add("Transpose", [name], perm=(1, 0, 2))
        return self._part(name, 1, index, count)

    def _delivered(self, value: np.ndarray) -> str:
        """A constant that the data owner may not have beforehand, as an answer of the first round: x_0·0 + value."""
        zeros = self._once(f"zeros/{value.shape[-1]}", np.zeros((self._inputs, value.shape[-1])), learned=True)
        return self._add("Add", [self._add("MatMul", [self._first, zeros]), self._constant("given", value)])

    def _mask(self, step: int) -> str:
        """Whether the sequence has this step, [batch, 1, 1]; "" when every sequence does."""
        name, value = self._bench.name(4), self._bench.value(4)
        if not name or (value is not None and np.all(value > step)):
            return ""
        if value is not None:
            return self._once(f"mask/{step}", (value > step).reshape(-1, 1, 1), bool)
        if not self._masks:
            numbers = self._once("numbers", np.arange(self.length).reshape(1, -1, 1), self._bench.dtype(4))
            self._masks = self._split(self._add("Greater", [self._reshape(name, (-1, 1, 1)), numbers]), [1] * self.length, 1)
        return self._masks[step]

    # The recurrence.

    def _run(self, direction: Direction, projected: Sequence[str], state: State, memory: State) -> tuple[list[str], State, State]:
        """Outputs in order of time, the last hidden and the last cell state."""
        step_of = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self._cell.op]
        outputs, initial = [""] * self.length, (state, memory)
        for step in range(self.length)[:: -1 if direction.reverse else 1]:
            new, new_memory = step_of(direction, projected[step], state, memory)
            mask = self._mask(step)
            outputs[step] = new if not mask else self._add("Where", [mask, new, self._once("zero", 0.0)])
            if mask:
                new = self._kept(mask, new, state)
                new_memory = new_memory if isinstance(new_memory, np.ndarray) else self._kept(mask, new_memory, memory)
            state, memory = new, new_memory
        return outputs, self._ended(initial[0], state), self._ended(initial[1], memory)

    def _ended(self, initial: State, last: State) -> State:
        """The last state; zeros for a sequence of length 0, as ONNX Runtime has it."""
        mask = self._mask(0)
        if not mask or isinstance(last, np.ndarray) or (isinstance(initial, np.ndarray) and not np.any(initial)):
            return last
        return self._add("Where", [mask, last, self._once("zero", 0.0)])

    def _kept(self, mask: str, new: str, old: State) -> str:
        """The new state where the sequence goes on, the old one where it has ended."""
        if isinstance(old, np.ndarray):
            old = self._delivered(old) if np.any(old) else self._once("zero", 0.0)
        return self._add("Where", [mask, new, old])

    def _recurrent(self, direction: Direction, state: State, part: slice, bias: np.ndarray) -> State | None:
        """state·R + bias for some columns of R; an array when the state is constant, None when that is zero."""
        weight = direction.weight[:, part]
        if isinstance(state, np.ndarray):
            value = state @ weight + bias[part]
            return value if np.any(value) else None
        return self._affine(state, weight, bias[part], f"R{int(direction.reverse)}/{part.start}")

    def _sum(self, value: str, other: State | None) -> str:
        if other is None:
            return value
        return self._add("Add", [value, self._constant("at0", other) if isinstance(other, np.ndarray) else other])

    def _activate(self, activation: Activation, value: str, clip: bool = True) -> str:
        if clip and self._cell.clip is not None:
            bound = self._cell.clip
            if self._bench.graph.opset < 11:
                value = self._add("Clip", [value], min=-bound, max=bound)
            else:
                value = self._add("Clip", [value, self._once("least", -bound), self._once("most", bound)])
        return self._add(activation.op, [value], **dict(activation.attributes))

    def _rnn(self, direction: Direction, ahead: str, state: State, memory: State) -> tuple[str, State]:
        recurrent = self._recurrent(direction, state, slice(0, None), np.zeros_like(direction.bias))
        return self._activate(direction.activations[0], self._sum(ahead, recurrent)), memory

    def _lstm(self, direction: Direction, ahead: str, state: State, memory: State) -> tuple[str, State]:
        hidden = self._cell.hidden
        total = self._sum(ahead, self._recurrent(direction, state, slice(0, None), np.zeros_like(direction.bias)))
        gates, candidate = self._split(total, [3 * hidden, hidden], 2)
        enter, leave, forget = self._split(self._activate(direction.activations[0], gates), [hidden] * 3, 2)
        if self._cell.coupled:
            forget = self._add("Sub", [self._once("one", 1.0), enter])
        new = self._add("Mul", [enter, self._activate(direction.activations[1], candidate)])
        if isinstance(memory, str) or np.any(memory):
            kept = self._delivered(memory) if isinstance(memory, np.ndarray) else memory
            new = self._add("Add", [self._add("Mul", [forget, kept]), new])
        return self._add("Mul", [leave, self._activate(direction.activations[2], new, clip=False)]), new

    def _gru(self, direction: Direction, ahead: str, state: State, memory: State) -> tuple[str, State]:
        hidden, first = self._cell.hidden, isinstance(state, np.ndarray)
        gates, candidate = self._split(ahead, [2 * hidden, hidden], 2)
        bias = self._biases(direction)[1]
        if self._cell.linear_before_reset and not first:
            both = self._recurrent(direction, state, slice(0, None), bias)
            assert isinstance(both, str)
            from_state, to_reset = self._split(both, [2 * hidden, hidden], 2)
            update, reset = self._gates(direction, self._sum(gates, from_state))
            candidate = self._add("Add", [candidate, self._add("Mul", [reset, to_reset])])
        else:
            update, reset = self._gates(direction, self._sum(gates, self._recurrent(direction, state, slice(0, 2 * hidden), bias)))
            candidate = self._sum(candidate, self._after_reset(direction, state, reset, bias))
        candidate = self._activate(direction.activations[1], candidate)
        if isinstance(state, np.ndarray) and not np.any(state):
            return self._add("Sub", [candidate, self._add("Mul", [update, candidate])]), memory
        old = self._delivered(state) if isinstance(state, np.ndarray) else state
        # (1 − z)·n + z·h = n + z·(h − n)
        return self._add("Add", [candidate, self._add("Mul", [update, self._add("Sub", [old, candidate])])]), memory

    def _gates(self, direction: Direction, value: str) -> tuple[str, str]:
        update, reset = self._split(self._activate(direction.activations[0], value), [self._cell.hidden] * 2, 2)
        return update, reset

    def _after_reset(self, direction: Direction, state: State, reset: str, bias: np.ndarray) -> State | None:
        """What the hidden gate gets from the state: (r·h)·R, or r·(h·R + b) for a constant state."""
        part = slice(2 * self._cell.hidden, None)
        if self._cell.linear_before_reset:
            value = self._recurrent(direction, state, part, bias)
            return None if value is None else self._add("Mul", [reset, self._delivered(value) if isinstance(value, np.ndarray) else value])
        if isinstance(state, np.ndarray):
            if not np.any(state):
                return None
            state = self._delivered(state)
        return self._recurrent(direction, self._add("Mul", [reset, state]), part, bias)

    # What comes out.

    def _write_sequence(self, sequences: Sequence[Sequence[str]]) -> None:
        """Output 0: [time, directions, batch, hidden]."""
        output, hidden, count = self._output(0), self._cell.hidden, len(sequences)
        if not output:
            return
        whole = self._joined([self._joined(steps, 1) for steps in sequences], 2)
        if self._batch == 1:
            self._reshape(whole, (-1, count, 1, hidden), output)
        else:
            apart = self._reshape(whole, (-1, self.length, count, hidden))
            self._add("Transpose", [apart], output, perm=(1, 2, 0, 3))

    def _write_last(self, position: int, states: Sequence[State]) -> None:
        """Outputs 1 and 2: [directions, batch, hidden]."""
        output, hidden = self._output(position), self._cell.hidden
        if not output:
            return
        names = [self._delivered(state) if isinstance(state, np.ndarray) else state for state in states]
        whole = self._joined(names, 1)
        if self._batch == 1:
            self._reshape(whole, (-1, 1, hidden), output)
        else:
            self._add("Transpose", [whole], output, perm=(1, 0, 2))

    def _output(self, position: int) -> str:
        outputs = self._bench.node.outputs
        return outputs[position] if position < len(outputs) else ""
