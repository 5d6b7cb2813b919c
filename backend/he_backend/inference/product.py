"""Product packing: a polynomial holds channels times positions of one row, so that one polynomial product yields many outputs.

After Cheetah (Huang, Lu, Hong and Ding, USENIX Security 2022), sections 3 and 4, with X^N = -1 used so that results lie in the first
coefficients. With S positions and m output channels to a polynomial, channel c at position a is coefficient c m S + a, output channel j at
place v is coefficient j S + v, and the weight of channel c, output j and shift b is coefficient j S - c m S - b. A product of a weight
(j', c', b) and an input (c, a) lands on output (j, v) only if (c - c') m + (j' - j) = 0 and a - b = v, since |a - b - v| < S; hence c = c'
and j = j'. So each result is the sum that it should be, as long as all channels fit: channels * m * S <= N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from he_backend.ckks.linear import LinearMap
from he_backend.ckks.product import ProductMap
from he_backend.inference.boxes import MAX_BOXES, Box, find_boxes
from he_backend.inference.structure import Structure, linear_bias


@dataclass(frozen=True)
class ProductLayout:
    """Where a row's elements lie: of sources, the inputs one after the other and then the constant; of targets, the outputs."""

    in_count: int
    out_count: int
    width: int  # coefficients in use of an answer
    error_norm: int  # largest L1 norm of the weights that meet the errors of a coefficient
    sources: tuple[Box, ...]
    targets: tuple[Box, ...]


@dataclass(frozen=True)
class Blocking:
    """How channels are shared out: `outs` output channels and `ins` input channels to a polynomial."""

    degree: int
    outs: int
    ins: int
    in_count: int
    out_count: int
    pairs: int


def blockings(structure: Structure, degree: int) -> list[Blocking]:
    """All that are worth comparing: for each number of answer polynomials the fewest output channels in one. Empty if nothing fits."""
    most = min(structure.out_channels, degree // structure.positions)
    counts = np.unique(np.concatenate([np.arange(1, 17), np.geomspace(1, structure.out_channels, 32).astype(int)]))
    sizes = sorted({-(-structure.out_channels // int(count)) for count in counts})
    return [_blocking(structure, degree, outs) for outs in sizes if outs <= most]


def _blocking(structure: Structure, degree: int, outs: int) -> Blocking:
    ins = degree // (outs * structure.positions)
    with_channel = structure.channels + (1 if structure.bias and structure.uniform_bias else 0)
    alone = 1 if structure.bias and not structure.uniform_bias else 0
    in_count, out_count = -(-with_channel // ins), -(-structure.out_channels // outs)
    pairs = in_count * out_count
    if len(structure.parts) > 1 or len(structure.parts[0].column_channel) > 1:
        used = np.zeros((out_count, in_count), dtype=bool)
        for part in structure.parts:
            reads = part.column_channel >= 0
            for group in range(len(reads)):
                used[np.ix_(np.unique(part.out_channel[group] // outs), np.unique(part.column_channel[group][reads[group]] // ins))] = True
        pairs = min(pairs, int(used.sum()) + (out_count if structure.bias else 0))
    return Blocking(degree, outs, ins, in_count + alone, out_count, pairs + alone * out_count)


def spread(blocking: Blocking, squares: np.ndarray) -> float:
    """The largest sum of the squared norms of the output channels that share a polynomial, which all add to its noise."""
    padded = np.zeros(blocking.out_count * blocking.outs)
    padded[: len(squares)] = squares
    return float(padded.reshape(-1, blocking.outs).sum(axis=1).max())


def lay_out(structure: Structure, blocking: Blocking, linear: LinearMap, values: int) -> tuple[ProductLayout, ProductMap] | None:
    """The layout and the integer map under a blocking; element `values` is the constant. None if the layout is too irregular to state."""
    n, s = blocking.degree, structure.positions
    step = blocking.outs * s

    def place(channel: np.ndarray, position: np.ndarray) -> np.ndarray:
        result: np.ndarray = channel // blocking.ins * n + channel % blocking.ins * step + position
        return result

    elements, places = structure.elements, place(structure.element_channel, structure.element_position)
    numbers = np.arange(structure.out_channels)
    starts = numbers // blocking.outs * n + numbers % blocking.outs * s
    targets, wanted = starts[:, None] + structure.place, structure.scatter >= 0  # [J, P]
    chosen = []
    for part in structure.parts:
        weights = structure.weights(part, linear)
        g, k, m = np.nonzero((weights != 0) & (part.column_channel >= 0)[:, :, None])
        channel, out = part.column_channel[g, k], part.out_channel[g, m]
        power = out % blocking.outs * s - channel % blocking.ins * step - part.shift[g, k]
        chosen.append((out // blocking.outs, channel // blocking.ins, power, weights[g, k, m]))
    if structure.bias:
        bias = linear_bias(linear, values)
        if structure.uniform_bias:
            where = np.unique(structure.place)
            constant = place(np.full(len(where), structure.channels), where)
            last, slot = structure.channels // blocking.ins, structure.channels % blocking.ins
            powers = numbers % blocking.outs * s - slot * step
            chosen.append((numbers // blocking.outs, np.full(len(numbers), last), powers, bias[structure.an_output]))
        else:
            constant = np.array([(blocking.in_count - 1) * n])
            flat = targets[wanted]
            chosen.append((flat // n, np.full(len(flat), blocking.in_count - 1), flat % n, bias[structure.scatter[wanted]]))
        elements = np.concatenate([elements, np.full(len(constant), values)])
        places = np.concatenate([places, constant])
    columns = [np.concatenate(part) for part in zip(*chosen)]
    product = _gather_pairs(n, blocking, int((targets[wanted] % n).max()) + 1, *columns)
    l1, _ = product.error_norms()
    sources = find_boxes(elements, places)
    sinks = find_boxes(structure.scatter[wanted], targets[wanted])
    if len(sources) + len(sinks) > MAX_BOXES:
        return None
    return ProductLayout(blocking.in_count, blocking.out_count, product.width, int(l1.max(initial=0)), sources, sinks), product


def _gather_pairs(
    n: int, blocking: Blocking, width: int, out: np.ndarray, source: np.ndarray, power: np.ndarray, weight: np.ndarray
) -> ProductMap:
    """The map of terms weight * X^power with -N < power < N, sorted by output and input."""
    weight, power = np.where(power < 0, -weight, weight), np.where(power < 0, power + n, power)
    key = out * blocking.in_count + source
    order = np.argsort(key, kind="stable")
    keys, first = np.unique(key[order], return_index=True)
    return ProductMap(
        n,
        blocking.in_count,
        blocking.out_count,
        width,
        (keys // blocking.in_count).astype(np.int32),
        (keys % blocking.in_count).astype(np.int32),
        np.append(first, len(key)).astype(np.int64),
        power[order].astype(np.int32),
        weight[order].astype(np.int32),
    )
