"""Published networks with reference outputs: the layer models and mnist_8 of $HE_NN_DATA/onnx, read where they lie."""

from __future__ import annotations

import functools
import tarfile
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
from onnx import numpy_helper

from he_backend.zoo.datasets import data_folder


class Case(NamedTuple):
    """A network, and inputs with the outputs that its publisher computed."""

    name: str
    model: bytes
    inputs: tuple
    outputs: tuple


def _folder(name):
    root = data_folder()
    if root is None or not (Path(root) / "onnx" / name).exists():
        pytest.skip(f"missing onnx/{name} in $HE_NN_DATA (published with github.com/onnx/onnx)")
    return Path(root) / "onnx" / name


def _tensor(data):
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


@functools.lru_cache(maxsize=1)
def layer_cases():
    """The 80 converted PyTorch layer tests."""
    files = {}
    with tarfile.open(_folder("onnx_pytorch_converted.tar.gz")) as archive:
        for member in archive.getmembers():
            if member.isfile():
                _, name, *rest = member.name.split("/")
                files.setdefault(name, {})["/".join(rest)] = archive.extractfile(member).read()
    return [
        Case(
            name,
            parts["model.onnx"],
            tuple(_tensor(parts[key]) for key in sorted(parts) if "/input_" in key),
            tuple(_tensor(parts[key]) for key in sorted(parts) if "/output_" in key),
        )
        for name, parts in sorted(files.items())
    ]


def mnist_8_cases():
    """mnist_8 with its three reference outputs."""
    folder = _folder("mnist_8")
    model = next(folder.glob("*.onnx")).read_bytes()
    sets = sorted(path for path in folder.rglob("test_data_set_*") if path.is_dir())
    read = [tuple(_tensor(path.read_bytes()) for path in sorted(one.glob(f"{kind}_*.pb"))) for one in sets for kind in ("input", "output")]
    return [Case(f"mnist_8/{i}", model, read[2 * i], read[2 * i + 1]) for i in range(len(sets))]


def rows_of(program, case):
    """The case's inputs as rows of the program, by name."""
    return {spec.name: array if program.row_wise else array[None] for spec, array in zip(program.inputs, case.inputs)}
