"""The placed unit tests: each by itself, a broken import, and FATE's own `fate_test unittest federatedml`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .checks import TOP, check, note

FATE_TEST = ("python/fate_test", "fate/python/fate_test")
CLI = "from fate_test.scripts.cli import cli; cli()"


def unit_tests(found: Any, environment: dict[str, str]) -> None:
    """Each *_test.py runs alone and prints OK; a broken import must print FAILED, the one word that `fate_test` counts."""
    files = sorted((found.federatedml / "he_nn").rglob("*_test.py"))
    for path in files:
        ran = subprocess.run([found.python.path, str(path)], capture_output=True, text=True, env=environment)
        check(ran.stderr.rstrip().endswith("OK") and "FAILED" not in ran.stdout + ran.stderr, f"{path.name} runs alone and prints OK")
    broken = {**environment, "PYTHONPATH": str(TOP / "scripts")}
    ran = subprocess.run([found.python.path, str(files[-1])], capture_output=True, text=True, env=broken)
    check("FAILED" in ran.stdout + ran.stderr, f"{files[-1].name} prints FAILED where an import is broken")
    tool = next((found.base / place for place in FATE_TEST if (found.base / place / "fate_test").is_dir()), None)
    if tool is None:
        note("this deployment has no fate_test: left out")
        return
    by_fate_test(found, environment, tool, files)


def by_fate_test(found: Any, environment: dict[str, str], tool: Path, files: list[Path]) -> None:
    """`fate_test unittest federatedml --yes` finds and runs the files. It keeps its configuration beside itself, hence a copy of it, and a
    cache among FATE's examples, hence another place for that."""
    home = Path(environment["HE_NN_HOME"])
    copy = home / "fate_test"
    shutil.copytree(tool, copy)
    surroundings = {**environment, "PYTHONPATH": os.pathsep.join([str(copy), environment["PYTHONPATH"]])}

    def run(*arguments: str) -> str:
        command = [str(found.python.path), "-W", "ignore", "-c", CLI, *arguments]
        ran = subprocess.run(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=surroundings)
        return ran.stdout

    said = run("config", "new")
    configuration = home / "fate_test_config.yaml"
    if not configuration.is_file():
        print(said[-3000:])
        check(False, "fate_test writes a configuration")
    text = configuration.read_text(encoding="utf-8")
    for default, here in (("path(FATE)/fate", "path(FATE)"), ("path(FATE)", str(found.base)), ("examples/cache/", f"{home}/cache/")):
        text = text.replace(default, here)
    configuration.write_text(text, encoding="utf-8")
    said = run("unittest", "federatedml", "-c", configuration.name, "-i", str(found.federatedml / "he_nn"), "--yes")
    good = all(f"start to run test {path}" in said for path in files) and "there are 0 failed test" in said
    if not good:
        print(said[-3000:])
    check(good, f"fate_test unittest federatedml finds the {len(files)} files, and they pass")
    shutil.rmtree(copy)
