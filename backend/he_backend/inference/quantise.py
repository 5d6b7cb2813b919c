"""A float affine map becomes an integer linear map, with the bounds that make overflow impossible and the precision to expect.

A bias is a weight on one more element, which holds a constant (architecture, idea 5), so the integer map is linear. The weight width is
chosen where the error of rounding weights and the noise of encryption, which a wider weight leaves less room to outgrow, are smallest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from he_backend.ckks.linear import MAX_WEIGHT_BITS, LinearBlock, LinearMap
from he_backend.errors import ModelError
from he_backend.graph.affine import AffineMap

MIN_WEIGHT_BITS = 4
_LEAST_CONSTANT = 2.0**-100  # which float32 holds
# Encoding rounds in float64, so scaled inputs stay below this even where the modulus has room for more.
LARGEST_SCALED = 2.0**52
# Variance of SEAL's centered binomial error over 42 bits, and of rounding to an integer.
ERROR_VARIANCE, ROUNDING_VARIANCE = 10.5, 1.0 / 12.0
# Assumed root mean square of the inputs relative to the largest: what expected precision is stated for.
TYPICAL_RMS = 0.25


@dataclass(frozen=True)
class Statistics:
    """What decides the precision of one output tensor: means over its rows. Each row is scaled by its peak, so that it fills the width."""

    peaks: np.ndarray  # float64 [rows]: the largest magnitude that a row's integers must hold
    reach: float  # largest over rows of the L1 norm, bias included, over the peak
    mean_squares: float  # of the squared L2 norm
    mean_rounding: float  # of the number of weights times the squared peak
    mean_biases: float = 0.0  # of the squared bias
    mean_bias_rounding: float = 0.0  # of the squared product of peak and constant, over rows with a bias
    mean_bias_weights: float = 0.0  # of the squared weight on the constant

    @cached_property  # read for every width and modulus that a planner tries, and peaks has an element per row
    def mean_peaks(self) -> float:
        """Mean of the squared peaks."""
        return float((self.peaks**2).mean()) if self.peaks.size else 0.0


@dataclass(frozen=True)
class QuantisedMap:
    """An integer map and how its numbers relate to the real ones.

    Element in_count - 1 is the constant if `constant` is not 0. Element o of output tensor t holds scales[t][o] times the real value.
    norms[t, i] bounds the L1 norm, over the elements of input tensor i, of every integer row of output tensor t; the last column is the
    constant's.
    """

    linear: LinearMap
    in_sizes: tuple[int, ...]
    out_sizes: tuple[int, ...]
    scales: tuple[np.ndarray, ...]
    constant: float
    norms: np.ndarray
    weight_bits: int


def statistics(affine: AffineMap) -> list[Statistics]:
    """Per output tensor; raises ModelError for weights that are not finite."""
    total = sum(affine.out_sizes)
    l1, squares, terms = (np.zeros(total) for _ in range(3))
    for block in affine.blocks:
        if not np.isfinite(block.weights).all():
            raise ModelError("a weight of the model is NaN or infinite: export the model again")
        used = (block.gather >= 0).astype(np.float64)
        for sums, values in (
            (l1, np.abs(block.weights)),
            (squares, block.weights**2),
            (terms, (block.weights != 0).astype(float)),
        ):
            np.add.at(sums, block.scatter.ravel(), np.matmul(used, values).ravel())
    if not np.isfinite(affine.bias).all():
        raise ModelError("a bias of the model is NaN or infinite: export the model again")
    constant, peaks = _constant_and_peaks(affine)
    bias_rounding = np.where(affine.bias != 0, (peaks * constant) ** 2, 0.0)
    l1 += np.abs(affine.bias)
    reach = np.divide(l1, peaks, out=np.zeros(total), where=peaks > 0)
    return [
        Statistics(
            peaks[start:stop],
            float(reach[start:stop].max(initial=0.0)),
            float(squares[start:stop].mean()) if stop > start else 0.0,
            float((terms * peaks**2)[start:stop].mean()) if stop > start else 0.0,
            float((affine.bias**2)[start:stop].mean()) if stop > start else 0.0,
            float(bias_rounding[start:stop].mean()) if stop > start else 0.0,
            float(((affine.bias / constant) ** 2)[start:stop].mean()) if constant and stop > start else 0.0,
        )
        for start, stop in _spans(affine.out_sizes)
    ]


def bias_constant(affine: AffineMap) -> float:
    """The power of two that the constant element holds so that biases fit the width of weights; 0 without a bias.

    Below 1 only as far as no row's bias takes more of the width than its weights: a constant of 1 beside inputs of 1/1000, whose weights
    are large, would leave these inputs a thousandth of the scale.
    """
    return _constant_and_peaks(affine)[0]


def _constant_and_peaks(affine: AffineMap) -> tuple[float, np.ndarray]:
    """The bias constant, and float64 [rows] what each row is scaled by; rows that share a column of weights share their peak."""
    biases = np.abs(affine.bias)
    bias = float(biases.max(initial=0.0))
    weight = max((float(np.abs(block.weights).max(initial=0.0)) for block in affine.blocks), default=0.0)
    if bias > weight > 0.0:
        constant = 2.0 ** math.ceil(math.log2(bias / weight))
        return constant, _peaks(affine, biases / constant)
    peaks = _peaks(affine, np.zeros_like(biases))
    if bias == 0.0:
        return 0.0, peaks
    if ((peaks == 0.0) & (biases > 0.0)).any():
        return 1.0, _peaks(affine, biases)
    most = float((biases[peaks > 0.0] / peaks[peaks > 0.0]).max())
    constant = min(1.0, 2.0 ** math.ceil(math.log2(max(most, _LEAST_CONSTANT))))
    return constant, peaks if (biases <= peaks * constant).all() else _peaks(affine, biases / constant)


def _peaks(affine: AffineMap, least: np.ndarray) -> np.ndarray:
    """float64 [rows]: the largest weight of each row and of those that it shares a column of weights with, at least what is given."""
    peaks = least.copy()
    columns = [np.abs(block.weights).max(axis=1, initial=0.0)[:, None] for block in affine.blocks]  # [groups, 1, outs]
    for block, column in zip(affine.blocks, columns):
        np.maximum.at(peaks, block.scatter.ravel(), np.broadcast_to(column, block.scatter.shape).ravel())
    while True:
        before = peaks.copy()
        for block in affine.blocks:
            shared = peaks[block.scatter].max(axis=1, initial=0.0)[:, None]
            np.maximum.at(peaks, block.scatter.ravel(), np.broadcast_to(shared, block.scatter.shape).ravel())
        if np.array_equal(before, peaks):
            return peaks


@dataclass(frozen=True)
class Noise:
    """What encryption adds: the variance of a decoded error over that in a coefficient, and the answer's modulus and ring."""

    factor: float  # 1 for values in coefficients, N for values in slots
    ring_degree: int = 0
    answer_modulus: int = 0  # that answers are switched to; 0 when they are not


