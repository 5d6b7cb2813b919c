"""What setup.py puts into a package, and what it does when the C++ core cannot be compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def setup_py(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", *arguments], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what setup.py reads, so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("backend/he_backend", "conf", "he_nn"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return folder


def test_presets_and_trained_networks_are_in_the_package(source, tmp_path):
    answer = setup_py(source, "build_py", "--build-lib", str(tmp_path))

    assert answer.returncode == 0, answer.stderr
    for place, here in (("he_backend/conf", "conf"), ("he_backend/zoo/weights", "backend/he_backend/zoo/weights")):
        expected = {path.name: path.read_bytes() for path in (ROOT / here).iterdir() if path.suffix in (".json", ".onnx")}
        assert expected
        assert {path.name: path.read_bytes() for path in (tmp_path / place).iterdir()} == expected


def test_presets_are_found_in_the_installed_package(source, tmp_path):
    setup_py(source, "build_py", "--build-lib", str(tmp_path))

    script = (
        "from he_backend.ckks.params import load_params; import he_backend; print(load_params('N13_L8').ring_degree, he_backend.__file__)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )

    assert answer.stdout.split() == ["8192", str(tmp_path / "he_backend" / "__init__.py")], answer.stderr


def test_without_a_working_compiler_one_line_says_so(source, tmp_path):
    native = source / "backend" / "native"
    native.mkdir(exist_ok=True)
    (native / "module.cpp").write_text("this is not C++\n")

    answer = setup_py(source, "build_ext", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path / "temp"))

    assert answer.returncode == 0
    lines = [line for line in (answer.stdout + answer.stderr).splitlines() if "_native was not built" in line]
    assert len(lines) == 1 and "SEAL engine" in lines[0]


def test_sources_with_a_cpu_suffix_get_its_flags(source, tmp_path):
    native = source / "backend" / "native"
    native.mkdir(exist_ok=True)
    (native / "module.cpp").write_text(
        "#include <pybind11/pybind11.h>\n"
        "int wide();\n"
        "#ifdef __AVX2__\n#error the common file was compiled for one processor only\n#endif\n"
        'PYBIND11_MODULE(_native, m) { m.def("wide", &wide); }\n'
    )
    (native / "sum_avx2.cpp").write_text("#ifndef __AVX2__\n#error no AVX2\n#endif\nint wide() { return 256; }\n")

    answer = setup_py(source, "build_ext", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path / "temp"))

    assert "was not built" not in answer.stdout + answer.stderr
    assert list(tmp_path.glob("he_backend/ckks/_native*.so"))
