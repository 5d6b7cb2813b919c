"""The two services from Python: HEServer(url) and HEClient(url).

server = HEServer("127.0.0.1:12993")
model = server.load("MLP")
client = HEClient("127.0.0.1:12995")
client.inference("MLP", rows, model_name=model.model_name, encrypted=True).outputs

A token is taken from HE_NN_TOKEN (HEClient: HE_NN_CLIENT_TOKEN, if that is set), the authority to trust with https:// from HE_NN_CA, or all
from `credentials`. Errors of a service are raised as those of he_backend.errors; one that cannot be reached, or is busy, as TransportError.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import secrets
import ssl
import time
from dataclasses import dataclass, field, replace
from typing import Any, Callable, ClassVar, Mapping
from urllib.parse import urlsplit

import numpy as np

from he_backend.access.credentials import CLIENT_TOKEN_VARIABLE, TOKEN_VARIABLE, Credentials
from he_backend.access.tls_contexts import reason as tls_reason
from he_backend.errors import Cancelled, HeError, NotFoundError, ParameterError, ProtocolError, TransportError
from he_backend.protocol.failures import error_of
from he_backend.protocol.messages import Failure

_MOST_ANSWER_BYTES = 1 << 30
_PIECE_BYTES = 1 << 18
_POLL_S = (0.05, 1.0)  # between two looks at a running inference: at first, at most


@dataclass(frozen=True)
class Model:
    """A registered model; `data` is all that the service said."""

    model_id: str
    model_name: str
    model_type: str
    model_owner: str
    test_acc: float | None
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Evaluation:
    """What /model/test measured; test_acc is None of a regression, whose figures have rmse and r2."""

    model_id: str
    model_name: str
    model_type: str
    batch_size: int
    is_encryption: bool
    test_acc: float | None
    seconds: float
    figures: Mapping[str, Any]
    log: str


@dataclass(frozen=True)
class Inference:
    """Predictions [rows, ...] and what they cost."""

    inference_id: str
    model_id: str
    model_name: str
    model_type: str
    outputs: np.ndarray = field(repr=False)
    seconds: float
    figures: Mapping[str, Any]
    log: str


@dataclass(frozen=True)
class InferenceRecord:
    """Where an inference stands: started, finished, failed or stopped; progress in percent."""

    inference_id: str
    state: str
    progress: float
    message: str
    data: Mapping[str, Any] = field(repr=False)


class _Pieces(io.BytesIO):
    """A body that is sent piece by piece, each of which may take the time that a request may."""

    def __init__(self, body: bytes, proceed: Callable[[], object]) -> None:
        super().__init__(body)
        self._proceed = proceed

    def read(self, size: int | None = -1) -> bytes:
        self._proceed()
        return super().read(size)


def _nothing() -> None:
    """Goes on."""


class Service:
    """What both services offer. `url` is host:port or an http(s) URL; a request may take `timeout_s` without a byte.

    Raises ParameterError for a URL that is none, and where the token would cross a network in the clear.
    """

    _variables: ClassVar[tuple[str, ...]] = (TOKEN_VARIABLE,)

    def __init__(self, url: str, timeout_s: float = 3600.0, credentials: Credentials | None = None) -> None:
        self._secure, self._host, self._port = parse_url(url)
        self._timeout_s = timeout_s
        self._credentials = Credentials.from_environment(self._variables) if credentials is None else credentials
        self._token = self._credentials.token_for(self._host, self._secure)
        self.url = f"{'https' if self._secure else 'http'}://{_address(self._host, self._port)}"

    def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return self._request("GET", "/healthz")

    def load(self, model_type: str, *, is_init: bool = True, model_name: str = "") -> Model:
        """A new model of the type, or (is_init False) a registered one, with its accuracy measured anew."""
        return _model(self.post("/model/load", model_type=model_type, is_init=int(is_init), model_name=model_name))

    def get_list(self, model_type: str = "all") -> list[Model]:
        """The models of a type, oldest first."""
        return [_model(values) for values in _items(self.post("/model/get_list", model_type=model_type), "model_list")]

    def show(self, model_name: str = "latest", model_type: str = "") -> dict[str, Any]:
        """A model's inputs, outputs and rounds, as clients learn them."""
        return self.post("/model/show", model_name=model_name, model_type=model_type)

    def test(
        self,
        model_type: str,
        model_name: str = "latest",
        *,
        encrypted: bool = False,
        preset: str = "N13_L8",
        start_batch: int = 0,
        batch_size: int = 1,
    ) -> Evaluation:
        """The model's accuracy on some of its test rows."""
        values = {"model_type": model_type, "model_name": model_name, "is_encryption": encrypted, "enc_param": preset}
        data = self.post("/model/test", **values, start_batch=start_batch, batch_size=batch_size)
        return Evaluation(
            model_id=str(_of(data, "model_id")),
            model_name=str(_of(data, "model_name")),
            model_type=str(_of(data, "model_type")),
            batch_size=int(_number(data, "batch_size")),
            is_encryption=bool(_of(data, "is_enc")),
            test_acc=_optional(data, "test_acc"),
            seconds=_seconds(data),
            figures=_figures(data),
            log=str(data.get("log", "")),
        )

    def upload(self, rows: np.ndarray, name: str = "rows.npy", proceed: Callable[[], object] = _nothing) -> str:
        """The name under which the service keeps the rows. `proceed` is called before each piece of them, and may raise to end it."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(rows), allow_pickle=False)
        boundary = secrets.token_hex(16)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file_name"\r\n\r\n{name}\r\n--{boundary}\r\n'
        head += f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        body = b"".join([head.encode(), buffer.getbuffer(), f"\r\n--{boundary}--\r\n".encode()])
        data = self._request("POST", "/model/uploadfile", body, f"multipart/form-data; boundary={boundary}", proceed)
        return str(_of(data, "inf_file_name"))

    def delete_file(self, name: str) -> None:
        """Makes the service forget uploaded rows."""
        self.post("/model/deletefile", inf_file_name=name)

    def get_inference(self, inference_id: str) -> InferenceRecord:
        """Where one inference stands."""
        records = _items(self.post("/model/get_inference", inference_id=inference_id), "inference_list")
        if len(records) != 1:
            raise ProtocolError("the service's answer to get_inference is not one record")
        return _record(records[0])

    def get_inferences(self) -> list[InferenceRecord]:
        """All inferences, newest first."""
        return [_record(values) for values in _items(self.post("/model/get_inference"), "inference_list")]

    def stop_inference(self, inference_id: str) -> None:
        """Stops an inference."""
        self.post("/model/stop_inference", inference_id=inference_id)

    def wait(self, inference_id: str, progress: Callable[[InferenceRecord], object] | None = None) -> Inference:
        """The predictions of an inference that was started without waiting. Raises what it failed with, Cancelled if it was stopped."""
        pause = _POLL_S[0]
        while True:
            record = self.get_inference(inference_id)
            if progress is not None:
                progress(record)
            if record.state == "finished":
                return _inference(record.data)
            if record.state == "stopped":
                raise Cancelled(f"inference {inference_id} was stopped")
            if record.state == "failed":
                kind = str(_figures(record.data).get("error", "transport"))  # none: the service itself ended
                raise error_of(Failure(kind, f"inference {inference_id} failed: {record.message}"))
            time.sleep(pause)
            pause = min(_POLL_S[1], 1.5 * pause)

    def find(self, model_type: str, model_name: str = "latest") -> Model:
        """The model of that name or id, or the newest of the type; raises NotFoundError."""
        models = self.get_list(model_type)
        wanted = (model_name or "latest").strip().lower()
        found = models[-1:] if wanted == "latest" else [one for one in models if wanted in (one.model_id, one.model_name.lower())]
        if not found:
            names = ", ".join(one.model_name for one in models[-10:]) or "none"
            raise NotFoundError(f"model_name: the server {self.url} has no {model_type} model {model_name[:80]!r}; it has {names}")
        return found[0]

    def _infer(
        self, model_type: str, rows: np.ndarray, model_name: str, wait: bool, proceed: Callable[[], object] = _nothing, **more: Any
    ) -> dict[str, Any]:
        name = self.upload(rows, proceed=proceed)
        try:
            values = {"model_type": model_type, "model_name": model_name, "inf_file_name": name, "batch_size": len(rows)}
            return self.post("/model/inference", **values, wait=wait, **more)
        finally:
            with contextlib.suppress(HeError):  # a started inference has its rows already; what went wrong before matters more
                self.delete_file(name)

    def post(self, path: str, **values: Any) -> dict[str, Any]:
        """The data that any path answers with."""
        return self._request("POST", path, json.dumps(values).encode(), "application/json")

    def _request(
        self, method: str, path: str, body: bytes = b"", kind: str = "", proceed: Callable[[], object] = _nothing
    ) -> dict[str, Any]:
        connection = self._connection()
        headers = {"Content-Type": kind, "Content-Length": str(len(body))} if kind else {}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request(method, path, _Pieces(body, proceed) if body else None, headers)
            reply = connection.getresponse()
            text = reply.read(_MOST_ANSWER_BYTES + 1)
        except ssl.SSLError as problem:
            raise TransportError(
                f"{self.url}: no TLS connection ({tls_reason(problem)}): is HE_NN_CA the authority of its certificate, is that in time and "
                "made out to this host, and does it ask for a certificate of yours (HE_NN_CERT, HE_NN_KEY)?"
            ) from None
        except (OSError, http.client.HTTPException) as problem:
            reason = getattr(problem, "strerror", None) or type(problem).__name__
            ask = "does it ask for a certificate of yours (HE_NN_CERT, HE_NN_KEY)" if self._secure else "is it https://"
            hint = f", or {ask}" if isinstance(problem, (ConnectionError, http.client.HTTPException)) else ""
            raise TransportError(f"{self.url}: no answer ({reason}): is the address right and the service running{hint}?") from None
        finally:
            connection.close()
        return self._data(text)

    def _connection(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s, blocksize=_PIECE_BYTES)
        context = self._credentials.context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, blocksize=_PIECE_BYTES, context=context)

    def _data(self, text: bytes) -> dict[str, Any]:
        try:
            envelope = json.loads(text)
            code, data, message = int(envelope["code"]), dict(envelope["data"]), str(envelope["message"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise ProtocolError(f"{self.url}: the answer is not one of a he-nn service; check address and port") from None
        if code == 200:
            return data
        raise _error(self.url, code, str(data.get("error", "")), message)


class HEServer(Service):
    """A model owner's service."""

    def inference(self, model_type: str, rows: np.ndarray, model_name: str = "latest") -> Inference:
        """Plain predictions: the server sees the rows."""
        return _inference(self._infer(model_type, rows, model_name, True, is_encryption="no"))

    def start_inference(
        self, model_type: str, rows: np.ndarray, model_name: str = "latest", proceed: Callable[[], object] = _nothing
    ) -> str:
        """The id of a plain inference that runs on: the server sees the rows. See upload, wait, get_inference and stop_inference."""
        return str(_of(self._infer(model_type, rows, model_name, False, proceed, is_encryption="no"), "inference_id"))

    def ciphertext_address(self) -> str:
        """HOST:PORT of its ciphertext channel."""
        health = self.health()
        advertised = str(health.get("ciphertext_address") or "")
        if advertised:
            return advertised
        if health.get("service") == "he-client":
            raise ParameterError(
                f"server_url: {self.url} is an HE-client; name the HE-server here, or have this HE-client infer (client: true)"
            )
        port = health.get("ciphertext_port")
        if type(port) is not int or not 0 < port < 65536:
            raise ProtocolError(f"{self.url} is not an HE-server: it names no ciphertext channel")
        return _address(self._host, port)

    def channel_credentials(self) -> Credentials:
        """What to show on its ciphertext channel, which speaks TLS where this URL is https://."""
        if self._secure:
            return replace(self._credentials, tls=True)
        return replace(self._credentials, tls=False, certificate="", key="")


