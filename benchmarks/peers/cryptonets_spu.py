"""CryptoNets on one row in SPU's Cheetah protocol: two parties, secret shares, products by homomorphic encryption. Run by run.py."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import spu
from common import finish, start
from spu.utils import frontend


def cryptonets(x, conv_weight, conv_bias, dense1_weight, dense1_bias, dense2_weight, dense2_bias):  # type: ignore[no-untyped-def]
    """Scores; the same layers as ours."""
    x = jax.lax.conv_general_dilated(x, conv_weight, (2, 2), ((1, 1), (1, 1))) + conv_bias[None, :, None, None]
    x = (x * x).reshape(1, -1)
    x = x @ dense1_weight + dense1_bias
    return (x * x) @ dense2_weight + dense2_bias


class Party(threading.Thread):
    """One of the two parties: its shares of the arguments, the network computed `repeat` times after a first time that is not counted."""

    def __init__(self, rank: int, description: Any, config: Any, program: Any, shares: list[Any], together: threading.Barrier, repeat: int):
        super().__init__(daemon=True)
        self._rank, self._description, self._config, self._program = rank, description, config, program
        self._shares, self._together, self._repeat = shares, together, repeat
        self.seconds: list[float] = []
        self.outputs: list[Any] = []
        self.problem: BaseException | None = None

    def run(self) -> None:
        """Base oblivious transfers and keys are made in the first run, which both wait for."""
        try:
            runtime = spu.Runtime(spu.libspu.link.create_mem(self._description, self._rank), self._config)
            for _ in range(self._repeat + 1):
                self._together.wait()
                began = time.perf_counter()
                for name, share in zip(self._program.input_names, self._shares):
                    runtime.set_var(name, share)
                runtime.run(self._program)
                self.outputs = [runtime.get_var(name) for name in self._program.output_names]
                self.seconds.append(time.perf_counter() - began)
        except BaseException as problem:
            self.problem = problem
            self._together.abort()
            raise


def main() -> None:
    """Times both parties in one process, over memory, from the shares of the row to the shares of the scores."""
    network, repeat = start(sys.argv)
    began = time.perf_counter()
    names = ("x", "conv_weight", "conv_bias", "dense1_weight", "dense1_bias", "dense2_weight", "dense2_bias")
    values = [jnp.asarray(network[name]) for name in names]
    lib = spu.libspu
    config = lib.RuntimeConfig(protocol=lib.ProtocolKind.CHEETAH, field=lib.FieldType.FM64)
    secret = [lib.Visibility.VIS_SECRET] * len(values)
    inputs = [f"in{i}" for i in range(len(values))]
    outputs = lambda found: [f"out{i}" for i in range(len(found))]  # noqa: E731
    program, _ = frontend.compile(frontend.Kind.JAX, cryptonets, values, {}, inputs, secret, outputs)
    io = spu.Io(2, config)
    shares = [io.make_shares(np.asarray(value), lib.Visibility.VIS_SECRET) for value in values]
    description = lib.link.Desc()
    for rank in range(2):
        description.add_party(f"id_{rank}", f"thread_{rank}")
    together = threading.Barrier(2)
    parties = [Party(rank, description, config, program, [part[rank] for part in shares], together, repeat) for rank in range(2)]
    for party in parties:
        party.start()
    for party in parties:
        party.join()
    if any(party.problem for party in parties):
        sys.exit(f"a party failed: {next(party.problem for party in parties if party.problem)!r}")
    seconds = [max(pair) for pair in zip(*(party.seconds for party in parties))]
    setup = time.perf_counter() - began - sum(seconds[1:])
    scores = np.asarray(io.reconstruct([party.outputs[0] for party in parties]))
    finish(
        sys.argv, network, scores, statistics.median(seconds[1:]), setup,
        version=metadata.version("spu"), rounds=None, bytes_up=None, bytes_down=None,
        how="Cheetah, 64-bit ring, two parties as threads over memory, on shares of row and weights",
        client_learns="scores only",
    )  # fmt: skip


if __name__ == "__main__":
    main()
