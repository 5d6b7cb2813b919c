"""Grid packing: a channel's positions in the coefficients of polynomials, rows one after the other.

Multiplying by X^-b moves position p + b to p, so a convolution is a linear map over shifted channels: out[j] = sum over k of w[j, k] *
X^-b_k * x[channel_k] (nGraph-HE2 and Gazelle shift slots with rotation keys for this; coefficients need none). The positions of all rows
make one sequence. Where it is longer than a polynomial it is cut into columns that overlap by the largest shift (a halo), so that every
output finds all that it reads in one column; the last coefficients of a column, which would need the next one, are not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from he_backend.ckks.linear import LinearBlock, LinearMap, ShiftedMap
from he_backend.inference.boxes import MAX_BOXES, Box, find_boxes
from he_backend.inference.structure import Structure, linear_bias


@dataclass(frozen=True)
class GridLayout:
    """Where a row's elements lie: position p of channel c is place c * positions + p, of sources and of targets (output channels)."""

    in_count: int  # channels, the constant's among them
    out_count: int
    positions: int  # of one row
    reach: int  # the largest shift
    last: int  # the last position of a row that an output is read from
    sources: tuple[Box, ...]
    targets: tuple[Box, ...]

    def columns(self, rows: int, degree: int) -> int:
        """Columns that `rows` rows take."""
        return grid_columns(rows, self.positions, self.reach, self.last, degree)

    def width(self, rows: int, degree: int) -> int:
        """Coefficients in use of a column."""
        return min(rows * self.positions, degree)

    def rows(self, columns: int, degree: int) -> int:
        """The most rows (at least one) that so many columns hold."""
        return max(1, degree // self.positions, (columns * (degree - self.reach) - self.last - 1) // self.positions + 1)


def grid_columns(rows: int, positions: int, reach: int, last: int, degree: int) -> int:
    """Columns that `rows` rows of so many positions take, shifted by up to `reach` and read up to position `last` of the last row."""
    if rows * positions <= degree:
        return 1
    return -(-((rows - 1) * positions + last + 1) // (degree - reach))


def fits_grid(structure: Structure, degree: int) -> bool:
    """Whether a structure can be laid out on grids of one ring degree."""
    several = structure.positions > 1 and (structure.uniform_bias or not structure.bias)
    return several and structure.reach < degree // 2


def grid_sources(structure: Structure) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Channel and shift int64 of each distinct input of the shifted map, and which of them the columns of each part read (-1: none)."""
    keys = [np.where(part.column_channel >= 0, part.column_channel * structure.positions + part.shift, -1) for part in structure.parts]
    found, index = np.unique(np.concatenate([key.reshape(-1) for key in keys]), return_inverse=True)
    padding = 1 if found[0] < 0 else 0
    found, index = found[padding:], index.reshape(-1) - padding
    ends = np.cumsum([key.size for key in keys])
    parts = [part.reshape(key.shape) for part, key in zip(np.split(index, ends[:-1]), keys)]
    return found // structure.positions, found % structure.positions, parts


def lay_out_grid(structure: Structure, linear: LinearMap, values: int) -> tuple[GridLayout, ShiftedMap] | None:
    """The layout and the integer map; element `values` is the constant. None if the layout is too irregular to state."""
    channel, shift, columns = grid_sources(structure)
    numbers = np.arange(structure.out_channels)
    blocks = [
        LinearBlock(
            column[:, None, :].astype(np.int32),
            structure.weights(part, linear).astype(np.int32),
            part.out_channel[:, None, :].astype(np.int32),
        )
        for part, column in zip(structure.parts, columns)
    ]
    places = structure.element_channel * structure.positions + structure.element_position
    sources = find_boxes(structure.elements, places)
    if structure.bias:
        bias = linear_bias(linear, values)[structure.an_output]
        constant = np.full((1, 1, 1), len(channel), np.int32)
        blocks.append(LinearBlock(constant, bias.astype(np.int32)[None, None], numbers.astype(np.int32)[None, None]))
        channel, shift = np.append(channel, structure.channels), np.append(shift, 0)
        sources += (Box(values, structure.channels * structure.positions, (structure.positions,), (0,), (1,)),)
    wanted = structure.scatter >= 0
    targets = find_boxes(structure.scatter[wanted], (numbers[:, None] * structure.positions + structure.place)[wanted])
    if len(sources) + len(targets) > MAX_BOXES:
        return None
    in_count = structure.channels + (1 if structure.bias else 0)
    layout = GridLayout(
        in_count, structure.out_channels, structure.positions, int(shift.max()), int(structure.place.max()), sources, targets
    )
    inner = LinearMap(len(channel), structure.out_channels, tuple(blocks))
    return layout, ShiftedMap(in_count, channel.astype(np.int32), shift.astype(np.int32), inner)