def relative_error(stat: Statistics, weight_bits: int, modulus: int, noise: Noise) -> float:
    """Expected error of an output tensor relative to its size: weights rounded to weight_bits, scale as large as modulus allows.

    Its size is what its inputs make of it: biases count only where there is nothing else (all places read padding).
    """
    size = stat.mean_squares * TYPICAL_RMS**2 or stat.mean_biases
    if size == 0.0:
        return 0.0
    top = 2 ** (weight_bits - 1) - 1
    delta = min(modulus / (2.0 * top * stat.reach), LARGEST_SCALED)  # for inputs of at most 1
    encryption, rounding = absolute_errors(stat, weight_bits, modulus, noise)
    bias_rounding = stat.mean_bias_rounding / (12.0 * top**2)
    return math.sqrt(((encryption / delta) ** 2 + (rounding * TYPICAL_RMS) ** 2 + bias_rounding) / size)


def absolute_errors(stat: Statistics, weight_bits: int, modulus: int, noise: Noise) -> tuple[float, float]:
    """Root mean squares of an output's error: of encryption at a scale of 1, and of weights' rounding for inputs of root mean square 1.

    Zeros where all weights are 0: such outputs have no size to compare with.
    """
    if not stat.mean_squares and not stat.mean_biases:
        return 0.0, 0.0
    top = 2 ** (weight_bits - 1) - 1
    weights = (stat.mean_squares or stat.mean_peaks) + stat.mean_bias_weights
    encryption = weights * noise.factor * (ERROR_VARIANCE + ROUNDING_VARIANCE)
    switching = 0.0
    if noise.answer_modulus:
        # Rounding body and mask: the latter is multiplied by a ternary secret, of which two thirds are not zero.
        variance = ROUNDING_VARIANCE * (1.0 + 2.0 / 3.0 * noise.ring_degree)
        switching = variance * stat.mean_peaks * (modulus / (noise.answer_modulus * top)) ** 2
    return math.sqrt(encryption + switching), math.sqrt(stat.mean_rounding / 12.0) / top


