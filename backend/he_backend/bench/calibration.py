"""What the primitives of rounds cost on this machine, all cores at work: nanoseconds per coefficient of N11_L1, medians."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from he_backend.bench.primitives import median_seconds
from he_backend.ckks import sampling, secret, serial
from he_backend.ckks.engines import read_tensor, ready_map
from he_backend.ckks.linear import LinearBlock, LinearMap, ShiftedMap
from he_backend.ckks.params import load_params
from he_backend.ckks.product import ProductMap
from he_backend.ckks.ring import Ring

_ANSWER_BITS = 28


def measure(threads: int, repeat: int = 9, elements: int = 128) -> dict[str, float]:
    """encrypt, decrypt, expand, transform, answer, multiply, read, shift, scalar of the native engine. Takes a second or two."""
    params = load_params("N11_L1")
    degree = params.ring_degree
    ring = Ring(degree, params.moduli)
    generator = np.random.default_rng(0)
    key = secret.generate("native", params, threads)
    values = generator.uniform(-1.0, 1.0, (elements, degree)).astype(np.float32)
    sent = key.encrypt(values, 2.0**20, 1)
    polynomials = sampling.expand_masks(ring, sent.seed, 1, 0, elements)

    def per_coefficient(work: Callable[[], Any], count: float) -> float:
        return median_seconds(work, repeat) * 1e9 / (count * degree)

    def applied(made: Any) -> tuple[float, Any]:
        ready = ready_map("native", params, made, 1, _ANSWER_BITS, threads)
        arrived = read_tensor(serial.header_of(sent), serial.to_pieces(sent))
        return per_coefficient(lambda: ready(arrived), 2.0), ready(arrived)  # body and mask

    expand = per_coefficient(lambda: sampling.expand_masks(ring, sent.seed, 1, 0, elements), elements)
    transform = per_coefficient(lambda: ring.forward(polynomials, threads), elements)
    encrypt = per_coefficient(lambda: key.encrypt(values, 2.0**20, 1), elements)
    small, _ = applied(_dense(elements, 16, generator))
    large, _ = applied(_dense(elements, 256, generator))
    scalar = (large - small) / (elements * 240)
    few, _ = applied(_shifted(elements, 0))
    many, answer = applied(_shifted(elements, 8))
    shifted = (many - few) / (8 * elements)
    one, _ = applied(_products(elements, 8, degree))
    more, _ = applied(_products(elements, 40, degree))
    thin, _ = applied(_products(elements, 40, degree, 2))
    thicker, _ = applied(_products(elements, 104, degree, 2))
    decrypt = per_coefficient(lambda: key.decrypt(answer, 2.0**20, degree), answer.count)
    return {
        "encrypt": encrypt,
        "decrypt": decrypt,
        "expand": expand,
        "transform": transform,
        "answer": max(1e-3, (thicker - thin) / 64.0),  # of two products each, which hardly count
        "multiply": max(1e-3, (more - one) / (elements * 32) - (thicker - thin) / (64.0 * elements)),
        "read": max(1e-3, (small - elements * 16 * scalar) / elements - expand / 2.0 - transform / 2.0),
        "shift": max(1e-3, shifted - scalar),
        "scalar": max(1e-4, scalar),
    }


def _dense(ins: int, outs: int, generator: np.random.Generator) -> LinearMap:
    weights = generator.integers(-(1 << 14), 1 << 14, (1, ins, outs)).astype(np.int32)
    gather, scatter = np.arange(ins, dtype=np.int32)[None, None], np.arange(outs, dtype=np.int32)[None, None]
    return LinearMap(ins, outs, (LinearBlock(gather, weights, scatter),))


def _shifted(elements: int, shifts: int) -> ShiftedMap:
    """Each output sums one element as it is and at so many shifts, as a depthwise convolution does."""
    terms = shifts + 1
    index = np.arange(elements * terms, dtype=np.int32).reshape(elements, 1, terms)
    scatter = np.arange(elements, dtype=np.int32)[:, None, None]
    linear = LinearMap(elements * terms, elements, (LinearBlock(index, np.full((elements, terms, 1), 99, np.int32), scatter),))
    source = np.repeat(np.arange(elements, dtype=np.int32), terms)
    return ShiftedMap(elements, source, np.tile(np.arange(terms, dtype=np.int32) * 29, elements), linear)


def _products(ins: int, outs: int, degree: int, terms: int = 0) -> ProductMap:
    """Each output sums `terms` products, or one of every input."""
    terms = terms or ins
    pairs = terms * outs
    out, source = np.divmod(np.arange(pairs, dtype=np.int32), np.int32(terms))
    starts = np.arange(pairs + 1, dtype=np.int64)
    return ProductMap(degree, ins, outs, degree, out, source, starts, np.zeros(pairs, np.int32), np.ones(pairs, np.int32))
