"""Which packing each round takes: the cheaper one for the number of rows, or the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from he_backend.graph.affine import AffineMap
from he_backend.inference.cost import MAX_WEIGHT_BYTES, RoundSize, batch_nanoseconds, product_nanoseconds, weight_bytes
from he_backend.inference.product import Blocking, blockings, spread
from he_backend.inference.quantise import Statistics, bias_constant
from he_backend.inference.structure import Structure

# Engines whose tensors hold values in coefficients.
PRODUCT_ENGINES = ("native", "clear")


@dataclass(frozen=True)
class Packing:
    """How one round is packed; noise_factor is the variance of an answer's encryption error over that under batch packing."""

    name: str
    blocking: Blocking | None = None
    noise_factor: float = 1.0


BATCH = Packing("batch")


def choose_packing(
    affine: AffineMap, structure: Structure | None, stats: Sequence[Statistics], degree: int, engine: str, wanted: str, rows: int
) -> Packing:
    """The packing of one round at a ring degree. A round without a structure that products can use stays with 'batch'."""
    if wanted == "batch" or structure is None or engine not in PRODUCT_ENGINES:
        return BATCH
    reach = int(structure.place.max()) + 1

    def cost(blocking: Blocking) -> float:
        return product_nanoseconds(blocking, min(degree, (blocking.outs - 1) * structure.positions + reach), rows)

    fitting = [blocking for blocking in blockings(structure, degree) if weight_bytes(blocking, 1) <= MAX_WEIGHT_BYTES]
    if not fitting:
        return BATCH
    best = min(fitting, key=cost)
    constant = 1 if structure.bias else 0
    size = RoundSize(sum(affine.in_sizes) + constant, sum(affine.out_sizes), affine.nonzeros)
    if wanted == "auto" and batch_nanoseconds(size, degree, rows) <= cost(best):
        return BATCH
    return Packing("product", best, _noise_factor(affine, structure, stats, best))


def _noise_factor(affine: AffineMap, structure: Structure, stats: Sequence[Statistics], blocking: Blocking) -> float:
    """The mean squared norm of what meets the errors of an answer's coefficient, over that of its own row of weights."""
    peaks = np.concatenate([stat.peaks for stat in stats])
    scales = np.divide(1.0, peaks, out=np.zeros(len(peaks)), where=peaks > 0)
    most = spread(blocking, structure.squares(affine, scales, bias_constant(affine)))
    return max([1.0, *(most * stat.mean_peaks / stat.mean_squares for stat in stats if stat.mean_squares)])
