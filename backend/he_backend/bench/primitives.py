"""Encryption and decryption per value, engine by engine: from numbers to bytes that can be sent, and back."""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable

import numpy as np

from he_backend.ckks import secret, serial
from he_backend.ckks.engines import read_tensor, ready_map, traits
from he_backend.ckks.linear import LinearBlock, LinearMap
from he_backend.ckks.params import load_params

ANSWER_BITS = 31


def encrypt_and_decrypt(engine: str, preset: str, elements: int, threads: int, repeat: int = 5) -> dict[str, Any]:
    """Nanoseconds per value (median of `repeat`) to encrypt to bytes, and from an answer's bytes to values."""
    params = load_params(preset)
    rows = traits(engine, params).column_rows
    level = min(2, len(params.moduli))
    values = np.random.default_rng(0).uniform(-1.0, 1.0, (elements, rows))
    scale = 2.0**20
    key = secret.generate(engine, params, threads)
    index = np.arange(elements, dtype=np.int32)[:, None, None]
    identity = LinearMap(elements, elements, (LinearBlock(index, np.ones((elements, 1, 1), np.int32), index),))
    sent = key.encrypt(values, scale, level)
    arrived = read_tensor(serial.header_of(sent), serial.to_pieces(sent))
    answer = ready_map(engine, params, identity, level, ANSWER_BITS, threads)(arrived)
    header, data = serial.header_of(answer), b"".join(serial.to_pieces(answer))

    def up() -> None:
        for _ in serial.to_pieces(key.encrypt(values, scale, level)):
            pass

    def down() -> None:
        key.decrypt(read_tensor(header, [data]), scale, rows)

    return {
        "engine": engine,
        "preset": preset,
        "threads": threads,
        "encrypt_ns": median_seconds(up, repeat) / values.size * 1e9,
        "decrypt_ns": median_seconds(down, repeat) / values.size * 1e9,
        "bytes_up": serial.header_of(sent).payload_bytes / values.size,
        "bytes_down": header.payload_bytes / values.size,
    }


def median_seconds(work: Callable[[], Any], repeat: int) -> float:
    """Of `repeat` runs after a first one that does not count."""
    work()
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
