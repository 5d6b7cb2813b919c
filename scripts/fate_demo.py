"""Runs the FATE 2.2 demo in its own environment (made by scripts/fate_env.sh); arguments are those of he_nn.fate2.demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    python = TOP / ".venv-fate" / "bin" / "python"
    if not python.exists():
        sys.exit("there is no .venv-fate: run `make demo`, or scripts/fate_env.sh")
    # In place of this process, so that Ctrl-C reaches the demo alone, once.
    os.execv(python, [str(python), "-m", "he_nn.fate2.demo", *sys.argv[1:]])
