"""The environment test: one small encrypted computation whose answer both sides know, run before any user data is encrypted."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from he_backend.ckks.engines import Traits, answer_modulus, tensor_moduli, traits
from he_backend.ckks.linear import LinearBlock, LinearMap
from he_backend.ckks.params import Params
from he_backend.errors import ParameterError
from he_backend.inference.quantise import ERROR_VARIANCE, LARGEST_SCALED, ROUNDING_VARIANCE

_WEIGHTS = np.array([[3, -5], [-2, 7], [11, 1]], dtype=np.int32)
_VALUES = np.array([[0.5, -0.25, 1.0, 0.0], [1.0, 0.75, -1.0, 0.125], [-0.5, 0.5, 0.25, -1.0]])
ANSWER_BITS = 26
NORM = int(np.abs(_WEIGHTS).sum(axis=0).max())
_MOST_SQUARES = float((_WEIGHTS.astype(float) ** 2).sum(axis=0).max())
# A wrong key, modulus or byte order gives errors around modulus / scale, at least 8 * NORM, in each of eight values: far above these.
_LEAST_ERROR, _MOST_ERROR = 1e-2, 2.0
_DEVIATIONS = 8.0  # of the noise, that a right answer stays within


class Probe(NamedTuple):
    """How the test runs under one engine and parameter set; equal on both sides."""

    level: int  # primes that the ciphertexts use
    modulus: int  # their product
    scale: float
    allowed: float  # the largest absolute error of a right answer


def probe_map() -> LinearMap:
    """Three elements to two, by fixed weights."""
    gather, scatter = np.arange(3, dtype=np.int32), np.arange(2, dtype=np.int32)
    return LinearMap(3, 2, (LinearBlock(gather[None, None], _WEIGHTS[None], scatter[None, None]),))


def probe_values() -> np.ndarray:
    """float64 [3, 4]: the known input."""
    return _VALUES.copy()


def probe_of(engine: str, params: Params) -> Probe:
    """The test of an engine under parameters: by the fewest primes under which its noise is small, or by those under which it is least.

    Raises ParameterError when they are too small to tell right from wrong.
    """
    kind, degree = traits(engine, params), params.ring_degree
    moduli = [math.prod(params.moduli[:level]) for level in range(1, len(params.moduli) + 1)]
    every = [
        _probe(kind, degree, level, modulus) for level, modulus in enumerate(moduli, 1) if modulus.bit_length() <= kind.most_modulus_bits
    ]
    found = next((one for one in every if one.allowed <= _LEAST_ERROR), min(every, key=lambda one: one.allowed))
    if found.allowed > _MOST_ERROR:
        enough = next(bits for bits in range(20, 61) if _probe(kind, degree, 1, 1 << (bits - 1)).allowed <= _MOST_ERROR)
        raise ParameterError(
            f"preset {params.name}: coeff_modulus: {found.modulus.bit_length()} bits are too few for engine {engine!r} at "
            f"poly_modulus_degree {degree}: the noise of encryption would hide the values; take a first prime of at least {enough} bits"
        )
    return found


def _probe(kind: Traits, degree: int, level: int, modulus: int) -> Probe:
    # A quarter, for a margin, of the largest scale under which the known computation cannot wrap around.
    scale = min((modulus / 2.0 - 1.0 - NORM * kind.most_error) / NORM / 4.0, LARGEST_SCALED / 2.0) / kind.growth
    variance = (ERROR_VARIANCE + ROUNDING_VARIANCE) * _MOST_SQUARES * kind.noise_factor
    if kind.switches:
        switched = min(modulus, 1 << (ANSWER_BITS - 1)) / modulus
        variance += ROUNDING_VARIANCE * (1.0 + 2.0 / 3.0 * degree) / switched**2
    return Probe(level, modulus, scale, max(_LEAST_ERROR, _DEVIATIONS * math.sqrt(variance) / scale))


def probe_answer_moduli(engine: str, params: Params, probe: Probe) -> tuple[int, ...]:
    """The moduli of the answer's residues."""
    if not traits(engine, params).switches:
        return tensor_moduli(engine, params.moduli[: probe.level])
    return (answer_modulus(params.ring_degree, ANSWER_BITS, probe.modulus),)


def probe_error(answer: np.ndarray) -> float:
    """The largest absolute difference of a decrypted answer, float64 [2, 4], from the known one."""
    return float(np.abs(answer - _WEIGHTS.T @ _VALUES).max())
