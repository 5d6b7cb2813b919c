"""CryptoNets on one row here and in TenSEAL, Orion and SPU, in one run on one machine. See README.md in this folder.

Each peer gets a virtual environment of its own under --envs, filled from the package index that pip is configured for; one that cannot be
installed or run is reported, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import he_backend as he
from he_backend.bench.suite import machine
from he_backend.client.inference import Client
from he_backend.errors import NotFoundError
from he_backend.graph import Reference
from he_backend.server.models import OneModel
from he_backend.server.serving import Server
from he_backend.zoo import shipped

HERE = Path(__file__).resolve().parent
PEERS = {
    "tenseal": ("tenseal==0.3.18", "cryptonets_tenseal.py"),
    "orion": ("orion-fhe==1.0.2", "cryptonets_orion.py"),
    "spu": ("spu==0.9.5", "cryptonets_spu.py"),
}
LIMIT_S = 1800


def main() -> int:
    """Exit status 0 when every peer asked for ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--envs", type=Path, default=Path("build/peers"), help="folder of the environments; default build/peers")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each peer; the median is shown")
    parser.add_argument("--row", type=int, default=0, help="which of MNIST's test rows")
    parser.add_argument("--json", type=Path, help="write the figures here")
    chosen = parser.parse_args()
    path, row = shipped("CNN", "mnist").onnx_path, _row(chosen.row)
    print(machine())
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "network.npz"
        np.savez(arrays, **_network(path, row))
        for name in chosen.peers:
            rows[name] = _peer(name, chosen.envs, arrays, Path(folder) / f"{name}.json", chosen.repeat)
            _show(name, rows[name])
    for preset in ("auto", "N11_L1"):
        name = f"he_nn {preset}"
        rows[name] = ours(path, row, preset, max(7, chosen.repeat))
        _show(name, rows[name])
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine(), "peers": rows}, indent=1))
    return int(any("problem" in figures for figures in rows.values()))


def ours(path: Path, row: np.ndarray, preset: str, repeat: int) -> dict[str, Any]:
    """The figures of this project: two parties over gRPC on the loopback interface."""
    program = he.convert(path)
    due = next(iter(Reference(program).run(row).values()))
    handle = Server(models=OneModel(program)).start("127.0.0.1:0")
    client = Client(f"127.0.0.1:{handle.port}", preset=preset)
    try:
        task = client.prepare("local", 1)
        client.infer(task, row)
        runs = [client.infer(task, row) for _ in range(repeat)]
    finally:
        client.close()
        handle.stop(5.0)
    report = runs[0].report
    error = float(np.abs(runs[0].output - due).max())
    return {
        "seconds": statistics.median(run.report.seconds["total"] for run in runs), "setup_seconds": report.seconds["setup"],
        "max_abs_error": error, "largest_score": float(np.abs(due).max()),
        "same_prediction": bool(runs[0].output.argmax() == due.argmax()), "version": he.__version__,
        "rounds": report.rounds, "bytes_up": report.bytes_up, "bytes_down": report.bytes_down,
        "how": f"CKKS coefficients, {report.preset}, packing {', '.join(sorted(set(report.packing)))}; gRPC on loopback",
        "client_learns": "scores and all pre-activations: enough queries reconstruct layers",
    }  # fmt: skip


def _row(index: int) -> np.ndarray:
    try:
        return shipped("CNN", "mnist").load_test()[0][index : index + 1].astype(np.float32)
    except NotFoundError as missing:
        print(f"{missing}; a random image instead (times are the same)")
        return np.random.default_rng(0).uniform(0, 1, (1, 1, 28, 28)).astype(np.float32)


def _network(path: Path, row: np.ndarray) -> dict[str, np.ndarray]:
    """The network's weights by what they are, the row, and the plain scores."""
    model = onnx.load(str(path))
    tensors = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    found = {"x": row, "scores": next(iter(Reference(str(path)).run(row).values()))[0]}
    for name, node in zip(("conv", "dense1", "dense2"), layers):
        weight = tensors[node.input[1]]
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        found[f"{name}_weight"], found[f"{name}_bias"] = (weight.T if turned else weight), tensors[node.input[2]]
    return found


def _peer(name: str, envs: Path, arrays: Path, out: Path, repeat: int) -> dict[str, Any]:
    package, program = PEERS[name]
    python = envs / name / "bin" / "python"
    if not python.exists():
        print(f"{name}: making {envs / name} with {package}")
        venv.create(envs / name, with_pip=True)
        wrong = _run([str(python), "-m", "pip", "install", "--quiet", "--only-binary=:all:", package])
        if wrong:
            return {"problem": f"{package} does not install: {wrong}"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    wrong = _run([str(python.absolute()), str(HERE / program), str(arrays), str(out), str(repeat)], environment)
    return {"problem": f"{package} does not run: {wrong}"} if wrong else dict(json.loads(out.read_text()))


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """ "" or what went wrong."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return f"it took longer than {LIMIT_S} s"
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or [f"exit status {done.returncode}"]
        return lines[-1][:300]
    return ""


def _show(name: str, figures: dict[str, Any]) -> None:
    if "problem" in figures:
        print(f"{name:13} {figures['problem']}")
        return
    sent = "bytes not counted" if figures["bytes_up"] is None else f"{figures['bytes_up']:,} B up, {figures['bytes_down']:,} B down"
    rounds = "" if figures["rounds"] is None else f"{figures['rounds']} rounds, "
    print(
        f"{name:13} {figures['version']:8} {figures['seconds']:9.4f} s  (setup {figures['setup_seconds']:.2f} s once)  {rounds}{sent}; "
        f"largest error {figures['max_abs_error']:.1e} of scores up to {figures['largest_score']:.1f}"
        f"{'' if figures['same_prediction'] else ', ANOTHER PREDICTION'}\n"
        f"{'':13} {figures['how']}; the client learns {figures['client_learns']}"
    )


if __name__ == "__main__":
    sys.exit(main())
