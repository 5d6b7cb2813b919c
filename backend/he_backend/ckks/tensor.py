"""CipherTensor: an array of ciphertexts as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class CipherTensor:
    """`count` encrypted polynomials in each of `columns` columns, modulo the product of `moduli` (the level is how many there are).

    Column j of element i decrypts to  body[j, i] + mask[i] * s_j  modulo each prime, s_j being the secret of column j. The mask of an
    element is shared by its columns, which have independent secrets. `mask` is None where nothing is masked (the clear engine) and
    where `seed` (bytes that the engine expands to the mask) stands for it: a fresh ciphertext.

    The scale of the values is no part of it: it would tell the server how large they are.
    """

    engine: str
    ring_degree: int
    moduli: tuple[int, ...]
    ntt: bool
    body: np.ndarray  # uint64 [columns, count, limbs, width]; width is ring_degree, or less where only some coefficients are in use
    mask: np.ndarray | None = None  # uint64 [count, limbs, ring_degree]
    seed: bytes = b""

    @property
    def columns(self) -> int:
        """Columns, each of up to ring_degree values per element."""
        return int(self.body.shape[0])

    @property
    def count(self) -> int:
        """Elements: polynomials in a column."""
        return int(self.body.shape[1])

    @property
    def level(self) -> int:
        """Primes of the modulus."""
        return len(self.moduli)

    @property
    def width(self) -> int:
        """Coefficients kept of each polynomial."""
        return int(self.body.shape[3])

    def with_parts(self, body: np.ndarray, mask: np.ndarray | None) -> CipherTensor:
        """The same kind of tensor with other contents, no longer fresh."""
        return replace(self, body=body, mask=mask, seed=b"")

    def __repr__(self) -> str:
        return (
            f"CipherTensor({self.engine}, {self.columns} x {self.count} polynomials of {self.ring_degree}, level {self.level}, "
            f"{'NTT' if self.ntt else 'coefficient'} form{', fresh' if self.seed else ''})"
        )


@dataclass(frozen=True)
class PackedTensor:
    """A CipherTensor as its wire form holds it: rows of residues as bit streams (serial.py), which the native core computes on directly."""

    engine: str
    ring_degree: int
    moduli: tuple[int, ...]
    ntt: bool
    columns: int
    count: int
    width: int
    body: np.ndarray  # uint64 words
    mask: np.ndarray | None = None  # uint64 words
    seed: bytes = b""

    def __repr__(self) -> str:
        return f"PackedTensor({self.engine}, {self.columns} x {self.count} polynomials of {self.ring_degree}, level {len(self.moduli)})"
