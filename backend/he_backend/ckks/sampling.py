"""Key streams, and the distributions made of them: uniform residues, ternary secrets, centered binomial errors.

Random bytes are AES-256 in counter mode (the `cryptography` package, OpenSSL) under a 32-byte key; the core only maps bytes to
distributions. The upper half of the counter block names what is drawn, the lower half counts 16-byte blocks, so every part of a stream
can be made on its own, in any order and on any machine.
"""

from __future__ import annotations

import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from he_backend.ckks.ring import Ring, core
from he_backend.errors import ParameterError

KEY_BYTES = 32
# Variance of the sum of 42 random bits minus 21: SEAL's error, standard deviation 3.24 (native/src/seal/util/rlwe.cpp).
ERROR_VARIANCE, MAX_ERROR = 10.5, 21
_BLOCK = 16
_ZEROS = bytes(1 << 18)

# What is drawn: the first byte of the counter block.
_UNIFORM, _UNIFORM_AGAIN, _TERNARY, _ERRORS = 1, 2, 3, 4


def new_key() -> bytes:
    """32 random bytes from the operating system."""
    return os.urandom(KEY_BYTES)


def key_stream(key: bytes, purpose: int, index: int, offset: int, size: int) -> np.ndarray:
    """uint8 [size]: the stream of (key, purpose, index) from byte `offset`, a multiple of 16, on."""
    if len(key) != KEY_BYTES:
        raise ParameterError(f"a key of {len(key)} bytes; {KEY_BYTES} are expected")
    if offset % _BLOCK or offset < 0:
        raise ParameterError(f"offset {offset} is not a multiple of {_BLOCK}")
    counter = struct.pack(">BxxxIQ", purpose, index, offset // _BLOCK)
    encryptor = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
    out = np.empty(size + _BLOCK, dtype=np.uint8)
    view, zeros = out.data, memoryview(_ZEROS)
    for start in range(0, size, len(_ZEROS)):
        length = min(len(_ZEROS), size - start)
        encryptor.update_into(zeros[:length], view[start : start + length + _BLOCK])
    return out[:size]


@dataclass(frozen=True)
class UniformDraw:
    """How a polynomial of uniform residues modulo q is drawn.

    `draws` integers of `draw_bytes` little-endian bytes are cut to the bits of q. The first N are the coefficients; the others replace, in
    order, those that are q or more. `stride` bytes lie between the starts of neighbouring polynomials in a stream.
    """

    modulus: int
    draws: int
    draw_bytes: int
    stride: int


@lru_cache(maxsize=256)
def uniform_draw(modulus: int, degree: int, log2_failure: int = 128) -> UniformDraw:
    """Draws enough that replacements run out with a probability below 2^-log2_failure.

    Each draw is accepted with probability p = q / 2^bits > 1/2, and fewer than N of D draws with one of at most
    exp(-D * KL(N/D || p)) (Chernoff), KL being the relative entropy of two coins.
    """
    bits = modulus.bit_length()
    rejected = ((1 << bits) - modulus) / (1 << bits)
    spare = 1
    while _log2_chernoff(degree, degree + spare, rejected) > -log2_failure:
        spare += max(1, spare // 16)
    draw_bytes = -(-bits // 8)
    draws = degree + spare
    return UniformDraw(modulus, draws, draw_bytes, -(-draws * draw_bytes // _BLOCK) * _BLOCK)


def _log2_chernoff(accepted: int, draws: int, rejected: float) -> float:
    a = accepted / draws
    if a >= 1 - rejected:
        return 0.0
    b = (draws - accepted) / draws
    entropy = a * (math.log(a) - math.log1p(-rejected)) + b * (math.log(b) - math.log(rejected))
    return -draws * entropy / math.log(2)


def expand_masks(ring: Ring, seed: bytes, limbs: int, start: int, stop: int) -> np.ndarray:
    """uint64 [stop - start, limbs, N]: uniform residues, polynomials start to stop of the endless row that a 32-byte seed stands for.

    The same on every machine; polynomial i does not depend on start, stop or limbs. The seed is public; AES under a
    public key as the source of the uniform half is also FrodoKEM's choice (its pseudorandom matrix generation).
    """
    if not 1 <= limbs <= len(ring.moduli) or not 0 <= start <= stop:
        raise ParameterError(f"masks {start} to {stop} with {limbs} limbs of a ring with {len(ring.moduli)} primes")
    out = np.empty((stop - start, limbs, ring.degree), dtype=np.uint64)
    for limb in range(limbs):
        fill_uniform(out, limb, seed, start, uniform_draw(ring.moduli[limb], ring.degree))
    return out


def coefficient_masks(ring: Ring, seed: bytes, limbs: int, count: int, threads: int = 1, out: np.ndarray | None = None) -> np.ndarray:
    """uint64 [count, limbs, N]: the first masks of a seed as coefficients, made a few at a time while they are in the cache."""
    masks = np.empty((count, limbs, ring.degree), dtype=np.uint64) if out is None else out
    if masks.shape != (count, limbs, ring.degree) or not 1 <= limbs <= len(ring.moduli):
        raise ParameterError(f"{count} masks with {limbs} limbs of a ring with {len(ring.moduli)} primes, into an array {masks.shape}")
    step = max(1, len(_ZEROS) // (8 * limbs * ring.degree))

    def tile(start: int) -> None:
        part = masks[start : start + step]
        for limb in range(limbs):
            fill_uniform(part, limb, seed, start, uniform_draw(ring.moduli[limb], ring.degree))
        ring.inverse(part)

    if threads > 1 and count > step:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(tile, range(0, count, step)))
    else:
        for start in range(0, count, step):
            tile(start)
    return masks


def fill_uniform(out: np.ndarray, limb: int, seed: bytes, start: int, draw: UniformDraw) -> None:
    """out[:, limb] = polynomials start, start + 1, … of a seed under one prime."""
    per_call = max(1, len(_ZEROS) // draw.stride)
    for first in range(0, len(out), per_call):
        part = out[first : first + per_call]
        stream = key_stream(seed, _UNIFORM, limb, (start + first) * draw.stride, len(part) * draw.stride)
        done = 0
        while done < len(part):
            done += core().uniform(part[done:], limb, stream[done * draw.stride :], draw.draws, draw.draw_bytes, draw.stride, draw.modulus)
            if done < len(part):
                _draw_again(part[done : done + 1], limb, seed, start + first + done, draw)
                done += 1


def _draw_again(out: np.ndarray, limb: int, seed: bytes, polynomial: int, draw: UniformDraw) -> None:
    """One polynomial whose replacements ran out, from a stream of its own with as many as it takes."""
    draws, done = 4 * draw.draws, 0
    while not done:
        size = draws * draw.draw_bytes
        stream = key_stream(seed, _UNIFORM_AGAIN, limb, polynomial << 40, size)
        done = core().uniform(out, limb, stream, draws, draw.draw_bytes, size, draw.modulus)
        draws *= 2


def ternary_secrets(key: bytes, columns: int, degree: int) -> np.ndarray:
    """int8 [columns, N], each coefficient uniform in {-1, 0, 1}."""
    out = np.empty(columns * degree, dtype=np.int8)
    filled = offset = 0
    while filled < len(out):
        size = -(-(len(out) - filled) // _BLOCK) * _BLOCK + 64
        size -= size % _BLOCK
        filled += core().ternary(out[filled:], key_stream(key, _TERNARY, 0, offset, size))
        offset += size
    return out.reshape(columns, degree)


def error_bytes(key: bytes, polynomials: int, width: int, start: int = 0) -> np.ndarray:
    """uint8: the random bytes of the errors of `polynomials` polynomials of `width` coefficients, from polynomial `start` on."""
    each = noise_bytes(width)
    return key_stream(key, _ERRORS, 0, start * each, polynomials * each)


def noise_bytes(width: int) -> int:
    """Random bytes that the errors of a polynomial take: 42 bits for each coefficient, in blocks of 512."""
    block: int = core().NOISE_BLOCK
    return -(-width // block) * int(core().NOISE_BLOCK_BYTES)


def binomial_errors(stream: np.ndarray, cpu: str) -> np.ndarray:
    """int64: the sum of 42 random bits minus 21, for every 42 bits of a stream of whole blocks."""
    blocks = len(stream) // int(core().NOISE_BLOCK_BYTES)
    out = np.empty(blocks * int(core().NOISE_BLOCK), dtype=np.int64)
    core().binomial(out, stream, cpu)
    return out
