"""What a round costs under each packing, to choose between them: nanoseconds of both parties and the wire together, and bytes."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from he_backend.errors import ParameterError
from he_backend.inference.grid import grid_columns
from he_backend.inference.product import Blocking
from he_backend.inference.structure import Structure

_PRIME_BITS = 54  # of the prime that estimates are made for
_SENT_BYTES, _ANSWER_BYTES = _PRIME_BITS / 8, 2.75  # a coefficient
_DIGIT_BITS = 15  # of the engine's scalar multiplications
# Products of fewer primes' worth of transformed weights are kept: in memory as far as there is room, in files beyond.
MAX_WEIGHT_BYTES = 1 << 32


@dataclass(frozen=True)
class Costs:
    """Nanoseconds per coefficient of one prime, with all cores at work; only compared with each other.

    The defaults were measured on two cores of a server CPU with AVX-512; `he-nn calibrate` measures those of a machine.
    """

    encrypt: float = 9.5  # to a column: mask, error, transform
    decrypt: float = 2.6
    expand: float = 1.9  # a mask from its seed
    transform: float = 1.7
    answer: float = 6.0  # an answer of products at the server: reduced, transformed back, switched, packed
    multiply: float = 0.95  # one product of transformed polynomials, with its sum
    read: float = 0.5  # into the linear algebra
    shift: float = 1.1  # more, for a shifted channel
    scalar: float = 0.05  # one weight times a coefficient
    byte: float = 0.9  # a byte on the wire


def costs_path() -> Path:
    """$HE_NN_HOME/costs.json, or ~/.he_nn/costs.json."""
    home = os.environ.get("HE_NN_HOME")
    return (Path(home) if home else Path.home() / ".he_nn") / "costs.json"


def save_costs(costs: Costs, path: Path) -> None:
    """Writes a file that load_costs reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(costs), indent=1) + "\n", encoding="utf-8")


def load_costs(path: Path) -> Costs:
    """The costs in a file, the defaults where there is none. Raises ParameterError for a file that holds something else."""
    if not path.is_file():
        return Costs()
    names = [field.name for field in fields(Costs)]
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        wrong = sorted({*raw} ^ {*names}) or [name for name in names if not 0.0 < float(raw[name]) < 1e6]
    except (OSError, ValueError, TypeError, RecursionError):
        raise ParameterError(f"{path} cannot be read; run he-nn calibrate again, or remove it") from None
    if wrong:
        raise ParameterError(f"{path}: {', '.join(wrong)}: a positive number for each of {', '.join(names)} is needed; run he-nn calibrate")
    return Costs(**{name: float(raw[name]) for name in names})


@dataclass(frozen=True)
class Estimate:
    """What a round costs: nanoseconds of computing, those of scalar multiplications apart, bytes up and down, nanoseconds a byte."""

    compute: float
    scalar: float
    sent: float
    returned: float
    byte: float

    def bytes(self, prime_bits: int = _PRIME_BITS) -> float:
        """Bytes both ways under a prime of so many bits."""
        return self.sent * prime_bits / _PRIME_BITS + self.returned

    def nanoseconds(self, prime_bits: int = _PRIME_BITS, halves: int = 1) -> float:
        """The time under a prime of so many bits; `halves`: 2 for weights that the engine multiplies in two halves."""
        digits = math.ceil(prime_bits / _DIGIT_BITS) / math.ceil(_PRIME_BITS / _DIGIT_BITS)
        return self.compute + self.scalar * digits * halves + self.bytes(prime_bits) * self.byte


@dataclass(frozen=True)
class RoundSize:
    """Elements in and out, and scalar multiplications, of one row of a round."""

    in_elements: int
    out_elements: int
    multiplications: int


def batch_estimate(costs: Costs, size: RoundSize, degree: int, rows: int) -> Estimate:
    """The cost of `rows` rows with an element to a polynomial."""
    columns = math.ceil(rows / degree)
    width = rows / columns
    sent, got = size.in_elements * degree, size.out_elements * degree
    fresh = sent * (costs.expand + columns * (costs.encrypt - costs.expand)) + sent * (costs.expand + costs.transform)
    decrypted = got * (costs.transform + columns * (costs.decrypt - costs.transform))
    linear = size.multiplications * costs.scalar * (degree + columns * width)
    returned = size.out_elements * (degree + rows) * _ANSWER_BYTES
    return Estimate(fresh + decrypted, linear, size.in_elements * rows * _SENT_BYTES, returned, costs.byte)


def grid_estimate(costs: Costs, structure: Structure, inputs: int, shifted: int, degree: int, rows: int) -> Estimate:
    """The cost of `rows` rows whose channels are read as `inputs` shifted ones, `shifted` of them by more than nothing."""
    constant = 1 if structure.bias else 0
    columns = grid_columns(rows, structure.positions, structure.reach, int(structure.place.max()), degree)
    width = min(rows * structure.positions, degree)
    channels, outs = structure.channels + constant, structure.out_channels
    multiplications = structure.multiplications + constant * outs
    fresh = channels * (degree * (costs.expand + columns * (costs.encrypt - costs.expand)) + degree * (costs.expand + costs.transform))
    decrypted = outs * degree * (costs.transform + columns * (costs.decrypt - costs.transform))
    read = (inputs * costs.read + shifted * costs.shift) * (degree + columns * width)
    wanted = rows * int((structure.scatter >= 0).sum())
    return Estimate(
        fresh + decrypted + read,
        multiplications * costs.scalar * (degree + columns * width),
        channels * columns * width * _SENT_BYTES,
        (outs * degree + wanted) * _ANSWER_BYTES,
        costs.byte,
    )


def product_estimate(costs: Costs, blocking: Blocking, wanted: int, rows: int) -> Estimate:
    """The cost of `rows` rows, a column each, under a blocking of which `wanted` coefficients of an answer are read."""
    n, out = blocking.degree, blocking.out_count
    shared = blocking.in_count * 2 * costs.expand + blocking.pairs * costs.multiply + out * (costs.answer + costs.transform)
    own = (
        blocking.in_count * (costs.encrypt - costs.expand + costs.transform)
        + blocking.pairs * costs.multiply
        + out * (costs.answer + costs.decrypt)
    )
    sent, returned = rows * blocking.in_count * n * _SENT_BYTES, out * (n + rows * wanted) * _ANSWER_BYTES
    return Estimate(n * (shared + rows * own), 0.0, sent, returned, costs.byte)


def weight_bytes(blocking: Blocking, level: int) -> int:
    """Memory that the transformed weights take on the server."""
    return 8 * blocking.pairs * level * blocking.degree
