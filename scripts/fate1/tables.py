"""What the examples need: the guest's tables and files, and the host's own networks, trained in FATE's environment."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from .checks import check, note
from .flow import NAMESPACE, Flow

ROWS = 40  # of the digits
MANY = 49_152  # rows for an inference of several seconds
CUSTOM = {"scheme_name": "HE_SEAL", "poly_modulus_degree": 4096, "security_level": 128, "coeff_modulus": [40, 40]}
DIGITS = """
import sys, numpy as np
from he_backend import zoo
home, rows, many = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
x, y = zoo.shipped('CNN', 'digits').load_test()
np.save(home + '/inference_data.npy', x)
np.save(home + '/many.npy', np.resize(x, (many, *x.shape[1:])))
x, y = x[:rows].reshape(rows, -1), y[:rows]
lines = [f'digit_{i:04d},{y[i]},' + ','.join(map(repr, map(float, x[i]))) for i in range(len(x))]
head = 'id,y,' + ','.join(f'x{i}' for i in range(x.shape[1]))
open(home + '/digits_test.csv', 'w').write('\\n'.join([head, *lines]) + '\\n')
"""


@dataclass(frozen=True)
class Subject:
    """One of FATE's example tables: the guest's part, the host's, and what a network for it takes."""

    model_type: str
    guest: str
    host: str
    columns: int
    classes: int  # 0: a number is predicted
    epochs: int
    most_rows: int


SUBJECTS = (
    Subject("Credit", "default_credit_homo_guest", "default_credit_homo_host_1", 23, 2, 15, 1000),
    Subject("Vehicle", "vehicle_scale_homo_guest", "vehicle_scale_homo_host", 18, 4, 200, 1000),
    Subject("Student", "student_homo_guest", "student_homo_host", 13, 0, 50, 1000),
)


@contextlib.contextmanager
def prepared(flow: Flow) -> Iterator[dict[str, int]]:
    """Rows of each table that was uploaded, by name. The tables are removed at the end, also of a run that a wrong finding ends."""
    left: list[str] = []
    try:
        yield prepare(flow)
    finally:
        left += flow.remove_tables()
        for name in left:
            note(f"a table is left: flow table delete -n {NAMESPACE} -t {name}")
    check(not left, f"the {len(flow.uploaded)} tables of {NAMESPACE} are removed")


def prepare(flow: Flow) -> dict[str, int]:
    """Rows of each table that was uploaded, by name; networks of the host's own are registered where FATE Flow looks for them."""
    flow.python("-c", DIGITS, str(flow.home), str(ROWS), str(MANY))
    (flow.home / "custom_enc_param.json").write_text(json.dumps(CUSTOM), encoding="utf-8")
    flow.upload(flow.home / "digits_test.csv", "digits_test")
    counts = {"digits_test": ROWS}
    for subject in SUBJECTS:
        guest, host = flow.home / f"{subject.guest}.csv", flow.home / f"{subject.host}.csv"
        counts[subject.guest] = _tables(flow.found.base / "examples" / "data", subject, guest, host)
        _network(flow, subject, host)
        flow.upload(guest, subject.guest)
    return counts


def _tables(data: Path, subject: Subject, guest: Path, host: Path) -> int:
    """Writes both parties' tables; the guest's number of rows."""
    theirs = [data / f"{name}.csv" for name in (subject.guest, subject.host)]
    if all(path.is_file() for path in theirs):
        (header, rows), (host_header, host_rows) = map(_read, theirs)
    else:
        note(f"{data} lacks {subject.guest} or {subject.host}: made-up tables with the same header take their place")
        header = host_header = ["id", "y", *(f"x{index}" for index in range(subject.columns))]
        rows, host_rows = _made_up(subject, 400, seed=1), _made_up(subject, 1200, seed=2)
    rows = rows[: subject.most_rows]
    _write(guest, header, rows)
    _write(host, host_header, host_rows)
    return len(rows)


def _made_up(subject: Subject, count: int, seed: int) -> list[list[Any]]:
    """Rows whose label is told by sums over the columns."""
    rng, weights = random.Random(seed), random.Random(0)
    outputs = max(1, subject.classes)
    matrix = [[weights.gauss(0, 1) for _ in range(subject.columns)] for _ in range(outputs)]
    rows = []
    for number in range(count):
        x = [round(rng.gauss(0, 1), 6) for _ in range(subject.columns)]
        sums = [math.fsum(a * b for a, b in zip(row, x)) for row in matrix]
        label: Any = round(sums[0], 4) if not subject.classes else max(range(outputs), key=sums.__getitem__)
        rows.append([number, label, *x])
    return rows


def _network(flow: Flow, subject: Subject, host: Path) -> None:
    """The host trains on its own rows and registers the network, as docs/fate1.md says."""
    name, task = subject.model_type, ("regression", "", "binary", "", "multi")[subject.classes]
    train = ["train-table", str(host), "--out", str(flow.home / "networks"), "--name", name, "--epochs", str(subject.epochs)]
    flow.python("-m", "he_backend.cli", *train, "--task", task)
    path = flow.home / "networks" / f"{name}.onnx"
    flow.python("-m", "he_backend.cli", "model", "add", str(path), "--type", name, "--test", str(path.with_suffix(".npz")))


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    with open(path, newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    return header, rows


def _write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
