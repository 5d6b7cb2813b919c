"""The planner's choice beside each packing forced: seconds of an inference, in this process, and how far the choice is from the best.

python benchmarks/bench_planner.py --rows 1 8 64 --preset N11_L1
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any, Callable

import numpy as np
import onnx

import he_backend as he
from he_backend import zoo
from he_backend.bench.networks import bert_tiny, lenet, resnet20
from he_backend.bench.networks.layers import Layers
from he_backend.bench.suite import machine
from he_backend.client.inference import Client
from he_backend.errors import HeError
from he_backend.inference.plan import PACKINGS
from he_backend.local import local_link


def _convolution(channels: int, size: int, outs: int, kernel: int, stride: int = 1, group: int = 1) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        net, random = Layers("convolution"), np.random.default_rng(0)
        weights = random.standard_normal((outs, channels // group, kernel, kernel)).astype(np.float32)
        pad = kernel // 2
        out = net.conv("x", weights, random.standard_normal(outs).astype(np.float32), stride, (pad,) * 4, group)
        extent = (size + 2 * pad - kernel) // stride + 1
        return net.model([("x", (channels, size, size))], out, (outs, extent, extent))

    return make


def _dense(ins: int, outs: int) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        net, random = Layers("dense"), np.random.default_rng(0)
        out = net.dense("x", random.standard_normal((ins, outs)).astype(np.float32), random.standard_normal(outs).astype(np.float32))
        return net.model([("x", (ins,))], out, (outs,))

    return make


NETWORKS: dict[str, Callable[[], Any]] = {
    "MLP": lambda: onnx.load(str(zoo.shipped("MLP", "mnist").onnx_path)),
    "CryptoNets": lambda: onnx.load(str(zoo.shipped("CNN", "mnist").onnx_path)),
    "LeNet": lenet.lenet,
    "ResNet-20": resnet20.resnet20,
    "BERT-tiny": bert_tiny.bert_tiny,
    "dense 512 x 512": _dense(512, 512),
    "3x3, 16 at 32": _convolution(16, 32, 16, 3),
    "3x3 / 2, 16 at 32": _convolution(16, 32, 32, 3, 2),
    "1x1, 64 at 14": _convolution(64, 14, 128, 1),
    "depthwise, 64 at 28": _convolution(64, 28, 64, 3, 1, 64),
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help=", ".join(NETWORKS))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64, 512, 4096])
    parser.add_argument("--preset", default="N11_L1")
    parser.add_argument("--most", type=float, default=5e9, help="values of the largest round, all rows, beyond which a case is left out")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    print(f"{'network':20} {'rows':>5}  {'auto took':18} {'auto':>9}  " + " ".join(f"{name:>9}" for name in PACKINGS) + "  auto / best")
    ratios = []
    for name in options.networks:
        try:
            program = he.convert(NETWORKS[name]())
        except HeError as problem:
            print(f"{name:20} left out: {problem}")
            continue
        largest = max(math.prod(program.shapes[value]) for segment in program.segments for value in (*segment.inputs, *segment.outputs))
        for rows in options.rows:
            if largest * max(rows, 2048) > options.most / 32 and largest * rows > options.most / 256:
                continue
            seconds, took = _seconds(program, rows, options)
            ratio = seconds["auto"] / min(seconds.values())
            ratios.append(ratio)
            shown = " ".join(f"{1e3 * seconds[one]:9.1f}" if one in seconds else f"{'':9}" for one in PACKINGS)
            print(f"{name:20} {rows:5}  {took:18} {1e3 * seconds['auto']:9.1f}  {shown}  {ratio:.2f}")
    good = sum(ratio <= 1.3 for ratio in ratios)
    print(f"{len(ratios)} cases: the choice is within 1.3 of the best in {good}, at worst {max(ratios, default=1.0):.2f}")


def _seconds(program: Any, rows: int, options: argparse.Namespace) -> tuple[dict[str, float], str]:
    """The least seconds of each packing, taken in turns, and what auto took. Packings that are ten times slower are run once."""
    random = np.random.default_rng(0)
    given = {spec.name: random.uniform(-1.0, 1.0, (rows, *spec.shape)).astype(spec.dtype) for spec in program.inputs}
    tasks = {}
    for packing in ("auto", *PACKINGS):
        client = Client(local_link(program), preset=options.preset, packing=packing)
        tasks[packing] = (client, client.prepare("latest", rows))
    took = "+".join(sorted({this.packing for this in tasks["auto"][1].plan.rounds}))
    seconds: dict[str, float] = {}
    for _ in range(options.repeat):
        for packing, (client, task) in tasks.items():
            if packing in seconds and seconds[packing] > 10.0 * min(seconds.values()):
                continue
            started = time.perf_counter()
            client.infer(task, given)
            seconds[packing] = min(seconds.get(packing, math.inf), time.perf_counter() - started)
    # Equal plans take equal time: what sets them apart is the machine.
    same = [packing for packing, (_, task) in tasks.items() if task.plan.rounds == tasks["auto"][1].plan.rounds]
    least = min(seconds[packing] for packing in same)
    return {**seconds, **dict.fromkeys(same, least)}, took


if __name__ == "__main__":
    main()
