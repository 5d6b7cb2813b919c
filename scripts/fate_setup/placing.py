"""The files that go into a FATE 1.x project or a FATE-Board 2.x, and taking them out again."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from .deployment import Deployment, SetupError, changing

FILES = Path(__file__).resolve().parent / "files"
DESCRIPTIONS = Path("he_nn", "fate2", "component_define")
BOARD_FOLDER = "dag"  # where a FATE-Board 2.x has the descriptions of the components that it draws
MARK = "he_nn_setup.sh"  # in the first lines of what we place
PART = ".he_nn_setup"  # at the end of the name of a file that is not whole yet: neither FATE nor the Board reads it


def planned(deployment: Deployment, root: Path, provider: bool, board: Path | None = None) -> dict[Path, Path]:
    """Where each file goes -> the file it is a copy of, the one that FATE finds the components by as the last. FATE 2.x needs none; its
    `board` draws no job with a component that it has no description of."""
    if not deployment.is_fate_1:
        described = sorted((root / DESCRIPTIONS).glob("*.yaml"))
        return {} if board is None else {board / BOARD_FOLDER / path.name: path for path in described}
    assert deployment.federatedml is not None and deployment.base is not None
    federatedml = deployment.federatedml
    wanted = {}
    for path in sorted((FILES / "unit").rglob("*.py")):
        wanted[federatedml / "he_nn" / path.relative_to(FILES / "unit")] = path
    examples = examples_path(deployment)
    for path in sorted((root / "dsl_examples").iterdir()):
        if path.is_file():
            wanted[examples / path.name] = path
    if provider:
        place = provider_path(deployment)
        wanted.update({place / name: FILES / "provider" / name for name in ("__init__.py", "components/__init__.py")})
        wanted[place / "components" / "components.py"] = FILES / "provider" / "components" / "components.py"
        wanted[place / "components" / "he_nn.py"] = FILES / "he_nn.py"
    else:
        wanted[federatedml / "components" / "he_nn.py"] = FILES / "he_nn.py"
    return wanted


def may_be_edited(source: Path) -> bool:
    """Whether a user may have reasons to edit the copy of a file. What FATE imports must be of one version, or gone, with the package."""
    return FILES not in source.parents


def board_of(given: str, placed: list[str]) -> Path | None:
    """The folder of FATE-Board 2.x: that given, or the one whose files were placed before and that is still there; None for neither.

    Raises SetupError when the folder given is none.
    """
    if given:
        board = Path(given).expanduser().resolve()
        if not (board / BOARD_FOLDER).is_dir():
            raise SetupError(f"--board: {board} has no folder {BOARD_FOLDER}; name the folder of FATE-Board 2.x, with its service.sh in it")
        return board
    folders = [Path(name).parent for name in placed]
    return next((folder.parent for folder in folders if folder.name == BOARD_FOLDER and folder.is_dir()), None)


def examples_path(deployment: Deployment) -> Path:
    """The folder of our examples among FATE's."""
    assert deployment.base is not None
    for place in ("examples/dsl/v2", "fate/examples/dsl/v2"):
        if (deployment.base / place).is_dir():
            return deployment.base / place / "he_nn"
    return deployment.base / "examples" / "he_nn"


def provider_path(deployment: Deployment) -> Path:
    """The provider's package, which FATE wants alone in its parent folder."""
    assert deployment.base is not None
    return deployment.base / "he_nn_provider" / "he_nn_components"


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with changing(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()


def refuse_foreign(wanted: dict[Path, Path], ours: list[str]) -> None:
    """Raises SetupError for a file that is there, was not placed by this script, and is not what would be placed."""
    for path, source in wanted.items():
        with changing(path):
            foreign = path.exists() and str(path) not in ours and MARK not in path.read_text(encoding="utf-8", errors="replace")[:400]
        if foreign and digest(path) != digest(source):
            raise SetupError(f"{path} is there already and was not placed by this script: move it away first")


def to_make(wanted: dict[Path, Path]) -> list[str]:
    """The paths of the files and of folders that are not there yet, folders before what is in them."""
    made = []
    for path in wanted:
        made += [str(folder) for folder in reversed(list(path.parents)) if not folder.exists()]
        made.append(str(path))
    return list(dict.fromkeys(made))


def place(wanted: dict[Path, Path]) -> None:
    """Copies. A file that is there is whole at any time, the earlier one or the new one."""
    for path, source in wanted.items():
        part = path.with_name(path.name + PART)
        with changing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, part)
                os.replace(part, path)
            finally:
                if part.exists():
                    part.unlink()


def take_out(made: list[str]) -> list[str]:
    """Removes files, what Python compiled of them, and folders that are then empty; gives what was removed."""
    removed = []
    for path in (Path(name) for name in reversed(made)):
        with changing(path):
            if _is_taken_out(path):
                removed.append(str(path))
    return removed


def _is_taken_out(path: Path) -> bool:
    if path.is_dir():
        shutil.rmtree(path / "__pycache__", ignore_errors=True)
        if any(path.iterdir()):
            return False
        path.rmdir()
        return True
    part = path.with_name(path.name + PART)
    if part.exists():
        part.unlink()
    if not path.exists():
        return False
    path.unlink()
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()
    return True
