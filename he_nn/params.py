"""The parameters of he-nn-load, he-nn-eval and he-nn-inference: names, types, defaults and what is allowed. Free of FATE."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Iterator, Mapping, TypeVar

from he_backend.ckks.params import check_params
from he_backend.errors import ParameterError

PRESETS = ("N11_L1", "N12_L4", "N13_L8")
MODEL_TYPES = ("MLP", "CNN", "AlexNet", "RNN", "BERT")
CUSTOM_FILE = "custom_enc_param.json"
MOST_BATCH_ROWS = 512
SERVER_URL = "127.0.0.1:12993"
CLIENT_URL = "127.0.0.1:12995"

_TYPE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ADDRESS = re.compile(r"(https?://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})/?")

P = TypeVar("P", bound="Params")


@dataclass(frozen=True)
class Params:
    """What the three components have in common. `check` raises ParameterError that names every wrong field."""

    component: ClassVar[str] = ""

    @classmethod
    def of(cls: type[P], values: Mapping[str, Any]) -> P:
        """Checked parameters from a job's values; those not given keep their defaults. Raises ParameterError for unknown names too."""
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        unknown = [f"{name}: no such parameter; there are {', '.join(known)}" for name in values if name not in known]
        params = cls(**{name: value for name, value in values.items() if name in known})
        params._refuse([*unknown, *params.problems()])
        return params

    def check(self) -> None:
        """Raises ParameterError naming each field that is wrong, what came and what is allowed."""
        self._refuse(list(self.problems()))

    def problems(self) -> Iterator[str]:
        """One line for each field that is wrong."""
        wrong = []
        for field in dataclasses.fields(self):
            value, due = getattr(self, field.name), type(field.default)
            if type(value) is not due:
                wrong.append(field.name)
                yield f"{field.name}: {_shown(value)}; allowed: {_KINDS[due]}"
        for name, problem in self._contents():
            if name not in wrong:
                yield f"{name}: {problem}"

    def _contents(self) -> Iterator[tuple[str, str]]:
        """(field, problem) of each field of the right type that holds what is not allowed."""
        return iter(())

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            raise ParameterError("\n  ".join([f"{self.component}: wrong parameters", *problems]))


@dataclass(frozen=True)
class LoadParams(Params):
    """he-nn-load.

    model_type: MLP, CNN, AlexNet, RNN, BERT, or any type registered at the model owner. server_url: address of the HE-server, '' for
    embedded mode. is_init: True binds a new model, False takes one already bound. model_id: which one (is_init=False; '' or 'latest':
    the newest of the type).
    """

    component: ClassVar[str] = "he-nn-load"

    model_type: str = "CNN"
    server_url: str = SERVER_URL
    is_init: bool = True
    model_id: str = ""

    def _contents(self) -> Iterator[tuple[str, str]]:
        yield from _names(self.model_type, self.model_id, may_be_empty=True)
        yield from _address("server_url", self.server_url, may_be_empty=True)
        if self.is_init is True and self.model_id not in ("", None):
            yield "model_id", f"{_shown(self.model_id)} with is_init true; name a model only with is_init false, or leave it ''"


@dataclass(frozen=True)
class EvalParams(Params):
    """he-nn-eval.

    model_id: name, id or 'latest'. start_batch: index of the first batch of the test set: rows from start_batch * batch_size on.
    batch_size: rows, 1 to 512. is_encryption: encrypt the test rows, under encryption_parameters (N11_L1, N12_L4 or N13_L8) or, with
    is_custom_enc_param, under custom_enc_param.json.
    """

    component: ClassVar[str] = "he-nn-eval"

    model_id: str = "latest"
    model_type: str = "CNN"
    server_url: str = SERVER_URL
    start_batch: int = 0
    batch_size: int = 1
    is_encryption: bool = False
    encryption_parameters: str = "N13_L8"
    is_custom_enc_param: bool = False

    def _contents(self) -> Iterator[tuple[str, str]]:
        yield from _names(self.model_type, self.model_id, may_be_empty=False)
        yield from _address("server_url", self.server_url, may_be_empty=True)
        yield from _integer("start_batch", self.start_batch, 0, None)
        yield from _integer("batch_size", self.batch_size, 1, MOST_BATCH_ROWS)
        yield from _encryption(self.encryption_parameters, self.is_custom_enc_param)


