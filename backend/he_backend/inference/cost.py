"""What a round costs under each packing, to choose between them: nanoseconds, of one prime, both parties and the wire together.

Costs per coefficient were measured on two cores of a server CPU with AVX-512 (one thread); they are only compared with each other, and on
other machines they move together. Bytes count as on a loopback connection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from he_backend.inference.product import Blocking

# Nanoseconds per coefficient: encryption (mask, error, transform), decryption, a mask from its seed, a transform, a product with its sum.
ENCRYPT, DECRYPT, EXPAND, TRANSFORM, MULTIPLY = 12.0, 11.0, 5.0, 5.0, 1.2
SCALAR = 0.05  # a scalar weight times a coefficient, in the exact linear algebra
BYTE = 1.0
_SENT_BYTES, _ANSWER_BYTES = 6.75, 2.75
# Products of fewer primes' worth of transformed weights are kept.
MAX_WEIGHT_BYTES = 1 << 29


@dataclass(frozen=True)
class RoundSize:
    """Elements in and out, and scalar multiplications, of one row of a round."""

    in_elements: int
    out_elements: int
    multiplications: int


def batch_nanoseconds(size: RoundSize, degree: int, rows: int) -> float:
    """The cost of `rows` rows with an element to a polynomial."""
    columns = math.ceil(rows / degree)
    width = rows / columns
    sent, got = size.in_elements * degree, size.out_elements * degree
    fresh = sent * (EXPAND + columns * (ENCRYPT - EXPAND)) + sent * (EXPAND + TRANSFORM)
    decrypted = got * (TRANSFORM + columns * (DECRYPT - TRANSFORM))
    linear = size.multiplications * SCALAR * (degree + columns * width)
    wire = (size.in_elements * rows * _SENT_BYTES + size.out_elements * (degree + rows) * _ANSWER_BYTES) * BYTE
    return fresh + decrypted + linear + wire


def product_nanoseconds(blocking: Blocking, width: int, rows: int) -> float:
    """The cost of `rows` rows, a column each, under a blocking whose answers have `width` coefficients in use."""
    n = blocking.degree
    shared = blocking.in_count * 2 * EXPAND + blocking.pairs * MULTIPLY + blocking.out_count * 2 * TRANSFORM
    own = (
        blocking.in_count * (ENCRYPT - EXPAND + TRANSFORM + _SENT_BYTES * BYTE)
        + blocking.pairs * MULTIPLY
        + blocking.out_count * (TRANSFORM + DECRYPT - TRANSFORM + width / n * _ANSWER_BYTES * BYTE)
    )
    return n * (shared + rows * own + blocking.out_count * _ANSWER_BYTES * BYTE)


def weight_bytes(blocking: Blocking, level: int) -> int:
    """Memory that the transformed weights take on the server."""
    return 8 * blocking.pairs * level * blocking.degree
