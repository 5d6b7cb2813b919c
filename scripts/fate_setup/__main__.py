"""he_nn_setup.sh's commands: install (the default), --dry-run, --check, --uninstall."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from . import packages, placing, provider, record, refresh
from .deployment import Deployment, SetupError, find, inspect

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = "he-nn-load, he-nn-eval and he-nn-inference"


def main(arguments: list[str] | None = None) -> int:
    """Does what the arguments say; the exit status is 0 when it was done."""
    options = _options(arguments)
    try:
        deployment = find(options.python, options.base)
        print(
            f"FATE {deployment.version} at {deployment.where}, Python {'.'.join(map(str, deployment.python.version))} "
            f"({deployment.python.path})",
            flush=True,
        )
        if options.uninstall:
            return uninstall(deployment)
        if options.check:
            return check(deployment)
        if options.dry_run:
            return dry_run(deployment, options.provider, options.board)
        return install(deployment, options.provider, options.flow, options.board)
    except SetupError as problem:
        print(f"he_nn_setup: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("he_nn_setup: interrupted; run it again to finish, or with --uninstall to take out what is there until now", file=sys.stderr)
        return 130


def install(deployment: Deployment, as_provider: bool, flow: str, board: str) -> int:
    """Packages, files, then a look at whether FATE finds the components. Run again, it brings everything up to date."""
    if as_provider and not deployment.is_fate_1:
        raise SetupError("--provider is for FATE 1.x; FATE 2.2 finds the components by itself")
    known = record.read(deployment)
    before = known.files.get(deployment.key, [])
    wanted = _planned(deployment, as_provider, board, before)
    placing.refuse_foreign(wanted, before)
    _install_packages(deployment, known)
    _say_kept(refresh.refresh(known, deployment.key, wanted))
    _import_components(deployment)
    print(f"installed      {', '.join(known.packages)}")
    for path in sorted({str(Path(path).parent) for path in map(str, wanted)}):
        print(f"files in       {path}")
    if as_provider:
        address = provider.register(deployment, placing.provider_path(deployment), packages.version_of(ROOT), flow)
        print(f"FATE Flow at {address} has {COMPONENTS} now, without a restart (provider {provider.NAME})")
    elif deployment.is_fate_1:
        print(f"Restart FATE Flow, so that it finds {COMPONENTS}:  bash {deployment.where}/fateflow/bin/service.sh restart")
    else:
        print(f"FATE has {COMPONENTS} now; nothing needs a restart")
        if not wanted:
            print("FATE-Board 2.x draws their jobs once it has their descriptions: --board FOLDER, on the machine where the Board is")
    print("Take everything out again with --uninstall; --check tries an encrypted inference.")
    return 0


def dry_run(deployment: Deployment, as_provider: bool, board: str) -> int:
    """Says what install would do; changes nothing."""
    there = deployment.python.packages
    known = record.read(deployment)
    wanted = packages.plan(deployment, ROOT, known.packages)
    for name, version in sorted(wanted.items()):
        before = f" (is {there[name]})" if name in there else ""
        print(f"would install  {name} {version}{before}")
    print(f"would leave    the {len([name for name in there if name not in wanted])} other packages as they are")
    before = known.files.get(deployment.key, [])
    planned = _planned(deployment, as_provider, board, before)
    kept = refresh.kept(known, before, planned)
    for path in planned:
        print(f"would {'keep' if str(path) in kept else 'replace' if path.exists() else 'write':<8} {path}")
    print("nothing was changed")
    return 0


def uninstall(deployment: Deployment) -> int:
    """Removes what install put there, and says what. Models that were registered stay: they are the user's."""
    known = record.read(deployment)
    if deployment.key not in known.files:
        raise SetupError(f"this script has put nothing into {deployment.where}; nothing was changed")
    made = known.files.pop(deployment.key)
    kept = refresh.kept(known, made, {})
    for path in placing.take_out([path for path in made if path not in kept]):
        print(f"removed        {path}")
    _say_kept(kept)
    known.forget(made)
    if known.files:
        print(f"the packages stay, for {', '.join(known.files)}")
    else:
        removed = packages.remove(deployment, known.packages)
        known.packages = []
        print(f"removed        {', '.join(removed)}")
    known.save()
    if deployment.is_fate_1:
        print(f"Restart FATE Flow, so that it forgets the components:  bash {deployment.where}/fateflow/bin/service.sh restart")
    print("Models that were registered stay in $HE_NN_HOME (~/.he_nn).")
    return 0