@dataclass(frozen=True)
class InferenceParams(Params):
    """he-nn-inference.

    num_inference: rows to take from file_inference, an .npy file; a FATE table as input is taken whole instead. client: hand the rows to
    the HE-client service at client_url. The rest as in he-nn-eval.
    """

    component: ClassVar[str] = "he-nn-inference"

    model_id: str = "latest"
    model_type: str = "CNN"
    server_url: str = SERVER_URL
    num_inference: int = 1
    file_inference: str = "./inference_data.npy"
    is_encryption: bool = False
    encryption_parameters: str = "N13_L8"
    is_custom_enc_param: bool = False
    client: bool = False
    client_url: str = CLIENT_URL

    def _contents(self) -> Iterator[tuple[str, str]]:
        yield from _names(self.model_type, self.model_id, may_be_empty=False)
        yield from _address("server_url", self.server_url, may_be_empty=self.client is not True)
        yield from _integer("num_inference", self.num_inference, 1, None)
        if isinstance(self.file_inference, str) and (not self.file_inference.endswith(".npy") or "\0" in self.file_inference):
            yield "file_inference", f"{_shown(self.file_inference)}; allowed: the path of an .npy file"
        yield from _encryption(self.encryption_parameters, self.is_custom_enc_param)
        yield from _address("client_url", self.client_url, may_be_empty=False)


COMPONENTS: Mapping[str, type[Params]] = {cls.component: cls for cls in (LoadParams, EvalParams, InferenceParams)}
_KINDS: Mapping[type, str] = {str: "text", int: "a whole number", bool: "true or false"}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _names(model_type: Any, model_id: Any, may_be_empty: bool) -> Iterator[tuple[str, str]]:
    if isinstance(model_type, str) and (not _TYPE_NAME.fullmatch(model_type) or model_type.lower() == "all"):
        allowed = f"{', '.join(MODEL_TYPES)}, or a registered type of up to 32 letters, digits, - and _"
        yield "model_type", f"{_shown(model_type)}; allowed: {allowed}"
    if isinstance(model_id, str) and not _MODEL_ID.fullmatch(model_id) and (model_id or not may_be_empty):
        yield "model_id", f"{_shown(model_id)}; allowed: 'latest', a model's id or its name (letters, digits, - and _)"


def _address(field: str, value: Any, may_be_empty: bool) -> Iterator[tuple[str, str]]:
    if not isinstance(value, str) or (not value and may_be_empty):
        return
    match = _ADDRESS.fullmatch(value)
    if match is None or not 0 < int(match.group(3)) < 65536:
        empty = ", or '' for embedded mode" if may_be_empty else ""
        yield field, f"{_shown(value)}; allowed: host:port, with or without http(s)://{empty}"


def _integer(field: str, value: Any, least: int, most: int | None) -> Iterator[tuple[str, str]]:
    if type(value) is int and (value < least or (most is not None and value > most)):
        yield field, f"{value}; allowed: " + (f"{least} or more" if most is None else f"{least} to {most}")


def _encryption(parameters: Any, is_custom: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(parameters, str):
        return
    if is_custom is True and parameters.lstrip().startswith("{"):  # the file's text, as `he-nn job` hands it on
        try:
            check_params(json.loads(parameters), CUSTOM_FILE)
        except ParameterError as problem:
            yield "encryption_parameters", str(problem)
        except ValueError:
            yield "encryption_parameters", f"the text of {CUSTOM_FILE} is not JSON"
    elif parameters not in PRESETS:
        yield "encryption_parameters", f"{_shown(parameters)}; allowed: {', '.join(PRESETS)}, or is_custom_enc_param with {CUSTOM_FILE}"
