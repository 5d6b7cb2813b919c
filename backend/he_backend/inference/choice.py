"""Which packing each round takes: the cheaper one for the number of rows, or the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from he_backend.graph.affine import AffineMap
from he_backend.inference.cost import (
    MAX_WEIGHT_BYTES,
    RoundSize,
    batch_nanoseconds,
    grid_nanoseconds,
    product_nanoseconds,
    weight_bytes,
)
from he_backend.inference.grid import fits_grid, grid_sources
from he_backend.inference.product import Blocking, blockings, spread
from he_backend.inference.quantise import Statistics, bias_constant
from he_backend.inference.structure import Structure

# Engines whose tensors hold values in coefficients: what grid and product packing need.
COEFFICIENT_ENGINES = ("native", "clear")


@dataclass(frozen=True)
class Packing:
    """How one round is packed; noise_factor is the variance of an answer's encryption error over that under batch packing."""

    name: str
    blocking: Blocking | None = None
    noise_factor: float = 1.0


BATCH = Packing("batch")


GRID = Packing("grid")


def choose_packing(
    affine: AffineMap, structure: Structure | None, stats: Sequence[Statistics], degree: int, engine: str, wanted: str, rows: int
) -> Packing:
    """The packing of one round at a ring degree: the cheapest one, or the wanted one where the round has a structure that it can use.

    Otherwise it stays with 'batch', which every map fits.
    """
    options = packing_costs(affine, structure, stats, degree, engine, rows)
    fitting = [option for option in options if wanted in ("auto", option[0].name)]
    return min(fitting, key=lambda option: option[1])[0] if fitting else BATCH


def packing_costs(
    affine: AffineMap, structure: Structure | None, stats: Sequence[Statistics], degree: int, engine: str, rows: int
) -> list[tuple[Packing, float]]:
    """What a round can take, the best of each kind, and its estimated nanoseconds for `rows` rows under one prime."""
    constant = 1 if affine.bias.any() else 0
    size = RoundSize(sum(affine.in_sizes) + constant, sum(affine.out_sizes), affine.nonzeros)
    options = [(BATCH, batch_nanoseconds(size, degree, rows))]
    if structure is None or engine not in COEFFICIENT_ENGINES:
        return options
    if fits_grid(structure, degree):
        _, shift, _ = grid_sources(structure)
        options.append((GRID, grid_nanoseconds(structure, len(shift) + constant, int((shift > 0).sum()), degree, rows)))
    reach = int(structure.place.max()) + 1

    def cost(blocking: Blocking) -> float:
        return product_nanoseconds(blocking, min(degree, (blocking.outs - 1) * structure.positions + reach), rows)

    fitting = [blocking for blocking in blockings(structure, degree) if weight_bytes(blocking, 1) <= MAX_WEIGHT_BYTES]
    if fitting:
        best = min(fitting, key=cost)
        options.append((Packing("product", best, _noise_factor(affine, structure, stats, best)), cost(best)))
    return options


def _noise_factor(affine: AffineMap, structure: Structure, stats: Sequence[Statistics], blocking: Blocking) -> float:
    """The mean squared norm of what meets the errors of an answer's coefficient, over that of its own row of weights."""
    peaks = np.concatenate([stat.peaks for stat in stats])
    scales = np.divide(1.0, peaks, out=np.zeros(len(peaks)), where=peaks > 0)
    most = spread(blocking, structure.squares(affine, scales, bias_constant(affine)))
    return max([1.0, *(most * stat.mean_peaks / stat.mean_squares for stat in stats if stat.mean_squares)])
