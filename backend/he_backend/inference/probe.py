"""The environment test: one small encrypted computation whose answer both sides know, run before any user data is encrypted."""

from __future__ import annotations

import numpy as np

from he_backend.ckks.engines import Traits
from he_backend.ckks.linear import LinearBlock, LinearMap

_WEIGHTS = np.array([[3, -5], [-2, 7], [11, 1]], dtype=np.int32)
_VALUES = np.array([[0.5, -0.25, 1.0, 0.0], [1.0, 0.75, -1.0, 0.125], [-0.5, 0.5, 0.25, -1.0]])
ANSWER_BITS = 26
NORM = int(np.abs(_WEIGHTS).sum(axis=0).max())


def probe_map() -> LinearMap:
    """Three elements to two, by fixed weights."""
    gather, scatter = np.arange(3, dtype=np.int32), np.arange(2, dtype=np.int32)
    return LinearMap(3, 2, (LinearBlock(gather[None, None], _WEIGHTS[None], scatter[None, None]),))


def probe_values() -> np.ndarray:
    """float64 [3, 4]: the known input."""
    return _VALUES.copy()


def probe_scale(modulus: int, kind: Traits) -> float:
    """The largest scale under which the known computation cannot wrap around."""
    return (modulus / 2.0 - 1.0 - NORM * kind.most_error) / (NORM * kind.growth) / 4.0


def probe_error(answer: np.ndarray) -> float:
    """The largest absolute difference of a decrypted answer, float64 [2, 4], from the known one."""
    return float(np.abs(answer - _WEIGHTS.T @ _VALUES).max())
