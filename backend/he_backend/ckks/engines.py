"""The engines by name: what each can hold, and its public half. Nothing here touches a secret key."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from typing import Any, Callable, Iterable, NamedTuple, Sequence, Union

from he_backend.ckks import ring, serial
from he_backend.ckks.clear import ClearEvaluator
from he_backend.ckks.evaluate import NativeMap
from he_backend.ckks.linear import MAX_WEIGHT_BITS, LinearMap, ShiftedMap
from he_backend.ckks.params import Params
from he_backend.ckks.primes import largest_primes
from he_backend.ckks.product import NativeProduct, ProductMap, clear_product
from he_backend.ckks.seal import SealEvaluator
from he_backend.ckks.tensor import CipherTensor, PackedTensor
from he_backend.ckks.weights import WeightRoom
from he_backend.errors import EngineError

ENGINES = ("native", "seal", "clear")
# Fresh errors of SEAL's centered binomial distribution never exceed this (native/src/seal/util/rlwe.cpp, 2 * 21 bits).
MAX_FRESH_ERROR = 21
MOST_COLUMNS = 1 << 10


Tensor = Union[CipherTensor, PackedTensor]
RoundMap = Union[LinearMap, ShiftedMap, ProductMap]
ReadyMap = Callable[[Any], Any]


class Traits(NamedTuple):
    """What an engine's encoding does to capacity and noise under one parameter set."""

    column_rows: int  # values that one polynomial holds
    most_columns: int  # columns of a tensor
    noise_factor: float  # variance of an error in a decoded value over its variance in a coefficient
    growth: float  # largest coefficient over the largest value, both scaled
    most_error: float  # largest fresh error in a coefficient, rounding included
    switches: bool  # answers are switched to a smaller modulus before they are sent
    single_weight_bits: int  # widest weights that cost no more than narrower ones
    most_modulus_bits: int  # of the product of the primes that a round may use


def traits(engine: str, params: Params) -> Traits:
    """The traits of an engine under a parameter set."""
    check_engine(engine)
    degree = params.ring_degree
    if engine == "seal":
        # Slots: a coefficient is at most the largest slot's magnitude, sqrt(2) times a real for complex slots; decoding adds up N errors.
        rows, growth = (degree, math.sqrt(2.0)) if params.complex_packing else (degree // 2, 1.0)
        return Traits(rows, 1, float(degree), growth, MAX_FRESH_ERROR + 0.5, False, MAX_WEIGHT_BITS, 120)
    if engine == "native":
        return Traits(degree, MOST_COLUMNS, 1.0, 1.0, MAX_FRESH_ERROR + 0.5, True, 16, 120)
    return Traits(degree, MOST_COLUMNS, 1.0, 1.0, 0.5, False, MAX_WEIGHT_BITS, 62)  # sums stay in int64


def check_engine(engine: str) -> str:
    """The engine's name, if it is one and is installed; raises EngineError otherwise."""
    if engine not in ENGINES:
        raise EngineError(f"engine {engine!r} is not known; allowed: auto, {', '.join(ENGINES)}")
    if engine not in available():
        raise EngineError(f"engine {engine!r} is not installed here; installed: {', '.join(available())}")
    return engine


def available() -> dict[str, str]:
    """The engines that can run here, best first, each with one line about it."""
    found: dict[str, str] = {}
    if ring.available():
        found["native"] = f"ciphertext arrays in C++ ({ring.cpu_level()})"
    if _has_seal():
        found["seal"] = "Microsoft SEAL through TenSEAL, one ciphertext at a time"
    found["clear"] = "no encryption: for tests and baselines only"
    return found


@functools.lru_cache(maxsize=1)
def _has_seal() -> bool:
    """Whether TenSEAL is installed: looked up once, for it takes longer than a small round."""
    return importlib.util.find_spec("tenseal") is not None


def default_engine() -> str:
    """The engine that 'auto' stands for here; never the one without encryption."""
    name = next(iter(available()))
    if name == "clear":
        raise EngineError("no encrypting engine is installed: pip install tenseal, or install he-nn where a C++ compiler is present")
    return name


@functools.lru_cache(maxsize=256)
def answer_modulus(ring_degree: int, bits: int, modulus: int) -> int:
    """The prime that answers of `bits` bits are switched to: the largest of that size that has a transform of this degree.

    Never more than the ciphertexts' own modulus, the product of the primes in use: to that, and not above, an answer can be switched.
    """
    return largest_primes(ring_degree, min(bits, modulus.bit_length()), 1, modulus)[0]


def ready_map(
    engine: str, params: Params, linear: RoundMap, level: int, answer_bits: int, threads: int = 1, room: WeightRoom | None = None
) -> ReadyMap:
    """A map made ready for tensors of one level: a function from tensor to tensor, for the engine's own form of them.

    answer_bits is the size of the modulus that answers are switched to, by engines that do; transformed weights lie in `room`.
    """
    check_engine(engine)
    modulus = math.prod(params.moduli[:level])
    if isinstance(linear, ProductMap):
        product = linear
        if engine == "native":
            return NativeProduct(params, product, level, answer_modulus(params.ring_degree, answer_bits, modulus), threads, room)
        if engine == "clear":
            return lambda tensor: clear_product(tensor, product)
        raise EngineError(f"engine {engine!r} does not multiply polynomials; take packing 'batch', or engine native")
    if engine == "native":
        return NativeMap(params, linear, level, answer_modulus(params.ring_degree, answer_bits, modulus), threads)
    if engine == "seal":
        if isinstance(linear, ShiftedMap):
            raise EngineError("engine 'seal' does not shift coefficients; take packing 'batch', or engine native")
        seal, plain = SealEvaluator(params), linear
        return lambda tensor: seal.affine(tensor, plain)
    return lambda tensor: ClearEvaluator().affine(tensor, linear)


def read_tensor(header: serial.TensorHeader, pieces: Iterable[bytes | memoryview]) -> Tensor:
    """A tensor from its bytes, in the form that its engine's maps take."""
    return serial.packed_from_pieces(header, pieces) if header.engine == "native" else serial.from_pieces(header, pieces)


def tensor_moduli(engine: str, moduli: Sequence[int]) -> tuple[int, ...]:
    """The moduli of a tensor's residues: the primes, or their product where nothing is encrypted."""
    return (math.prod(moduli),) if engine == "clear" else tuple(moduli)


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
