"""What a round costs under each packing, to choose between them: nanoseconds, of one prime, both parties and the wire together.

Costs per coefficient were measured on two cores of a server CPU with AVX-512 (one thread); they are only compared with each other, and on
other machines they move together. Bytes count as on a loopback connection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from he_backend.inference.grid import grid_columns
from he_backend.inference.product import Blocking
from he_backend.inference.structure import Structure

# Nanoseconds per coefficient: encryption (mask, error, transform), decryption, a mask from its seed, a transform, a product with its sum.
ENCRYPT, DECRYPT, EXPAND, TRANSFORM, MULTIPLY = 12.0, 11.0, 5.0, 5.0, 1.2
READ = 0.15  # a coefficient read into the linear algebra
SHIFT = 0.35  # a coefficient of a shifted channel, read into the linear algebra
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


def grid_nanoseconds(structure: Structure, inputs: int, shifted: int, degree: int, rows: int) -> float:
    """The cost of `rows` rows whose channels are read as `inputs` shifted ones, `shifted` of them by more than nothing."""
    constant = 1 if structure.bias else 0
    columns = grid_columns(rows, structure.positions, structure.reach, int(structure.place.max()), degree)
    width = min(rows * structure.positions, degree)
    channels, outs = structure.channels + constant, structure.out_channels
    multiplications = structure.multiplications + constant * outs
    fresh = channels * (degree * (EXPAND + columns * (ENCRYPT - EXPAND)) + degree * (EXPAND + TRANSFORM))
    decrypted = outs * degree * (TRANSFORM + columns * (DECRYPT - TRANSFORM))
    linear = (multiplications * SCALAR + inputs * READ + shifted * SHIFT) * (degree + columns * width)
    wire = (channels * columns * width * _SENT_BYTES + outs * (degree + columns * width) * _ANSWER_BYTES) * BYTE
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
