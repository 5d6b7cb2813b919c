"""Packaging of he-nn: the FATE plugin (he_nn), the engine (he_backend, from backend/) and its optional C++ core (backend/native/)."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
NATIVE = Path("backend", "native")

# One translation unit per instruction set; which one runs is chosen at run time, so the module itself runs on any x86-64.
CPU_FLAGS = {
    "_avx2": ["-mavx2", "-mfma"],
    "_avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"],
    "_ifma": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx512ifma", "-mavx512vnni", "-mfma"],
}


class BuildNative(build_ext):
    """Compiles each source of the native core with the flags its file name asks for; a failure leaves a package without it."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as failure:
            self.skip(failure)

    def build_extension(self, extension: Extension) -> None:
        try:
            import pybind11

            extension.include_dirs.append(pybind11.get_include())
            extension.extra_objects = [*extension.extra_objects, *self.compile_variants(extension)]
            super().build_extension(extension)
        except Exception as failure:
            self.skip(failure)

    def compile_variants(self, extension: Extension) -> list[str]:
        """Object files of the sources in `depends` that need CPU flags of their own."""
        objects: list[str] = []
        for suffix, flags in CPU_FLAGS.items():
            if platform.machine().lower() not in ("x86_64", "amd64"):
                break
            sources = sorted(str(path) for path in NATIVE.glob(f"*{suffix}.cpp"))
            if sources:
                objects += self.compiler.compile(
                    sources,
                    output_dir=self.build_temp,
                    include_dirs=extension.include_dirs,
                    extra_postargs=[*extension.extra_compile_args, *flags],
                    depends=extension.depends,
                )
        return objects

    def skip(self, failure: Exception) -> None:
        self.warn(f"he_backend.ckks._native was not built ({failure}); the SEAL engine will be used instead")


def native_extension() -> list[Extension]:
    """The C++ core, or nothing where its sources are absent."""
    sources = sorted(str(path) for path in NATIVE.glob("*.cpp") if not path.stem.endswith(tuple(CPU_FLAGS)))
    if not sources:
        return []
    headers = sorted(str(path) for pattern in ("*.h", "*.hpp", "*.cpp") for path in NATIVE.glob(pattern))
    return [
        Extension(
            "he_backend.ckks._native",
            sources=sources,
            depends=headers,
            include_dirs=[str(NATIVE)],
            extra_compile_args=["-std=c++17", "-O3", "-fvisibility=hidden", "-g0", "-pthread"],
            extra_link_args=["-pthread"],
            language="c++",
            optional=True,
        )
    ]


def version() -> str:
    """VERSION of backend/he_backend/version.py, read without importing the package."""
    names: dict[str, str] = {}
    exec((ROOT / "backend" / "he_backend" / "version.py").read_text(encoding="utf-8"), names)
    return names["VERSION"]


SERVER = [
    "fastapi>=0.95",
    "uvicorn>=0.22",
    "python-multipart>=0.0.6",
    "prometheus_client>=0.14",
    "click>=8.1",
    "tomli>=1.1; python_version < '3.11'",
]
TORCH = ["torch>=1.13", "onnxscript>=0.1; python_version >= '3.9'"]
BENCH = ["psutil>=5.9", "matplotlib>=3.6", "pillow>=9.1"]
POSTGRESQL = ["psycopg[binary]>=3.1"]
TEXT = ["tokenizers>=0.13"]

os.chdir(ROOT)
setup(
    name="he-nn",
    version=version(),
    description="Encrypted neural-network inference (CKKS) as FATE components and as a service",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.8",
    # conf/ stays at the top of the repository, where users look for it, and is he_backend/conf/ in an installed package.
    package_dir={"he_backend": "backend/he_backend", "he_backend.conf": "conf", "he_nn": "he_nn"},
    packages=[
        *find_packages("backend", include=["he_backend", "he_backend.*"]),
        "he_backend.conf",
        *find_packages(".", include=["he_nn", "he_nn.*"]),
    ],
    package_data={
        "he_backend": ["py.typed", "web/static/*", "zoo/weights/*.onnx", "zoo/weights/*.json"],
        "he_backend.conf": ["*.json"],
        "he_nn": ["py.typed", "fate2/component_define/*.yaml"],
    },
    ext_modules=native_extension(),
    cmdclass={"build_ext": BuildNative},
    install_requires=[
        "numpy>=1.23",
        "scipy>=1.8",
        "onnx>=1.12",
        "onnxruntime>=1.16",
        "protobuf>=3.19",
        "grpcio>=1.46",
        "SQLAlchemy>=1.4",
        "cryptography>=3.3",
        "zstandard>=0.19",
        "click>=7.1",
        "rich>=12",
        "scikit-learn>=1.0",
        "tenseal>=0.3.12",
    ],
    extras_require={
        "server": SERVER,
        "torch": TORCH,
        "tenseal": ["tenseal>=0.3.12"],
        "postgresql": POSTGRESQL,
        "mysql": ["pymysql>=1.0"],
        "fate2": ["pyfate==2.2.0", "fate_flow==2.2.0", "fate_client==2.2.0", "psutil>=5.9", "setuptools<81"],
        "bench": BENCH,
        "text": TEXT,
        "dev": [
            *SERVER,
            *TORCH,
            *BENCH,
            *POSTGRESQL,
            *TEXT,
            "pytest>=7",
            "hypothesis>=6",
            "schemathesis>=4; python_version >= '3.10'",
            "selenium>=4",
            "ruff",
            "mypy",
            "types-protobuf",
            "vermin",
            "pybind11>=2.11",
            "PyYAML>=6",
        ],
    },
    entry_points={
        "console_scripts": ["he-nn = he_backend.cli:main"],
        "he_nn.commands": ["job = he_nn.cli:job"],
        "fate.ext.component_desc": [
            "he-nn-load = he_nn.fate2.components:he_nn_load",
            "he-nn-eval = he_nn.fate2.components:he_nn_eval",
            "he-nn-inference = he_nn.fate2.components:he_nn_inference",
        ],
    },
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: C++",
        "Topic :: Security :: Cryptography",
    ],
)