class HEClient(Service):
    """A service in the data owner's zone, which encrypts. `server_url`: which HE-server it shall use ('': its own default)."""

    _variables = (CLIENT_TOKEN_VARIABLE, TOKEN_VARIABLE)

    def __init__(self, url: str, server_url: str = "", timeout_s: float = 3600.0, credentials: Credentials | None = None) -> None:
        super().__init__(url, timeout_s, credentials)
        self._more: dict[str, Any] = {"server_url": server_url} if server_url else {}

    def inference(
        self, model_type: str, rows: np.ndarray, model_name: str = "latest", *, encrypted: bool = True, preset: str = "N13_L8"
    ) -> Inference:
        """Predictions; with encrypted False the HE-server sees the rows."""
        return _inference(self._ask(model_type, rows, model_name, encrypted, preset, True))

    def start_inference(
        self, model_type: str, rows: np.ndarray, model_name: str = "latest", *, encrypted: bool = True, preset: str = "N13_L8"
    ) -> str:
        """The id of an inference that runs on; see wait, get_inference and stop_inference."""
        return str(_of(self._ask(model_type, rows, model_name, encrypted, preset, False), "inference_id"))

    def _ask(self, model_type: str, rows: np.ndarray, model_name: str, encrypted: bool, preset: str, wait: bool) -> dict[str, Any]:
        return self._infer(
            model_type, rows, model_name, wait, is_encryption="yes" if encrypted else "no", encryption_params=preset, **self._more
        )

    def post(self, path: str, **values: Any) -> dict[str, Any]:
        """The data that any path answers with."""
        return super().post(path, **{**self._more, **values})