def best_width(stats: Sequence[Statistics], modulus: int, noise: Noise, most_bits: int = MAX_WEIGHT_BITS) -> tuple[int, float]:
    """The weight width in bits (at most most_bits) with the smallest expected relative error over all output tensors, and that error."""
    widths = range(MIN_WEIGHT_BITS, most_bits + 1)
    errors = [max((relative_error(stat, bits, modulus, noise) for stat in stats), default=0.0) for bits in widths]
    best = int(np.argmin(errors))
    return widths[best], errors[best]


def quantise(affine: AffineMap, weight_bits: int) -> QuantisedMap:
    """The integer map of an affine map, with weights of weight_bits bits, sign included."""
    top = 2 ** (weight_bits - 1) - 1
    constant, peaks = _constant_and_peaks(affine)
    # A row without weights gets a large scale: it may share a polynomial with others, and so have errors.
    row_scales = float(top) / np.where(peaks > 0, peaks, peaks[peaks > 0].min() if peaks.any() else float(top))
    blocks = [
        LinearBlock(block.gather, np.rint(block.weights * row_scales[block.scatter[:, :1]]).astype(np.int32), block.scatter)
        for block in _shifted(affine)
        if block.gather.size and block.scatter.size
    ]
    in_total, out_total = sum(affine.in_sizes), sum(affine.out_sizes)
    if constant:
        blocks.append(_bias_block(affine.bias * row_scales / constant, in_total))
    in_count = in_total + (1 if constant else 0)
    linear = LinearMap(in_count, out_total, tuple(blocks))
    ends = tuple(int(n) for n in np.cumsum(affine.in_sizes)) + ((in_count,) if constant else ())
    rows = linear.norms(ends)
    norms = np.array([rows[start:stop].max(axis=0, initial=0) for start, stop in _spans(affine.out_sizes)], dtype=np.int64)
    scales = tuple(row_scales[start:stop] for start, stop in _spans(affine.out_sizes))
    return QuantisedMap(linear, tuple(affine.in_sizes), tuple(affine.out_sizes), scales, constant, norms, weight_bits)


def _bias_block(bias: np.ndarray, element: int) -> LinearBlock:
    rows = np.flatnonzero(np.rint(bias))
    return LinearBlock(
        np.full((1, 1, 1), element, np.int32),
        np.rint(bias[rows]).astype(np.int32)[None, None],
        rows.astype(np.int32)[None, None],
    )


def _shifted(affine: AffineMap) -> list[LinearBlock]:
    """The blocks with elements of all inputs numbered one after the other; their weights are still real."""
    starts = np.concatenate([[0], np.cumsum(affine.in_sizes)])
    return [
        LinearBlock(
            np.where(block.gather >= 0, block.gather + starts[block.source], -1).astype(np.int32),
            block.weights,
            block.scatter,
        )
        for block in affine.blocks
    ]


def _spans(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    ends = np.cumsum(sizes)
    return [(int(end - size), int(end)) for end, size in zip(ends, sizes)]
