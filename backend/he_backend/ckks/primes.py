"""NTT-friendly primes, chosen as Microsoft SEAL chooses them, so that both engines work modulo the same numbers."""

from __future__ import annotations

from typing import Sequence

# Deterministic Miller-Rabin bases for every n < 2^64 (Sorenson and Webster, Math. Comp. 86, 2017).
_BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def is_prime(n: int) -> bool:
    """True if n (0 <= n < 2^64) is prime."""
    if n < 2:
        return False
    for p in _BASES:
        if n % p == 0:
            return n == p
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for base in _BASES:
        x = pow(base, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(s - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def largest_primes(ring_degree: int, bits: int, count: int, most: int | None = None) -> list[int]:
    """The `count` largest primes of exactly `bits` bits, and at most `most`, that are 1 modulo 2 * ring_degree, largest first.

    Raises ValueError when there are not as many.
    """
    step = 2 * ring_degree
    top = (1 << bits) - 1 if most is None else min((1 << bits) - 1, most)
    value = (top - 1) // step * step + 1
    found: list[int] = []
    while len(found) < count and value > 1 << (bits - 1):
        if is_prime(value):
            found.append(value)
        value -= step
    if len(found) < count:
        raise ValueError(f"only {len(found)} primes of {bits} bits are 1 modulo {step}, {count} needed")
    return found


def seal_moduli(ring_degree: int, bit_sizes: Sequence[int]) -> tuple[int, ...]:
    """The primes of SEAL's CoeffModulus::Create(ring_degree, bit_sizes) (native/src/seal/modulus.cpp), in its order.

    SEAL finds the largest primes of each size and hands out the smallest of them first.
    """
    stock: dict[int, list[int]] = {bits: largest_primes(ring_degree, bits, list(bit_sizes).count(bits)) for bits in set(bit_sizes)}
    return tuple(stock[bits].pop() for bits in bit_sizes)
