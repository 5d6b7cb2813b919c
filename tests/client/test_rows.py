"""Rows at the door: what is taken, and that each refusal names the input and says nothing of values."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.client.rows import check_rows, load_rows
from he_backend.errors import InputError
from he_backend.graph.model import ValueSpec

IMAGE = (ValueSpec("x", (1, 4, 4), "float32"),)


def test_arrays_mappings_and_flat_rows_are_taken():
    rows = np.arange(32.0).reshape(2, 1, 4, 4)
    for given in (rows, {"x": rows}, rows.reshape(2, 16), rows.astype(np.int64)):
        taken = check_rows(given, IMAGE).slice(0, 2)["x"]
        assert taken.dtype == np.float32 and np.array_equal(taken, rows)


@pytest.mark.parametrize(
    "rows, says",
    [
        (np.zeros((2, 1, 4, 5)), r"input x: the shape is \(2, 1, 4, 5\)"),
        (np.zeros((1, 4, 4)), "shape"),
        (np.array(0.0), "shape"),
        (np.full((2, 1, 4, 4), np.nan), "2 of 2 rows have NaN"),
        (np.full((1, 1, 4, 4), -np.inf), "NaN or infinity"),
        (np.zeros((2, 1, 4, 4), dtype=complex), "the type is complex128"),
        (np.array([["a"]]), "the type is"),
        (np.zeros((0, 1, 4, 4)), "no rows"),
        ({"y": np.zeros((1, 1, 4, 4))}, "inputs x, y do not match"),
        ([[1, 2], [3]], "input x: "),
    ],
)
def test_refusals(rows, says):
    with pytest.raises(InputError, match=says):
        check_rows(rows, IMAGE)


def test_several_inputs_need_names_and_equal_rows():
    two = (ValueSpec("a", (2,)), ValueSpec("b", (3,)))
    with pytest.raises(InputError, match="2 inputs"):
        check_rows(np.zeros((1, 2)), two)
    with pytest.raises(InputError, match="a 1, b 2"):
        check_rows({"a": np.zeros((1, 2)), "b": np.zeros((2, 3))}, two)


def test_integers_do_not_take_fractions():
    with pytest.raises(InputError, match="integers"):
        check_rows(np.zeros((1, 2)), (ValueSpec("ids", (2,), "int64"),))


def test_refusals_never_show_values():
    secret = 123456.789
    with pytest.raises(InputError) as caught:
        check_rows(np.full((2, 3), secret), IMAGE)
    assert "123456" not in str(caught.value)


def test_files(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones(3))
    np.savez(tmp_path / "rows.npz", a=np.ones(2))
    np.save(tmp_path / "objects.npy", np.array([object()]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    assert load_rows(tmp_path / "rows.npy").shape == (3,)
    assert list(load_rows(tmp_path / "rows.npz")) == ["a"]
    for name in ("objects.npy", "text.npy"):
        with pytest.raises(InputError, match="not a numpy array"):
            load_rows(tmp_path / name)
    with pytest.raises(InputError, match="no file"):
        load_rows(tmp_path / "missing.npy")


def test_a_file_is_read_slice_by_slice_whatever_its_layout(tmp_path):
    rows = np.random.default_rng(0).normal(size=(9, 1, 4, 4))
    for name, array in (("c", rows), ("fortran", np.asfortranarray(rows)), ("int", (rows * 10).astype(np.int8))):
        np.save(tmp_path / f"{name}.npy", array)
        checked = check_rows(load_rows(tmp_path / f"{name}.npy"), IMAGE)
        assert len(checked) == 9
        assert np.array_equal(np.concatenate([part["x"] for part in checked.slices(4)]), array.astype(np.float32))


def test_a_value_that_the_type_cannot_hold_is_refused():
    with pytest.raises(InputError, match="1 of 2 rows"):
        check_rows(np.array([[1.0] * 16, [1e300] * 16]), IMAGE)


@pytest.mark.parametrize(
    "dtype, numbers, wrong",
    [
        ("uint8", [[300, 0], [255, 0], [0, -1]], 2),
        ("int8", [[200, 0], [-128, 127], [0, 0]], 1),
        ("int32", [[2**33 + 5, 0], [-(2**31), 0]], 1),
        ("uint64", [[-1, 0], [2, 0]], 1),
        ("int64", np.array([[2**63, 0], [5, 0]], np.uint64), 1),
        ("bool", [[2, 0], [1, 0]], 1),
        ("bool", [[0.5, 0], [1.0, 0.0]], 1),
        ("float16", [[100000, 0], [65504, 0]], 1),
    ],
)
def test_numbers_that_the_type_cannot_hold_are_refused_by_count(dtype, numbers, wrong):
    specs = (ValueSpec("ids", (2,), dtype),)
    with pytest.raises(InputError, match=f"input ids: {wrong} of {len(numbers)} rows"):
        check_rows(np.array(numbers), specs)
    fine = [row for row in np.array(numbers) if set(row) <= {0, 1}]
    if fine:
        assert np.array_equal(check_rows(np.array(fine), specs).slice(0, len(fine))["ids"], fine)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "bool"])
def test_booleans_are_numbers_of_every_type(dtype):
    taken = check_rows(np.array([[True, False]]), (ValueSpec("ids", (2,), dtype),)).slice(0, 1)["ids"]
    assert taken.dtype == dtype and np.array_equal(taken, [[1, 0]])
