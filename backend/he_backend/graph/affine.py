"""`AffineMap`: what a segment computes, over flattened elements, in plain floating point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping, Sequence

import numpy as np

if TYPE_CHECKING:
    from he_backend.graph.program import Segment

_APPLY_VALUES = 1 << 22  # gathered values that `AffineMap.apply` holds at once


@dataclass(frozen=True)
class Block:
    """out[scatter[g,p,m]] += sum over k of weights[g,k,m] * x_source[gather[g,p,k]], for every g, p, m.

    A dense layer is one group (G = 1) whose positions P are the leading axes; a convolution has its groups as G and its output positions
    as P, so weights are held once however many positions share them.
    """

    source: int  # which segment input is read
    gather: np.ndarray  # int32 [G, P, K]; element of that input, -1 reads zero (padding)
    weights: np.ndarray  # float64 [G, K, M]
    scatter: np.ndarray  # int32 [G, P, M]; element of the concatenated outputs

    def __post_init__(self) -> None:
        groups, positions, depth = self.gather.shape
        assert self.weights.shape[:2] == (groups, depth), "weights do not fit the gather"
        assert self.scatter.shape == (groups, positions, self.weights.shape[2]), "scatter does not fit the weights"

    @property
    def nonzeros(self) -> int:
        """Multiply-adds per row: entries of the matrix that this block stands for."""
        return int(np.count_nonzero(self.gather >= 0)) * int(self.weights.shape[2])


@dataclass(frozen=True)
class AffineMap:
    """outputs = bias + the sum of the blocks, on the flattened elements of one row."""

    in_sizes: tuple[int, ...]  # elements per row of each segment input
    out_sizes: tuple[int, ...]  # elements per row of each segment output; outputs are numbered one after the other
    blocks: tuple[Block, ...]
    bias: np.ndarray  # float64 [sum(out_sizes)]

    @property
    def nonzeros(self) -> int:
        """Multiply-adds per row, the bias left out."""
        return sum(block.nonzeros for block in self.blocks)

    def apply(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs [rows, out_size] for inputs [rows, in_size], in float64."""
        rows = len(inputs[0]) if inputs else 1
        total = np.tile(np.asarray(self.bias, np.float64), (rows, 1))
        for block in self.blocks:
            values = np.asarray(inputs[block.source], np.float64).reshape(rows, -1)
            _add_block(block, values, total)
        edges = np.cumsum((0, *self.out_sizes))
        return [total[:, a:b] for a, b in zip(edges[:-1], edges[1:])]


def _add_block(block: Block, values: np.ndarray, total: np.ndarray) -> None:
    """Add one block's part to `total` [rows, outputs], a bounded number of gathered values at a time."""
    rows = len(values)
    padded = np.concatenate([values, np.zeros((rows, 1))], axis=1)  # index -1 reads the zero at the end
    groups, positions, depth = block.gather.shape
    unique = len(np.unique(block.scatter)) == block.scatter.size
    step = max(1, _APPLY_VALUES // max(1, rows * groups * depth))
    for start in range(0, positions, step):
        part = slice(start, start + step)
        gathered = padded[:, block.gather[:, part]]  # [rows, G, p, K]
        product = np.matmul(gathered, block.weights[None])  # [rows, G, p, M]
        target = block.scatter[:, part]
        if unique:
            total[:, target] += product
        else:
            np.add.at(total.T, target, np.moveaxis(product, 0, -1))


def lower(segment: Segment, shapes: Mapping[str, Sequence[int]] | None = None) -> AffineMap:
    """The affine map of a segment, over the flattened elements of one row. Every segment that the splitter makes can be lowered.

    shapes: the program's shapes per row; when given, the segment's inputs and outputs must have as many elements.
    Raises CapacityError when layers without a non-linearity between them compose to a matrix that is too large.
    """
    from he_backend.graph.lowering import lower_segment  # imports this module

    lowered = lower_segment(segment)
    if shapes is not None:
        stated = [int(np.prod(shapes[name], dtype=np.int64)) for name in (*segment.inputs, *segment.outputs)]
        assert stated == [*lowered.in_sizes, *lowered.out_sizes], "the segment belongs to another program"
    return lowered
