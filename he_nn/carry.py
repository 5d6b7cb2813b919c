"""A FATE 1.x conf that needs no file beside it: FATE 1.x sends none with a job. Free of FATE."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Iterator

from he_backend.errors import InputError

from .params import CUSTOM_FILE
from .translate import Job, rows_beside


def self_contained(job: Job) -> dict[str, Any]:
    """The job's conf with the text of custom_enc_param.json and the path of each file_inference, where they lie beside the dsl file.

    Raises InputError when a component asks for custom parameters and there is no such file.
    """
    conf = copy.deepcopy(dict(job.conf))
    components = job.dsl.get("components")
    for name, component in components.items() if isinstance(components, dict) else ():
        beside = rows_beside(job, component)
        if beside:
            _part(_part(_part(conf, "component_parameters"), "common"), name).setdefault("file_inference", beside)
    for values in _components(conf.get("component_parameters")):
        if values.get("is_custom_enc_param") is True:
            path = job.folder / CUSTOM_FILE
            try:
                values["encryption_parameters"] = path.read_text(encoding="utf-8")
            except OSError:
                raise InputError(f"is_custom_enc_param is true and there is no {CUSTOM_FILE} beside the dsl file ({job.folder})") from None
        rows = values.get("file_inference")
        if isinstance(rows, str) and not Path(rows).is_absolute() and (job.folder / rows).is_file():
            values["file_inference"] = str((job.folder / rows).resolve())
    return conf


def _part(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The object of that name, made where there is none."""
    part = values.setdefault(name, {})
    if not isinstance(part, dict):
        raise InputError(f"conf: {name}: a JSON object is expected, {type(part).__name__} came")
    return part


def _components(parameters: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a component's parameters: the common ones, and those of each party."""
    if not isinstance(parameters, dict):
        return
    groups = [parameters.get("common")]
    groups += [part for by_party in _mappings(parameters.get("role")) for part in _mappings(by_party)]
    for group in groups:
        yield from _mappings(group)


def _mappings(values: Any) -> list[dict[str, Any]]:
    return [one for one in values.values() if isinstance(one, dict)] if isinstance(values, dict) else []
