"""What both roles share: how they report, which mode a task runs in, and where its encryption parameters are."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any, Iterator, Mapping, Protocol, Sequence

from he_backend.errors import InputError, ParameterError

from .channel import Channel, stay_away
from .params import CUSTOM_FILE


class Tracker(Protocol):
    """Where a task reports to: the platform's log, progress and metrics."""

    def log(self, text: str) -> None:
        """One line for the task's log. Never a value of a row."""
        ...

    def progress(self, done: int, total: int) -> None:
        """How far the work is."""
        ...

    def series(self, name: str, values: Sequence[float]) -> None:
        """Numbers by step, such as milliseconds by round."""
        ...

    def summary(self, values: Mapping[str, Any]) -> None:
        """The figures of the task; once."""
        ...


def by_service(params: Any) -> bool:
    """Whether the guest's task goes through an HE-server or HE-client over HTTP, so that a host party has nothing to do in it."""
    return bool(params.server_url) or bool(getattr(params, "client", False))


def tell_of_service(channel: Channel, is_guest: bool, params: Any, tracker: Tracker) -> None:
    """Tells the other party that this one goes by a service, so that one in embedded mode does not wait for it for ever.

    Nobody reads this where both go by the service, which must work too where the parties' federation does not: hence a line in the log
    for whatever goes wrong.
    """
    here, there = ("guest", "host") if is_guest else ("host", "guest")
    mode = "client: true" if getattr(params, "client", False) else f"server_url: {params.server_url!r}"
    text = f"{mode} at the {here}, and server_url: '' (embedded mode) at the {there}; give both the same, in the parameters common to both"
    try:
        stay_away(channel, is_guest, ParameterError(text))
    except Exception as error:  # noqa: BLE001 - the platform's own
        tracker.log(f"the {there} could not be told that this party uses an HE service ({type(error).__name__})")


@contextlib.contextmanager
def preset_of(encryption_parameters: str, is_custom: bool) -> Iterator[str]:
    """The preset's name, or the path of a file with custom parameters: given as text, or lying in the working folder or $HE_NN_HOME."""
    if not is_custom:
        yield encryption_parameters
    elif encryption_parameters.lstrip().startswith("{"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / CUSTOM_FILE
            path.write_text(encryption_parameters, encoding="utf-8")
            yield str(path)
    else:
        yield str(
            find_file(CUSTOM_FILE, "is_custom_enc_param", "`he-nn job submit` (FATE 1.x: `job conf`) takes it from beside the dsl file")
        )


def find_file(path: str, field: str, advice: str) -> Path:
    """The file of that path: absolute, in the task's working folder, or in $HE_NN_HOME. Raises InputError naming the field."""
    folders = [Path.cwd()]
    if os.environ.get("HE_NN_HOME"):
        folders.append(Path(os.environ["HE_NN_HOME"]).expanduser())
    for folder in folders:
        if (folder / path).is_file():
            return folder / path
    raise InputError(f"{field}: there is no file {path} (relative paths start in {' or '.join(map(str, folders))}); {advice}")


def round_figures(report: Any) -> dict[str, Any]:
    """The figures of one inference (he_backend.client.report.Report) that a job shows."""
    return {
        "engine": report.engine,
        "preset": report.preset,
        "rows": report.rows,
        "rounds": report.rounds,
        "bytes_up": report.bytes_up,
        "bytes_down": report.bytes_down,
        "seconds": {name: round(value, 4) for name, value in report.seconds.items()},
        "expected_bits": round(report.expected_bits, 1),
        "round_ms": [round(1000 * sum(this.seconds.values()), 2) for this in report.per_round],
    }
