"""`Program`: a network split between the model owner (segments) and the data owner (steps). Shapes are per row."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

import numpy as np

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