def parse_url(url: str) -> tuple[bool, str, int]:
    """(https or not, host, port) of host:port or an http(s) URL without a path; the host without brackets. Raises ParameterError."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port, host = parts.port, parts.hostname
        (host or "").encode("idna")  # as a connection does: a part between two dots is not empty and not longer than 63
    except ValueError:
        port, host = None, None
    odd = parts.scheme not in ("http", "https") or parts.path not in ("", "/") or parts.query or parts.username if host else True
    if odd or port is None or host is None or not host.isprintable() or " " in host:
        raise ParameterError(
            f"server_url: {url[:80]!r}; allowed: host:port or [IPv6 address]:port, with or without http(s)://; each part of a host's "
            "name has 1 to 63 characters"
        )
    return parts.scheme == "https", host, port


def _address(host: str, port: int) -> str:
    """host:port as URLs and gRPC write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _error(url: str, code: int, kind: str, message: str) -> HeError:
    text = f"{url}: {message}"
    if code == 503:
        return TransportError(text)
    if code in (404, 405) and kind == "http":
        return ProtocolError(text)
    return error_of(Failure(kind, text))


def _of(data: Mapping[str, Any], name: str) -> Any:
    if name not in data:
        raise ProtocolError(f"the service's answer has no {name}: both sides must run the same version of he-nn")
    return data[name]


