"""The canonical embedding: N/2 complex slots <-> N real coefficients, in SEAL's order of slots.

Slot j of a polynomial m is its value at zeta^(3^j), zeta being the primitive 2N-th root exp(i pi / N) (Cheon, Kim, Kim and Song,
ASIACRYPT 2017, section 3.3; SEAL's native/src/seal/ckks.cpp has the same order). An FFT of length 2N evaluates m at all powers of zeta.
"""

from __future__ import annotations

import numpy as np

from he_backend.errors import ParameterError


def to_coefficients(slots: np.ndarray) -> np.ndarray:
    """float64 [..., N] coefficients of the real polynomials with complex slots [..., N/2]."""
    half = slots.shape[-1]
    _check(2 * half)
    odd = slot_exponents(2 * half)
    values = np.zeros((*slots.shape[:-1], 4 * half), dtype=np.complex128)
    values[..., odd] = slots
    values[..., -odd] = np.conj(slots)  # a real polynomial's values at conjugate points
    # m_k = (1/N) sum over odd e of value_e zeta^(-e k): the forward FFT of length 2N, divided by N.
    return np.fft.fft(values)[..., : 2 * half].real / (2 * half)


def to_slots(coefficients: np.ndarray) -> np.ndarray:
    """complex128 [..., N/2] slots of polynomials with real coefficients [..., N]."""
    degree = coefficients.shape[-1]
    _check(degree)
    values = np.fft.ifft(coefficients, 2 * degree) * (2 * degree)
    return values[..., slot_exponents(degree)]


def slot_exponents(degree: int) -> np.ndarray:
    """int64 [N/2]: the exponent of zeta for each slot, the powers of 3 modulo 2N."""
    exponents = np.empty(degree // 2, dtype=np.int64)
    power = 1
    for slot in range(degree // 2):
        exponents[slot] = power
        power = power * 3 % (2 * degree)
    return exponents


def _check(degree: int) -> None:
    if degree < 4 or degree & (degree - 1):
        raise ParameterError(f"ring degree {degree}; a power of two is expected")
