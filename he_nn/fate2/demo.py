"""`make demo`: a FATE 2.2 job on this machine that loads, evaluates and infers, encrypted, and a report of what it did.

Starts FATE 2.2 standalone on loopback, uploads held-out digits for party 9999, submits dsl_examples/he_nn_all_in_one (a FATE 1.x job,
translated), follows it, and compares its predictions with plain ONNX Runtime. Ends every process that it started.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Mapping, Sequence

import click
import numpy as np

from he_backend import zoo
from he_backend.errors import HeError
from he_backend.graph import Reference
from he_backend.inference.describe import size_text
from he_backend.zoo.shipped import Shipped

from ..table import probabilities, read_detail
from ..translate import Job, read_job, to_dag
from .flow import Flow, JobFailed
from .standalone import Standalone

TOP = Path(__file__).resolve().parents[2]
EXAMPLE = TOP / "dsl_examples" / "he_nn_all_in_one"
GUEST, HOST = ("guest", "9999"), ("host", "10000")
TABLE, NAMESPACE = "digits_test", "experiment"
CLEAR_MARGIN = 1e-3  # rows whose two best scores are closer may fall either way under any rounding


@dataclass(frozen=True)
class Comparison:
    """Predictions of the job beside those of plain ONNX Runtime on the same rows."""

    rows: int
    accuracy: float
    plain_accuracy: float
    agreement: float
    clear_rows: int  # rows whose two best scores differ by more than CLEAR_MARGIN
    clear_agreement: float
    max_abs_error: float  # of the scores in the table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; the exit status is 0 when the predictions agree, 1 when something failed, 130 when it was stopped."""
    options = _options(arguments)
    started = time.monotonic()
    # Ctrl-C, also where the shell that started this in the background had it ignored; a terminal that closes; a CI job that is stopped.
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.default_int_handler)
    try:
        comparison = _run(options, started)
    except KeyboardInterrupt:
        click.echo("\nstopped; every process of the demo has been ended", err=True)
        return 130
    except HeError as failure:
        click.echo(f"\nthe demo failed: {failure}", err=True)
        return 1
    return 0 if comparison.clear_agreement == 1.0 else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--home", type=Path, default=TOP / ".demo", help="folder for FATE's data, logs and the model registry")
    parser.add_argument("--model-type", default="CNN", help="MLP, CNN, AlexNet, RNN or BERT")
    parser.add_argument("--preset", default="N13_L8", help="N11_L1, N12_L4 or N13_L8")
    parser.add_argument("--rows", type=int, default=0, help="held-out rows to infer (default: all)")
    parser.add_argument("--json", type=Path, help="file for the figures as JSON")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, started: float) -> Comparison:
    home: Path = options.home.resolve()
    network = zoo.shipped(options.model_type)
    x, y = network.load_test()
    rows = min(len(x), options.rows) if options.rows > 0 else len(x)
    x, y = x[:rows], y[:rows]
    job = adapt(read_job(f"{EXAMPLE}_conf.json", f"{EXAMPLE}_dsl.json"), options.model_type, options.preset, len(x))
    dag = to_dag(job)
    _say(started, f"starting FATE 2.2 on this machine, home {home}")
    server = Standalone(home, {"HE_NN_HOME": str(home), **_passed_on("HE_NN_DATA")})
    with server as flow:
        _say(started, f"FATE Flow listens at {flow.address}")
        upload(flow, home, x, y, started)
        job_id = flow.submit(dag)
        _say(started, f"job {job_id}: guest 9999 owns the rows and the key, host 10000 owns the network")
        follow(flow, job_id, started)
        click.echo()
        comparison = _report(flow, job_id, network, x, y)
        within = in_process_seconds(network, x, options.preset)
        click.echo(f"                 the same in one process, without FATE: {within:.3f} s")
        click.echo(f"output table     {_place(flow, job_id)}")
        click.echo(f"logs             {home / 'logs' / job_id}/<role>/<party>/<task>/root/INFO")
        click.echo(f"whole demo       {time.monotonic() - started:.1f} s")
        if options.json is not None:
            tasks = {task: figures(flow, job_id, *GUEST, f"he_nn_{task}_0") for task in ("load", "eval", "inference")}
            kept = {"job_id": job_id, "comparison": asdict(comparison), "in_process_seconds": within, **tasks}
            options.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return comparison


