"""Polynomial rings on arrays: the Python face of the C++ core. Nothing here touches a secret key.

A set of polynomials is a C-contiguous uint64 array [..., limbs, N] of residues, limb l modulo the ring's l-th prime. The transform is
SEAL's: negacyclic, with the smallest primitive 2N-th root of unity, values in bit-reversed order.
"""

from __future__ import annotations

import functools
import importlib
import os
from functools import lru_cache
from types import ModuleType
from typing import Sequence

import numpy as np

from he_backend.ckks.primes import is_prime
from he_backend.errors import EngineError, ParameterError

# Overrides the instruction set that the core picks: scalar, avx2, avx512 or ifma.
CPU_VARIABLE = "HE_NN_CPU"
MIN_DEGREE, MAX_DEGREE, MAX_MODULUS_BITS = 1024, 1 << 16, 61


@lru_cache(maxsize=1)
def core() -> ModuleType:
    """The extension module; raises EngineError where it was not built."""
    try:
        return importlib.import_module("he_backend.ckks._native")
    except ImportError as error:
        raise EngineError(
            f"native extension not built: {error}; install he-nn where a C++17 compiler is present, or choose the engine 'seal'"
        ) from None


def available() -> bool:
    """True where the extension module was built."""
    try:
        core()
    except EngineError:
        return False
    return True


def cpu_level(wanted: str | None = None) -> str:
    """The instruction set to use: `wanted`, else the environment's, else the best of this CPU. Raises ParameterError if it cannot run."""
    levels = list(core().cpu_levels())
    level = wanted or os.environ.get(CPU_VARIABLE, "") or "auto"
    if level == "auto":
        return str(levels[-1])
    if level not in levels:
        raise ParameterError(f"CPU level {level!r} (argument or {CPU_VARIABLE}) cannot run here; allowed: auto, {', '.join(levels)}")
    return level


def refusal(what: str, error: Exception) -> ParameterError:
    """The core's refusal of arguments. A TypeError of the bindings prints the arguments, which may be rows or keys: its text stays here."""
    return ParameterError(f"{what}: {error}" if isinstance(error, ValueError) else f"{what}: an argument has the wrong type or layout")


class Ring:
    """Z_q[X]/(X^N + 1) for each of a list of primes q = 1 mod 2N below 2^61."""

    def __init__(self, degree: int, moduli: Sequence[int], cpu: str | None = None) -> None:
        """Tables for the primes. Raises EngineError without the core, ParameterError for a degree, prime or CPU level it cannot use."""
        self.degree = int(degree)
        self.moduli = tuple(int(q) for q in moduli)
        if not MIN_DEGREE <= self.degree <= MAX_DEGREE or self.degree & (self.degree - 1):
            raise ParameterError(f"ring degree {degree}; allowed: a power of two from {MIN_DEGREE} to {MAX_DEGREE}")
        if not self.moduli or not all(_suits(q, self.degree) for q in self.moduli):
            raise ParameterError(
                f"moduli {self.moduli}; allowed: one or more primes of at most {MAX_MODULUS_BITS} bits that are 1 modulo {2 * self.degree}"
            )
        self.cpu = cpu_level(cpu)
        self.handle = core().Ring(self.degree, list(self.moduli), self.cpu)

    def __repr__(self) -> str:
        return f"Ring({self.degree}, {list(self.moduli)}, {self.cpu})"

    def forward(self, polynomials: np.ndarray, threads: int = 1) -> np.ndarray:
        """Coefficients -> values, in place: polynomials [..., limbs, N], reduced. Returns its argument."""
        self._check(polynomials)
        self.handle.forward(polynomials, threads)
        return polynomials

    def inverse(self, polynomials: np.ndarray, threads: int = 1) -> np.ndarray:
        """Values -> coefficients, in place: polynomials [..., limbs, N], reduced. Returns its argument."""
        self._check(polynomials)
        self.handle.inverse(polynomials, threads)
        return polynomials

    def add_products(self, out: np.ndarray, a: np.ndarray, b: np.ndarray, threads: int = 1) -> np.ndarray:
        """out[m] += sum over k of a[m, k] * b[k], values in NTT form, reduced, in place; returns out.

        out [outputs, limbs, N], a [outputs, terms, limbs, N], b [terms, limbs, N].
        """
        self._check(out)
        self._run("add_products", out, a, b, threads)
        return out

    def shift(self, polynomials: np.ndarray, power: int, threads: int = 1) -> np.ndarray:
        """polynomials times X^power modulo X^N + 1, as a new array; coefficients [..., limbs, N], any integer power."""
        self._check(polynomials)
        out = np.empty_like(polynomials)
        self._run("shift", out, polynomials, power % (2 * self.degree), threads)
        return out

    def switch_modulus(self, polynomials: np.ndarray, modulus: int, threads: int = 1) -> np.ndarray:
        """round(modulus / Q * c) modulo `modulus` (2 to 61 bits), [..., 1, N], for coefficients c [..., limbs, N] modulo Q.

        Q is the product of the first `limbs` primes. Off the exact quotient by at most 1/2 + limbs * modulus / 2^63.
        """
        self._check(polynomials)
        if not 2 <= modulus < 1 << MAX_MODULUS_BITS:
            raise ParameterError(f"modulus {modulus}; allowed: 2 to 2^{MAX_MODULUS_BITS} - 1")
        out = np.empty((*polynomials.shape[:-2], 1, self.degree), dtype=np.uint64)
        self._run("switch_modulus", out, polynomials, modulus, threads)
        return out

    def _run(self, name: str, *arguments: object) -> None:
        try:
            getattr(self.handle, name)(*arguments)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{name}: {error}") from None

    def _check(self, polynomials: np.ndarray) -> None:
        if polynomials.dtype != np.uint64 or not polynomials.flags.c_contiguous or not polynomials.flags.writeable:
            raise ParameterError("polynomials must be a writable, C-contiguous array of uint64")
        if polynomials.ndim < 2 or polynomials.shape[-1] != self.degree or not 1 <= polynomials.shape[-2] <= len(self.moduli):
            raise ParameterError(
                f"polynomials have shape {polynomials.shape}; [..., limbs, {self.degree}] is expected, limbs from 1 to {len(self.moduli)}"
            )


def _suits(q: int, degree: int) -> bool:
    return 2 < q < 1 << MAX_MODULUS_BITS and q % (2 * degree) == 1 and is_prime(q)


@functools.lru_cache(maxsize=64)
def shared_ring(degree: int, moduli: tuple[int, ...]) -> Ring:
    """A ring of public tables, made once: they take longer than a small round. Raises as Ring does."""
    return Ring(degree, moduli)
