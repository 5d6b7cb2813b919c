"""A model served by a process of its own on this machine, for benchmarks of two parties."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx

import he_backend as he
from he_backend.server.models import OneModel
from he_backend.server.serving import Server


@contextmanager
def served(model: onnx.ModelProto, core: int | None = None) -> Iterator[str]:
    """HOST:PORT of its ciphertext channel, served by all cores or by one."""
    context = multiprocessing.get_context("spawn")
    port, done = context.Queue(), context.Event()
    process = context.Process(target=_serve, args=(model.SerializeToString(), core, port, done), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{port.get(timeout=120)}"
    finally:
        done.set()
        process.join(10)


def _serve(model: bytes, core: int | None, port: Any, done: Any) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    handle = Server(models=OneModel(he.convert(onnx.load_from_string(model)))).start("127.0.0.1:0")
    port.put(handle.port)
    done.wait()
    handle.stop(0)