def adapt(job: Job, model_type: str, preset: str, rows: int) -> Job:
    """The example job for another network, other parameters or fewer rows."""
    conf: dict[str, Any] = json.loads(json.dumps(job.conf))
    for name, values in conf["component_parameters"]["common"].items():
        if name.startswith("he_nn_"):
            values["model_type"] = model_type
        if "encryption_parameters" in values:
            values["encryption_parameters"] = preset
        if "batch_size" in values:
            values["batch_size"] = min(values["batch_size"], rows)
    return replace(job, conf=conf)


def upload(flow: Flow, home: Path, x: np.ndarray, y: np.ndarray, started: float) -> None:
    """The rows as a FATE table, uploaded unless the home has them from an earlier run."""
    text = rows_csv(x, y)
    digest, stamp = hashlib.sha256(text.encode()).hexdigest(), home / "upload" / "digest"
    if stamp.is_file() and stamp.read_text() == digest and flow.has_table(TABLE, NAMESPACE):
        _say(started, f"{len(x)} rows are in the table {NAMESPACE}.{TABLE} from an earlier run")
        return
    path = home / "upload" / "digits.csv"
    path.write_text(text, encoding="utf-8")
    stamp.unlink(missing_ok=True)  # Python 3.8 and newer
    meta = {"delimiter": ",", "dtype": "float32", "label_name": "y", "label_type": "int64", "match_id_name": "id"}
    job_id = flow.upload(str(path), TABLE, NAMESPACE, meta)
    status = flow.follow(job_id, lambda task: None)
    if status != "success":
        raise JobFailed(f"the upload ended as {status}:\n{flow.failures(job_id)}")
    stamp.write_text(digest)
    _say(started, f"uploaded {len(x)} held-out rows as table {NAMESPACE}.{TABLE} of party 9999")


def rows_csv(x: np.ndarray, y: np.ndarray) -> str:
    """Rows as CSV: id, label y, features x0, x1, ..."""
    flat = x.reshape(len(x), -1)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["id", "y", *(f"x{index}" for index in range(flat.shape[1]))])
    for index, (row, label) in enumerate(zip(flat.tolist(), y.tolist())):
        writer.writerow([f"digit_{index:04d}", label, *(repr(value) for value in row)])
    return stream.getvalue()


def follow(flow: Flow, job_id: str, started: float) -> None:
    """Prints each change of a task's state until the job ends. Raises JobFailed with what failed tasks reported."""

    def show(task: Mapping[str, Any]) -> None:
        _say(started, f"  {task['task_name']:<18} {task['role']:>5} {task['party_id']:<6} {task['status']}")

    try:
        status = flow.follow(job_id, show)
    except KeyboardInterrupt:
        click.echo("\nstopping the job", err=True)
        flow.stop(job_id)
        raise
    if status != "success":
        raise JobFailed(f"job {job_id} ended as {status}\n{flow.failures(job_id)}")


def compare(table: Sequence[Mapping[str, str]], network: Shipped, x: np.ndarray, y: np.ndarray) -> Comparison:
    """The table's predictions against ONNX Runtime; the rows are found again by their ids. Raises HeError when ids were lost or changed."""
    due = [f"digit_{index:04d}" for index in range(len(x))]
    if sorted(row["id"] for row in table) != due:
        raise HeError("the ids of the prediction table are not those that went in")
    index = np.array([int(row["id"][len("digit_") :]) for row in table])
    detail = [read_detail(row["predict_detail"]) for row in table]
    scores = np.array([[one[str(label)] for label in range(network.classes)] for one in detail])
    outputs = next(iter(Reference(str(network.onnx_path)).run(x).values()))
    plain, labels = probabilities(outputs.astype(np.float64))[index], y[index]
    ours, theirs = np.array([int(float(row["predict_result"])) for row in table]), plain.argmax(axis=1)
    best = np.sort(outputs[index], axis=1)
    clear = best[:, -1] - best[:, -2] > CLEAR_MARGIN
    return Comparison(
        rows=len(x),
        accuracy=float((ours == labels).mean()),
        plain_accuracy=float((theirs == labels).mean()),
        agreement=float((ours == theirs).mean()),
        clear_rows=int(clear.sum()),
        clear_agreement=float((ours == theirs)[clear].mean()),
        max_abs_error=float(np.abs(scores - plain).max()),
    )


