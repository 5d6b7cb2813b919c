"""The engines by name: what each can hold, and its public half. Nothing here touches a secret key."""

from __future__ import annotations

import importlib.util
import math
from typing import NamedTuple, Protocol

from he_backend.ckks.clear import ClearEvaluator
from he_backend.ckks.linear import LinearMap
from he_backend.ckks.params import Params
from he_backend.ckks.seal import SealEvaluator
from he_backend.ckks.tensor import CipherTensor
from he_backend.errors import EngineError

ENGINES = ("native", "seal", "clear")
# Fresh errors of SEAL's centered binomial distribution never exceed this (native/src/seal/util/rlwe.cpp, 2 * 21 bits).
MAX_FRESH_ERROR = 21


class Evaluator(Protocol):
    """What the model owner's half of an engine does."""

    name: str

    def affine(self, tensor: CipherTensor, linear: LinearMap) -> CipherTensor:
        """linear applied to every column of a tensor."""
        ...


class Traits(NamedTuple):
    """What an engine's encoding does to capacity and noise under one parameter set."""

    column_rows: int  # values that one polynomial holds
    most_columns: int  # columns of a tensor
    noise_factor: float  # variance of an error in a decoded value over its variance in a coefficient
    growth: float  # largest coefficient over the largest value, both scaled
    most_error: float  # largest fresh error in a coefficient, rounding included


def traits(engine: str, params: Params) -> Traits:
    """The traits of an engine under a parameter set."""
    check_engine(engine)
    degree = params.ring_degree
    if engine == "seal":
        # Slots: a coefficient is at most the largest slot's magnitude, sqrt(2) times a real for complex slots; decoding adds up N errors.
        rows, growth = (degree, math.sqrt(2.0)) if params.complex_packing else (degree // 2, 1.0)
        return Traits(rows, 1, float(degree), growth, MAX_FRESH_ERROR + 0.5)
    return Traits(degree, 1 << 12, 1.0, 1.0, 0.5 if engine == "clear" else MAX_FRESH_ERROR + 0.5)


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
    if importlib.util.find_spec("tenseal") is not None:
        found["seal"] = "Microsoft SEAL through TenSEAL, one ciphertext at a time"
    found["clear"] = "no encryption: for tests and baselines only"
    return found


def default_engine() -> str:
    """The engine that 'auto' stands for here; never the one without encryption."""
    name = next(iter(available()))
    if name == "clear":
        raise EngineError("no encrypting engine is installed: pip install tenseal, or install he-nn where a C++ compiler is present")
    return name


def evaluator(engine: str, params: Params) -> Evaluator:
    """The public half of an engine under a parameter set."""
    check_engine(engine)
    return SealEvaluator(params) if engine == "seal" else ClearEvaluator()
