"""FATE's example tables as the tests use them, read from the folder of real data; vertical halves (credit, student) are joined by id."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("HE_NN_DATA") or TOP.parent / "shared" / "data") / "fate"


def table(name):
    """The path of a table; skips the test when it is missing."""
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"{path} is missing (FATE's examples/data)")
    return path


def read(path):
    """(header, rows) of a CSV file, as text."""
    with open(path, newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    return header, rows


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return path


def credit(folder, host_rows=24000, guest_rows=1000):
    """(host's table, guest's table) of default_credit with all 23 columns and disjoint rows."""
    return _homo(folder, "default_credit", host_rows, guest_rows)


def student(folder, host_rows=237, guest_rows=158):
    """(host's table, guest's table) of the students' grades: 13 columns, disjoint rows, a number to predict."""
    return _homo(folder, "student", host_rows, guest_rows)


def _homo(folder, name, host_rows, guest_rows):
    left_header, left = read(table(f"{name}_hetero_guest"))
    right_header, right = read(table(f"{name}_hetero_host"))
    by_id = {row[0]: row[1:] for row in right}
    features = [f"x{index}" for index in range(len(left_header) + len(right_header) - 3)]
    rows = sorted((row + by_id[row[0]] for row in left), key=lambda row: int(row[0]))
    header = ["id", "y", *features]
    host = write(folder / f"{name}_homo_host.csv", header, rows[:host_rows])
    return host, write(folder / f"{name}_homo_guest.csv", header, rows[-guest_rows:])
