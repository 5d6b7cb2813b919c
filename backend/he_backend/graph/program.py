"""`Program`: a network split between the model owner (segments) and the data owner (steps). Shapes are per row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterable, Mapping, Sequence

import numpy as np
import onnx

from he_backend.graph.model import Node, Shape, ValueSpec, size_of


@dataclass(frozen=True)
class Segment:
    """One round of the model owner: an affine map with all the weights, from values that the client sends to values it gets back.

    Everything that one round computes is one segment, so queries, keys and values of attention share theirs.
    """

    index: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray] = field(repr=False)
    tensor_shapes: Mapping[str, Shape] = field(default_factory=dict, repr=False)  # batch axis of 1 kept
    opset: int = 0
    multiply_adds: int = 0  # per row, as the splitter counted them; `AffineMap.nonzeros` is exact

    @property
    def in_elements(self) -> int:
        """Values that the client encrypts per row."""
        return sum(size_of(self.tensor_shapes[name]) for name in self.inputs)

    @property
    def out_elements(self) -> int:
        """Values that the client decrypts per row."""
        return sum(size_of(self.tensor_shapes[name]) for name in self.outputs)


@dataclass(frozen=True)
class Step:
    """What the data owner computes before a segment: an ONNX network without weights, as bytes (b"" when there is nothing to compute).

    `inputs` are values the client knows already (network inputs, answers of segments, outputs of earlier steps).
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    model: bytes = field(default=b"", repr=False)
    batched: bool = True  # axis 0 counts rows; otherwise the step runs row by row

    @property
    def ops(self) -> tuple[str, ...]:
        """Operators of the step, in order."""
        return tuple(node.op_type for node in onnx.ModelProto.FromString(self.model).graph.node) if self.model else ()


@dataclass(frozen=True)
class Program:
    """Steps and segments in turn: step 0, segment 0, step 1, …, the last segment, the last step."""

    name: str
    inputs: tuple[ValueSpec, ...]
    outputs: tuple[ValueSpec, ...]
    shapes: Mapping[str, Shape]  # per row, of every value that a segment or a step reads or writes
    segments: tuple[Segment, ...]
    steps: tuple[Step, ...]
    public_constants: tuple[str, ...] = ()  # what of the model travels to the client, each with its reason
    row_wise: bool = True  # False: the model mixes axis 0, so one whole input tensor is one row
    notes: tuple[str, ...] = ()  # what costs rounds or bytes beyond the layers themselves: recurrences, private tables
    source: bytes = field(default=b"", repr=False, compare=False)  # the model itself, on one row: the owner's reference

    def __post_init__(self) -> None:
        assert len(self.steps) == len(self.segments) + 1, "a step before each segment and one after the last"

    @property
    def rounds(self) -> int:
        return len(self.segments)

    def size(self, name: str) -> int:
        """Elements per row of a value."""
        return size_of(self.shapes[name])

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per row over all segments."""
        return sum(segment.multiply_adds for segment in self.segments)

    def describe(self) -> str:
        """The rounds as a text table, rounds alike on one line: who computes what, values per row each way, multiply-adds per row."""
        rows: list[tuple[str, ...]] = [("", "data owner computes", "sends", "model owner computes", "answers", "multiply-adds")]
        for index, step in enumerate(self.steps):
            left = summarise(step.ops) or "nothing"
            if index < len(self.segments):
                segment = self.segments[index]
                middle = summarise([node.op for node in segment.nodes])
                figures = [f"{n:,}" for n in (segment.in_elements, segment.out_elements, segment.multiply_adds)]
                rows.append((str(index + 1), left, figures[0], middle, figures[1], figures[2]))
            else:
                rows.append(("end", left, "", "", "", ""))
        rows = _ranges(rows)
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        right = (2, 4, 5)
        lines = ["  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        head = f"{self.name}: {self.rounds} rounds, {self.multiply_adds:,} multiply-adds per row (values are per row)"
        tail = [f"goes to the data owner: {entry}" for entry in self.public_constants]
        return "\n".join([head, *lines, *self.notes, *tail])


def _ranges(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows that differ in their number only become one: 3, 4, 5 -> 3-5, as the time steps of a recurrence do."""
    found: list[tuple[str, ...]] = []
    for row in rows:
        if found and found[-1][1:] == row[1:] and row[0].isdigit():
            found[-1] = (f"{found[-1][0].partition('-')[0]}-{row[0]}", *row[1:])
        else:
            found.append(row)
    return found


def summarise(ops: Iterable[str]) -> str:
    """Operator names with their counts, in order of first use: Conv, Relu x2."""
    counts: dict[str, int] = {}
    for op in ops:
        counts[op] = counts.get(op, 0) + 1
    return ", ".join(op if count == 1 else f"{op} x{count}" for op, count in counts.items())
