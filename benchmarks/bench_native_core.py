"""The C++ core by parts: random bytes, masks, encryption and decryption per value, transforms, exact matrix products against BLAS.

    python benchmarks/bench_native_core.py [--quick]

Every figure is the median of several runs on arrays that exist before. Encryption goes from float32 rows to packed words, decryption from
packed words to float32 rows. SEAL's own steps on the same machine and values stand beside the totals.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from he_backend.ckks import sampling
from he_backend.ckks.bits import pack
from he_backend.ckks.column_secret import ColumnSecrets
from he_backend.ckks.exact_linear import ExactLinear
from he_backend.ckks.linear import LinearBlock, LinearMap
from he_backend.ckks.params import load_params
from he_backend.ckks.primes import largest_primes
from he_backend.ckks.ring import Ring, core

COLUMNS = 4
SETS = (("N11_L1", 1), ("N11_L1_small", 1), ("N13_L8", 2))


def median_seconds(work: Callable[[], object], runs: int) -> float:
    """Median of some runs after one that does not count."""
    work()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Prints columns of aligned text."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    print(f"\n{title}")
    for row in (columns, *rows):
        print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))


def encryption(runs: int) -> None:
    """Nanoseconds per value, split into what they are spent on."""
    rows = [row for preset, limbs in SETS for row in encryption_rows(preset, limbs, runs)]
    head = ("parameters", "threads", "error bytes", "masks", "the rest", "encrypt", "decrypt, 24-bit answer")
    table(f"Encryption, ns per value, {COLUMNS} columns to a mask ({core().cpu_levels()[-1]})", head, rows)


def encryption_rows(preset: str, limbs: int, runs: int) -> list[tuple[str, ...]]:
    """One row for one thread, split, and one for two."""
    params = load_params(preset)
    degree = params.ring_degree
    ring = Ring(degree, params.moduli[:limbs])
    count = 128 * 2048 // degree
    features = np.random.default_rng(0).uniform(-1, 1, (COLUMNS * degree, count)).astype(np.float32)
    values, seed = features.T, bytes(32)
    secrets = ColumnSecrets(ring, COLUMNS)
    words = np.empty(secrets.words(count, values.shape[1], limbs), dtype=np.uint64)
    (p,) = largest_primes(degree, 24, 1)
    answers = secrets.under(Ring(degree, [p]))
    generator = np.random.default_rng(1)
    body = pack(generator.integers(0, p, (count * COLUMNS, degree), dtype=np.uint64), 24).reshape(-1)
    mask = pack(generator.integers(0, p, (count, degree), dtype=np.uint64), 24).reshape(-1)
    out = np.empty_like(features)

    def per_value(work: Callable[[], object]) -> float:
        return median_seconds(work, runs) / values.size * 1e9

    random_bytes = per_value(lambda: [sampling.error_bytes(seed, 4 * COLUMNS, degree, i) for i in range(0, count, 4)])
    masks = per_value(lambda: sampling.expand_masks(ring, seed, limbs, 0, count))
    rows = []
    for threads in (1, 2):
        whole = per_value(lambda n=threads: secrets.encrypt_words(values, 2.0**18, seed, limbs, n, out=words))  # type: ignore[misc]
        back = per_value(lambda n=threads: answers.decrypt_words(body, mask, 2.0**18, out.T, threads=n))  # type: ignore[misc]
        split = (f"{random_bytes:.2f}", f"{masks:.2f}", f"{whole - random_bytes - masks:.2f}") if threads == 1 else ("", "", "")
        rows.append((f"{preset}, {limbs} of its primes", str(threads), *split, f"{whole:.2f}", f"{back:.2f}"))
    return rows


def seal(runs: int) -> None:
    """SEAL's steps per value: encode, encrypt and save; load, decrypt and decode."""
    try:
        from he_backend.ckks import seal_format
        from he_backend.ckks.seal import SealContext

        context = SealContext(load_params("N11_L1"))
    except Exception as error:  # noqa: BLE001 - a baseline may be missing
        print(f"\nno SEAL baseline: {error}")
        return
    api, degree = context.api, context.params.ring_degree
    secret = api.KeyGenerator(context.context).secret_key()
    encryptor, decryptor = api.Encryptor(context.context, secret), api.Decryptor(context.context, secret)
    values = np.random.default_rng(0).uniform(-1, 1, degree // 2) + 0j
    plain, saved = api.Plaintext(), b""

    def up() -> None:
        nonlocal saved
        context.encoder.encode(values.tolist(), context.parms_id(1), 2.0**20, plain)
        saved = seal_format.dump(encryptor.encrypt_symmetric(plain))

    def down() -> None:
        decryptor.decrypt(seal_format.load(api.Ciphertext(), context.context, saved), plain)
        np.asarray(context.encoder.decode_complex(plain))

    rows = [("N11_L1", f"{median_seconds(up, runs) / degree * 1e9:.1f}", f"{median_seconds(down, runs) / degree * 1e9:.1f}")]
    table("SEAL through TenSEAL, ns per value, complex slots", ("parameters", "encode, encrypt, save", "load, decrypt, decode"), rows)


def transforms(runs: int) -> None:
    """Microseconds of one transform of 2048 coefficients, in and out of 64-bit words."""
    rows = []
    for bits in (24, 30, 45, 54):
        moduli = largest_primes(2048, bits, 1)
        cells = []
        for level in core().cpu_levels():
            ring = Ring(2048, moduli, level)
            polynomials = np.random.default_rng(0).integers(0, moduli[0], (32, 1, 2048), dtype=np.uint64)
            there = median_seconds(lambda r=ring, a=polynomials: r.forward(a), 5 * runs)
            back = median_seconds(lambda r=ring, a=polynomials: r.inverse(a), 5 * runs)
            cells.append(f"{there / 32 * 1e6:.2f}/{back / 32 * 1e6:.2f}")
        rows.append((f"{bits} bits", *cells))
    table("Transforms of 2048 coefficients, µs there/back", ("modulus", *core().cpu_levels()), rows)


def dense(k: int, m: int, weight_bits: int) -> LinearMap:
    """A dense layer with weights of about a quarter of their range."""
    weights = np.random.default_rng(0).normal(size=(1, k, m)) * (1 << (weight_bits - 1)) / 4
    limit = (1 << (weight_bits - 1)) - 1
    index = np.arange(max(k, m), dtype=np.int32)
    return LinearMap(
        k, m, (LinearBlock(index[:k].reshape(1, 1, k), np.clip(weights, -limit, limit).astype(np.int32), index[:m].reshape(1, 1, m)),)
    )


def convolution(weight_bits: int) -> LinearMap:
    """CryptoNets' first layer: 5 maps of 5x5 with stride 2 on 28x28, padded by 1."""
    out, kernel = np.arange(13), np.arange(5)
    y = (2 * out[:, None, None, None] + kernel[None, None, :, None] - 1) + np.zeros((13, 13, 5, 5), int)
    x = (2 * out[None, :, None, None] + kernel[None, None, None, :] - 1) + np.zeros((13, 13, 5, 5), int)
    inside = (y >= 0) & (y < 28) & (x >= 0) & (x < 28)
    gather = np.where(inside, y * 28 + x, -1).reshape(1, 169, 25).astype(np.int32)
    weights = np.random.default_rng(0).integers(-(1 << (weight_bits - 1)) + 1, 1 << (weight_bits - 1), (1, 25, 5)).astype(np.int32)
    scatter = (np.arange(5)[None] * 169 + np.arange(169)[:, None])[None].astype(np.int32)
    return LinearMap(784, 845, (LinearBlock(gather, weights, scatter),))


def matrix_products(runs: int) -> None:
    """Multiplications of residues by weights, in 10^9 a second on one thread, unpacking and switching to 24 bits included."""
    degree, rows = 2048, []
    (p,) = largest_primes(degree, 24, 1)
    for name, shape in (("dense 845 x 100", (845, 100)), ("dense 100 x 10", (100, 10)), ("convolution 5x5", None)):
        for bits in (30, 45, 54):
            ring = Ring(degree, largest_primes(degree, bits, 1))
            cells = []
            for weight_bits in (8, 12, 16):
                linear = dense(*shape, weight_bits) if shape else convolution(weight_bits)
                ready = ExactLinear(ring, 1, linear)
                words = np.random.default_rng(0).integers(0, 1 << 62, linear.in_count * degree * bits // 64, dtype=np.uint64)
                out = np.empty(linear.out_count * degree * 24 // 64, dtype=np.uint64)
                seconds = median_seconds(lambda r=ready, w=words, o=out: r.switched_words(w, 1, degree, p, out=o), runs)
                cells.append(f"{linear.multiplications * degree / seconds / 1e9:.1f}")
            rows.append((name, f"{bits}", *cells, blas(linear, -(-bits // 27) if bits > 30 else 1, runs)))
    head = ("map", "modulus bits", "8-bit weights", "12-bit", "16-bit", "BLAS float64, products only")
    table("Exact linear maps of packed words, 10^9 multiplications/s, one thread", head, rows)


def blas(linear: LinearMap, limbs: int, runs: int) -> str:
    """The float64 matrix products alone: no unpacking, no limbs made, nothing recombined."""
    block = linear.blocks[0]
    terms, outs = block.weights.shape[1:]
    places = min(block.gather.shape[1], 64)
    a, b = np.random.default_rng(0).random((outs, terms)), np.random.default_rng(0).random((terms, 512 * places))
    seconds = median_seconds(lambda: a @ b, runs)
    return f"{a.size * b.shape[1] / seconds / 1e9 / limbs:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few runs")
    times = 5 if parser.parse_args().quick else 15
    with threadpool_limits(1):  # one thread for BLAS, like one thread for the core
        encryption(times)
        seal(times)
        transforms(times)
        matrix_products(times)