def check(deployment: Deployment) -> int:
    """Imports, versions, engine and a two-second encrypted self-test, in FATE's Python."""
    if packages.NAME not in deployment.python.packages:
        raise SetupError(f"he-nn is not installed in {deployment.python.prefix}; run this script without --check")
    _import_components(deployment)
    print(f"components     {COMPONENTS} are found")
    return subprocess.run([str(deployment.python.path), "-W", "ignore", "-m", "he_nn.selfcheck"], env=_environment(deployment)).returncode


def _install_packages(deployment: Deployment, known: record.Record) -> None:
    """Installs, and records what is new also where pip failed, was interrupted or changed another package: --uninstall removes it."""
    try:
        packages.install(deployment, ROOT, known.packages)
        known.add(deployment.key, [packages.NAME])
    finally:
        known.add(deployment.key, packages.added(deployment))
        known.save()


def _say_kept(paths: list[str]) -> None:
    for path in paths:
        print(f"kept           {path}: it was edited since it was placed")


def _planned(deployment: Deployment, as_provider: bool, board: str, placed: list[str]) -> dict[Path, Path]:
    if board and deployment.is_fate_1:
        raise SetupError("--board is for FATE 2.x; FATE-Board 1.x draws the components without further files")
    return placing.planned(deployment, ROOT, as_provider, None if deployment.is_fate_1 else placing.board_of(board, placed))


def _import_components(deployment: Deployment) -> None:
    """Raises SetupError with the reason when FATE would not find the components."""
    python = str(inspect(str(deployment.python.path)).path)
    if deployment.is_fate_1:
        code = (
            "from he_nn.fate1 import components, params, guest, host; import importlib.util as u; name = 'federatedml.components.he_nn'; "
            "u.find_spec(name) and __import__(name, fromlist=['*']).he_nn_load_cpn_meta"
        )
        command = [python, "-W", "ignore", "-c", code]
    else:
        command = [python, "-W", "ignore", "-m", "fate.components", "component", "list"]
    ran = subprocess.run(command, capture_output=True, text=True, env=_environment(deployment))
    listed = deployment.is_fate_1 or all(name in ran.stdout for name in ("he-nn-load", "he-nn-eval", "he-nn-inference"))
    if ran.returncode != 0 or not listed:
        print(ran.stderr[-3000:], file=sys.stderr)
        raise SetupError("FATE's Python cannot import the components; the reason stands above")


def _environment(deployment: Deployment) -> dict:
    environment = {**os.environ, "PYTHONPATH": ""}
    if deployment.is_fate_1:
        assert deployment.base is not None and deployment.federatedml is not None
        environment.update(PYTHONPATH=str(deployment.federatedml.parent), FATE_PROJECT_BASE=str(deployment.base))
    return environment


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="he_nn_setup.sh", description="Adds the he-nn components to FATE 1.9 to 1.11 or 2.2.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="say what would be installed and placed; change nothing")
    what.add_argument("--check", action="store_true", help="imports, versions, engine and an encrypted self-test")
    what.add_argument("--uninstall", action="store_true", help="remove exactly what this script has added")
    parser.add_argument("--base", default="", help="folder of a FATE 1.x project (default: $FATE_PROJECT_BASE, then the usual places)")
    parser.add_argument("--python", default="", help="the interpreter that FATE runs in (default: what bin/init_env.sh or fate_flow uses)")
    parser.add_argument("--provider", action="store_true", help="FATE 1.x: register a component provider; no restart is needed")
    parser.add_argument("--board", default="", help="FATE 2.x: the folder of FATE-Board, which draws jobs of described components alone")
    parser.add_argument("--flow", default="", help="HOST:PORT of FATE Flow, for --provider (default: conf/service_conf.yaml)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
