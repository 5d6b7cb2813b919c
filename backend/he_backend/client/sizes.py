"""Rows of very different size in one round, and how precise they come back.

A round has one scale, which its largest row decides. A round is linear, its constant included, so each row may be multiplied by a factor of
its own that its results are divided by: a small row then uses as much of the modulus as a large one. Factors are powers of two, so exact,
and never leave the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from he_backend.ckks.engines import Traits
from he_backend.errors import CapacityError, InputError
from he_backend.inference.packing import Constant, factors_of
from he_backend.inference.plan import ClientPlan, RoundPlan, safe_scales
from he_backend.inference.precision import MARGIN_BITS
from he_backend.inference.quantise import LARGEST_SCALED, TYPICAL_RMS

NOT_A_NUMBER = (
    "the model cannot take them, or it takes a Sqrt, Log or Pow of results near 0, which the noise of encryption made negative: "
    "add a small number before it"
)
_FLOAT32_BITS = 100  # of a factor that float32 can hold, and its inverse
_WORTH_BITS = 2  # by which a row must be smaller than the largest for a pass over the data


@dataclass(frozen=True)
class Sized:
    """A round's inputs as they are encrypted, the scale, and what each row was multiplied by ([rows], None: 1)."""

    inputs: list[np.ndarray]
    constant: Constant
    scale: float
    factors: np.ndarray | None
    typical: float  # root mean square assumed of the inputs, factors left out

    def real(self, outputs: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs [rows, ...] without the rows' factors."""
        return outputs if self.factors is None else [_by_rows(1.0 / self.factors, output) for output in outputs]


def sized(this: RoundPlan, plan: ClientPlan, inputs: Sequence[np.ndarray]) -> Sized:
    """Inputs [rows, ...] of a round made ready.

    Raises InputError for NaN and infinity, CapacityError for rows too large for the modulus.
    """
    values = list(inputs)
    if this.in_scales:
        values = [value * factors_of([runs]).astype(value.dtype).reshape(value.shape[1:]) for runs, value in zip(this.in_scales, values)]
    largest = np.stack([_largest(value.reshape(len(value), -1)) for value in values], axis=1)
    if not np.isfinite(largest).all():
        raise InputError(f"round {this.index}: a client step gave NaN or infinity for these rows; {NOT_A_NUMBER}")
    modulus, kind = plan.modulus(this.index), plan.traits
    exponents, scale = _exponents(safe_scales(this, modulus, kind, plan.params.ring_degree, largest), _most_scale(modulus, kind))
    if scale <= 0.0:
        raise CapacityError(f"round {this.index}: these rows are too large for the modulus; scale them down or take a larger preset")
    typical = TYPICAL_RMS * float(largest.max(initial=0.0))
    if not exponents.any():
        return Sized(values, this.constant, scale, None, typical)
    factors = 2.0**exponents
    return Sized([_by_rows(factors, value) for value in values], this.constant * factors, scale, factors, typical)


def squared_error(this: RoundPlan, given: Sized, outputs: Sequence[np.ndarray]) -> float:
    """The squared error to expect of a round's outputs at real scale, relative to the largest of a value; of the worst value.

    Raises CapacityError for outputs that float32 cannot hold.
    """
    worst = 0.0
    per_row = np.ones(1) if given.factors is None else 1.0 / given.factors
    for (encryption, rounding), output in zip(this.errors, outputs):
        size = float(_largest(output.reshape(1, -1))[0])
        if not np.isfinite(size):
            raise CapacityError(f"round {this.index}: its results are beyond the largest float32 (3.4e38); scale the rows down")
        if size > 0.0 and given.typical > 0.0:  # zeros have no relative error
            error = float((per_row**2).mean()) * (encryption / given.scale) ** 2 + (rounding * given.typical) ** 2
            worst = max(worst, error / size**2)
    return worst


def reached_bits(plan: ClientPlan, squared_errors: Sequence[float]) -> float:
    """Bits of precision to expect for these rows: what the plan promises, or less where values were smaller than it assumes."""
    planned = sum(4.0 ** -(this.expected_bits + MARGIN_BITS) for this in plan.rounds)
    found = sum(squared_errors)
    if found <= planned:
        return plan.expected_bits
    return round(plan.expected_bits - 0.5 * float(np.log2(found / planned)), 2)


def _most_scale(modulus: int, kind: Traits) -> float:
    """Beyond which inputs are made larger instead of the scale: SEAL takes none above its modulus."""
    return min(modulus / 4.0, LARGEST_SCALED) / kind.growth


def _exponents(scales: np.ndarray, most: float) -> tuple[np.ndarray, float]:
    """[rows] powers of two by which rows are multiplied, and the scale of all of them."""
    base = float(scales.min())
    if base <= 0.0:
        return np.zeros(len(scales), np.int64), base
    exponents = np.floor(np.log2(scales / base)).astype(np.int64)
    exponents[exponents < _WORTH_BITS] = 0
    common = max(0, int(np.ceil(np.log2(base / most))))
    return exponents + common, base / 2.0**common


def _by_rows(factors: np.ndarray, value: np.ndarray) -> np.ndarray:
    factors = factors.reshape((-1,) + (1,) * (value.ndim - 1))
    if np.abs(np.log2(factors)).max() < _FLOAT32_BITS:
        factors = factors.astype(value.dtype)
    product: np.ndarray = value * factors
    return product.astype(value.dtype, copy=False)


def _largest(rows: np.ndarray) -> np.ndarray:
    """float64 [rows] the largest magnitude of each, without an array of magnitudes; NaN where there is one."""
    return np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0)).astype(np.float64)