def _report(flow: Flow, job_id: str, network: Shipped, x: np.ndarray, y: np.ndarray) -> Comparison:
    load, evaluated, inferred = (figures(flow, job_id, *GUEST, f"he_nn_{name}_0") for name in ("load", "eval", "inference"))
    table = flow.output_table(job_id, *GUEST, "he_nn_inference_0")
    if [row["id"] for row in table] != [row["id"] for row in flow.table(TABLE, NAMESPACE)]:
        raise HeError("the ids of the prediction table are not those of the uploaded one, in the same order")
    compared = compare(table, network, x, y)
    seconds = [f"{name} {inferred[f'seconds_{name}']:.3f}" for name in ("encrypt", "server", "decrypt", "step", "wire")]
    lines = [
        f"he-nn-load       bound {load['model_name']} ({load['model_type']}), id {load['model_id']}, "
        f"plain accuracy {load['model_test_acc']:.4f}",
        f"he-nn-eval       {evaluated['batch_size']} of the owner's test rows: accuracy {evaluated['plain_acc']:.4f} plain, "
        f"{evaluated['test_acc']:.4f} encrypted",
        f"                 agreement {evaluated['agreement']:.2%}, largest error of a score {evaluated['max_abs_error']:.1e} "
        f"({evaluated['bits_of_precision']:.1f} bits)",
        f"he-nn-inference  {inferred['rows']} of the guest's rows: accuracy {compared.plain_accuracy:.4f} plain, "
        f"{compared.accuracy:.4f} encrypted",
        f"                 agreement with ONNX Runtime {compared.agreement:.2%}; {compared.clear_agreement:.2%} of the "
        f"{compared.clear_rows} rows whose two best scores differ by more than {CLEAR_MARGIN:g}",
        f"                 largest error of a probability {compared.max_abs_error:.1e}",
        f"evaluation       {_evaluation(flow, job_id)}",
        "",
        f"engine           {inferred['engine']}, preset {inferred['preset']}, at least {inferred['expected_bits']:.1f} bits of "
        "precision promised",
        f"inference        {inferred['seconds_total']:.3f} s in {inferred['rounds']} rounds ({', '.join(seconds)})",
        f"traffic          {size_text(inferred['bytes_up'])} up, {size_text(inferred['bytes_down'])} down",
    ]
    for line in lines:
        click.echo(line)
    return compared


def in_process_seconds(network: Shipped, x: np.ndarray, preset: str) -> float:
    """Seconds of the same encrypted inference with both parties in this process; what the job took longer is the platform's."""
    from he_backend import local

    return local.infer(str(network.onnx_path), x, preset=preset).report.seconds["total"]


def figures(flow: Flow, job_id: str, role: str, party_id: str, task_name: str) -> dict[str, Any]:
    """The summary that a task left."""
    for metric in flow.metrics(job_id, role, party_id, task_name):
        if metric["name"] == "summary":
            return dict(metric["data"])
    raise HeError(f"{task_name} left no summary")


def _evaluation(flow: Flow, job_id: str) -> str:
    for metric in flow.metrics(job_id, *GUEST, "evaluation_0"):
        if metric["name"] == "evaluation":
            values = [one for by_type in metric["data"].values() for metrics in by_type.values() for one in metrics]
            return "FATE's own Evaluation: " + ", ".join(f"{one['metric']} {one['val']:.4f}" for one in values)
    raise HeError("evaluation_0 left no metric")


def _place(flow: Flow, job_id: str) -> str:
    address = flow.output_address(job_id, *GUEST, "he_nn_inference_0")
    for tables in (address.get("data") or address).values():
        for one in tables if isinstance(tables, list) else [tables]:
            if isinstance(one, Mapping) and "name" in one:
                return f"{one.get('namespace')}.{one['name']} (guest 9999; `flow data download`)"
    return str(address)


def _passed_on(*names: str) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _say(started: float, text: str) -> None:
    """A line of progress, at once."""
    seconds = time.monotonic() - started
    click.echo(f"[{int(seconds // 60)}:{seconds % 60:04.1f}] {text}")


if __name__ == "__main__":
    sys.exit(main())
