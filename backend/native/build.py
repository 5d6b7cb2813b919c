"""Builds the core in place, backend/he_backend/ckks/_native*.so, with the flags of setup.py: python backend/native/build.py"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--parallel", "2"]
    sys.exit(subprocess.call(command, cwd=ROOT))