def _items(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    items = _of(data, name)
    if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
        raise ProtocolError(f"the service's {name} is not a list of records")
    return items


def _model(data: Mapping[str, Any]) -> Model:
    words = [str(_of(data, name)) for name in ("model_id", "model_name", "model_type")]
    return Model(words[0], words[1], words[2], str(data.get("model_owner", "")), _optional(data, "test_acc"), data)


def _record(data: Mapping[str, Any]) -> InferenceRecord:
    progress = _number(data, "progress") if "progress" in data else 0.0
    return InferenceRecord(str(_of(data, "inference_id")), str(_of(data, "state")), progress, str(data.get("message", "")), data)


def _inference(data: Mapping[str, Any]) -> Inference:
    if "inference_result" not in data:
        raise NotFoundError("the predictions of this inference are not in the service's memory any more; infer again")
    try:
        outputs = np.asarray(json.loads(data["inference_result"]), dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise ProtocolError("the service's inference_result is not an array of numbers") from None
    return Inference(
        str(_of(data, "inference_id")),
        str(_of(data, "model_id")),
        str(_of(data, "model_name")),
        str(_of(data, "model_type")),
        outputs,
        _seconds(data),
        _figures(data),
        str(data.get("log", "")),
    )


def _optional(data: Mapping[str, Any], name: str) -> float | None:
    return None if data.get(name) is None else _number(data, name)


def _number(data: Mapping[str, Any], name: str) -> float:
    value = _of(data, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise ProtocolError(f"the service's {name} is not a number")
    return float(value)


def _figures(data: Mapping[str, Any]) -> Mapping[str, Any]:
    figures = data.get("figures") or {}
    if not isinstance(figures, dict):
        raise ProtocolError("the service's figures are not names and values")
    return figures


def _seconds(data: Mapping[str, Any]) -> float:
    try:
        return float(str(_of(data, "time_cost")).replace("(s)", ""))
    except ValueError:
        raise ProtocolError("the service's time_cost is not a time") from None
