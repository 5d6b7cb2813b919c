"""What a segment is made of, symbolically: layers with their geometry, where `AffineMap` has lists of elements.

Packings that put positions into the coefficients of a polynomial need kernel, strides and padding, and a large convolution should not be
held as an index per output position. `SegmentStructure` says the same as the segment's affine map, in the size of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterator, Sequence, Union

import numpy as np

from he_backend.graph.model import Shape, size_of


@dataclass(frozen=True)
class ConvStructure:
    """A convolution [channels, *spatial] -> [outs, *out_spatial] as ONNX's Conv defines it: out = bias + Σ weight · x, zeros around x."""

    weight: np.ndarray = field(repr=False)  # float64 [outs, channels / group, *kernel]
    bias: np.ndarray = field(repr=False)  # float64 [outs, 1, …] or, where padding meets a shift before it, [outs, *out_spatial]
    strides: tuple[int, ...]
    pads: tuple[int, ...]  # at the beginning of every spatial axis, then at the end of every one
    dilations: tuple[int, ...]
    group: int
    in_shape: Shape  # (channels, *spatial)
    out_shape: Shape  # (outs, *out_spatial)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps along each spatial axis."""
        return tuple(self.weight.shape[2:])

    @property
    def pointwise(self) -> bool:
        """Whether every output position reads one input position: a 1×1 convolution without padding (strides are allowed)."""
        return size_of(self.kernel) == 1 and not any(self.pads)

    @property
    def depthwise(self) -> bool:
        """Whether every output channel reads one input channel."""
        return self.weight.shape[1] == 1

    @property
    def multiply_adds(self) -> int:
        """Per row, taps that fall into the padding counted too."""
        return size_of(self.out_shape) * size_of(self.weight.shape[1:])

    def apply(self, x: np.ndarray) -> np.ndarray:
        """float64 [rows, *out_shape] for x [rows, *in_shape], tap by tap: the definition, for tests and small sizes."""
        rows, count = len(x), len(self.kernel)
        reach = [(self.out_shape[1 + a] - 1) * self.strides[a] + (self.kernel[a] - 1) * self.dilations[a] + 1 for a in range(count)]
        after = [max(0, reach[a] - self.in_shape[1 + a] - self.pads[a]) for a in range(count)]
        padded = np.pad(np.asarray(x, np.float64), [(0, 0), (0, 0), *zip(self.pads[:count], after)])
        grouped = padded.reshape(rows, self.group, self.in_shape[0] // self.group, *padded.shape[2:])
        weight = self.weight.reshape(self.group, -1, *self.weight.shape[1:])  # [G, outs / G, channels / G, *kernel]
        total = np.zeros((rows, self.group, weight.shape[1], *self.out_shape[1:]))
        for tap in np.ndindex(*self.kernel):
            starts = [t * d for t, d in zip(tap, self.dilations)]
            window = [slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(starts, self.out_shape[1:], self.strides)]
            read: np.ndarray = grouped[(slice(None), slice(None), slice(None), *window)]
            taps: np.ndarray = weight[(slice(None), slice(None), slice(None), *tap)]
            total += np.einsum("rgi...,goi->rgo...", read, taps)
        return np.asarray(total.reshape(rows, *self.out_shape) + self.bias)


@dataclass(frozen=True)
class DenseStructure:
    """One matrix for every position, [positions, ins] -> [positions, outs]: out = x @ weight + bias. A transformer's projection has its
    tokens as positions, a layer on a vector has one."""

    weight: np.ndarray = field(repr=False)  # float64 [ins, outs]
    bias: np.ndarray = field(repr=False)  # float64 [1, outs], or [positions, outs] where positions differ
    positions: int

    @property
    def in_shape(self) -> Shape:
        """(positions, ins)."""
        return (self.positions, int(self.weight.shape[0]))

    @property
    def out_shape(self) -> Shape:
        """(positions, outs)."""
        return (self.positions, int(self.weight.shape[1]))

    @property
    def multiply_adds(self) -> int:
        """Per row."""
        return self.positions * int(self.weight.size)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """float64 [rows, *out_shape] for x [rows, *in_shape]."""
        return np.asarray(np.asarray(x, np.float64) @ self.weight + self.bias)


@dataclass(frozen=True)
class ScaleStructure:
    """Every element by itself, [elements] -> [elements]: out = scale · x + bias. A normalisation's learned scale, or a value passed on."""

    scale: np.ndarray = field(repr=False)  # float64 [elements]
    bias: np.ndarray = field(repr=False)  # float64 [elements]

    @property
    def in_shape(self) -> Shape:
        """(elements,)."""
        return (len(self.scale),)

    @property
    def out_shape(self) -> Shape:
        """(elements,)."""
        return (len(self.scale),)

    @property
    def multiply_adds(self) -> int:
        """Per row."""
        return len(self.scale)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """float64 [rows, *out_shape] for x [rows, *in_shape]."""
        return np.asarray(np.asarray(x, np.float64) * self.scale + self.bias)


Layer = Union[ConvStructure, DenseStructure, ScaleStructure]


@dataclass(frozen=True)
class PlacedLayer:
    """A layer, the segment input it reads and where its results go. `None` for gather or scatter: all elements, in order."""

    layer: Layer
    source: int  # which segment input is read
    gather: np.ndarray | None = field(default=None, repr=False)  # int64 [layer inputs]: element of that input, -1 reads zero
    scatter: np.ndarray | None = field(default=None, repr=False)  # int64 [layer outputs]: element of the concatenated outputs, -1: dropped


@dataclass(frozen=True)
class SegmentStructure:
    """The segment's affine map as a sum of layers; elements that no layer writes are zero."""

    in_sizes: tuple[int, ...]  # elements per row of each segment input
    out_sizes: tuple[int, ...]  # of each output; outputs are numbered one after the other
    layers: tuple[PlacedLayer, ...]

    @property
    def single(self) -> Layer | None:
        """The layer, where the segment is nothing but one layer from all of one input to all of one output, in order."""
        if len(self.layers) != 1 or len(self.in_sizes) != 1 or len(self.out_sizes) != 1:
            return None
        placed = self.layers[0]
        return placed.layer if placed.gather is None and placed.scatter is None else None

    @property
    def multiply_adds(self) -> int:
        """Per row."""
        return sum(placed.layer.multiply_adds for placed in self.layers)

    def apply(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs float64 [rows, out_size] for inputs [rows, in_size]: the definition, for tests and small sizes."""
        rows = len(inputs[0])
        total = np.zeros((rows, sum(self.out_sizes)))
        for placed in self.layers:
            x = np.asarray(inputs[placed.source], np.float64).reshape(rows, -1)
            if placed.gather is not None:
                x = np.concatenate([x, np.zeros((rows, 1))], axis=1)[:, placed.gather]
            result = placed.layer.apply(x.reshape(rows, *placed.layer.in_shape)).reshape(rows, -1)
            if placed.scatter is None:
                total += result
            else:
                kept = placed.scatter >= 0
                total[:, placed.scatter[kept]] += result[:, kept]  # a layer writes an element once at most
        return list(_parts(total, self.out_sizes))


def _parts(total: np.ndarray, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    start = 0
    for size in sizes:
        yield total[:, start : start + size]
        start += size
