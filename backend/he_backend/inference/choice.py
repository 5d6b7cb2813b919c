"""Which packing each round takes: the cheaper one for the number of rows, or the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from he_backend.graph.affine import AffineMap
from he_backend.inference.cost import (
    MAX_WEIGHT_BYTES,
    Costs,
    Estimate,
    RoundSize,
    batch_estimate,
    grid_estimate,
    product_estimate,
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


@dataclass(frozen=True)
class Option:
    """A packing that a round can take, and what it is estimated to cost for the rows wanted."""

    packing: Packing
    estimate: Estimate

    def price(self, goal: str, prime_bits: int, halves: int = 1) -> float:
        """Nanoseconds, or bytes where these are the goal, under one prime."""
        return self.estimate.bytes(prime_bits) if goal == "bytes" else self.estimate.nanoseconds(prime_bits, halves)


def worth_taking(every: Sequence[Option], wanted: str, goal: str = "latency", prime_bits: int = 54) -> tuple[Option, ...]:
    """Of all options of a round those of the packing wanted ('auto': any), the cheapest first: by 'latency' or 'bytes'.

    Only 'batch', which every map fits, where the round has not the structure for the wanted one. Options that cost more than another and
    have no less noise are left out.
    """
    options = [option for option in every if wanted in ("auto", option.packing.name)]
    if not options:
        return tuple(option for option in every if option.packing is BATCH)
    chosen: list[Option] = []
    for option in sorted(options, key=lambda one: (one.price(goal, prime_bits), one.packing.noise_factor)):
        if not chosen or option.packing.noise_factor < chosen[-1].packing.noise_factor:
            chosen.append(option)
    return tuple(chosen)


def all_options(
    affine: AffineMap,
    structure: Structure | None,
    stats: Sequence[Statistics],
    degree: int,
    engine: str,
    rows: int,
    costs: Costs = Costs(),  # noqa: B008 - frozen
) -> list[Option]:
    """Every packing that a round can take at a ring degree, batch first."""
    constant = 1 if affine.bias.any() else 0
    size = RoundSize(sum(affine.in_sizes) + constant, sum(affine.out_sizes), affine.nonzeros)
    options = [Option(BATCH, batch_estimate(costs, size, degree, rows))]
    if structure is None or engine not in COEFFICIENT_ENGINES:
        return options
    if fits_grid(structure, degree):
        _, shift, _ = grid_sources(structure)
        options.append(Option(GRID, grid_estimate(costs, structure, len(shift) + constant, int((shift > 0).sum()), degree, rows)))
    squares = _scaled_squares(affine, structure, stats)
    outputs = int((structure.scatter >= 0).sum(axis=1).max())  # of a channel
    for blocking in blockings(structure, degree):
        if weight_bytes(blocking, 1) <= MAX_WEIGHT_BYTES:
            width = min(degree, blocking.outs * outputs)
            packing = Packing("product", blocking, _noise_factor(spread(blocking, squares), stats))
            options.append(Option(packing, product_estimate(costs, blocking, width, rows)))
    return options


def _scaled_squares(affine: AffineMap, structure: Structure, stats: Sequence[Statistics]) -> np.ndarray:
    peaks = np.concatenate([stat.peaks for stat in stats])
    scales = np.divide(1.0, peaks, out=np.zeros(len(peaks)), where=peaks > 0)
    return structure.squares(affine, scales, bias_constant(affine))


def _noise_factor(most: float, stats: Sequence[Statistics]) -> float:
    """The mean squared norm of what meets the errors of an answer's coefficient, over that of its own row of weights."""
    return max([1.0, *(most * stat.mean_peaks / stat.mean_squares for stat in stats if stat.mean_squares)])
