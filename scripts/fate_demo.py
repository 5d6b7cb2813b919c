"""Runs a FATE 2.2 demo in FATE's environment (made by scripts/fate_env.sh).

scripts/fate_demo.py [ARGUMENTS of he_nn.fate2.demo]
scripts/fate_demo.py two_sites [ARGUMENTS of he_nn.fate2.two_sites]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    python = TOP / ".venv-fate" / "bin" / "python"
    if not python.exists():
        sys.exit("there is no .venv-fate: run `make demo`, or scripts/fate_env.sh")
    module, arguments = ("two_sites", sys.argv[2:]) if sys.argv[1:2] == ["two_sites"] else ("demo", sys.argv[1:])
    # In place of this process, so that Ctrl-C reaches the demo alone, once.
    os.execv(python, [str(python), "-m", f"he_nn.fate2.{module}", *arguments])
