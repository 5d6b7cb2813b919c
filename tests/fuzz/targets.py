"""What is fuzzed: every parser of bytes that a peer, a user or a file hands in, with right inputs to start from.

A target's `feed` may raise errors of he_backend.errors, and nothing else.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from he_backend import zoo
from he_backend.api import HEServer, _inference, _model, _record
from he_backend.ckks import engines, serial
from he_backend.ckks.params import PRESETS, check_params, load_params
from he_backend.client.inference import Client
from he_backend.client.rows import check_rows, load_rows
from he_backend.errors import HeError
from he_backend.graph import convert
from he_backend.graph.steps import StepRunner, check_step
from he_backend.inference.plan import PlanSpec
from he_backend.inference.planner import make_plan
from he_backend.inference.wire import plan_from_bytes, plan_to_bytes
from he_backend.protocol import messages
from he_backend.protocol.failures import INTERNAL
from he_backend.protocol.transport import CountingLink, MemoryLink, Retry
from he_backend.server.model_files import pack_test_set, unpack_test_set
from he_backend.server.models import OneModel
from he_backend.server.service import CipherService
from he_backend.web import model_fields
from he_backend.web.app import Operation, make_app
from he_backend.web.fields import read_fields
from he_backend.web.uploads import Uploads, read_npy
from he_nn import channel

TOP = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """`share` is the part of all inputs that it gets."""

    name: str
    share: float
    seeds: list[bytes]
    feed: Callable[[bytes], object]


def _program(model_type: str):
    return convert(zoo.shipped(model_type, "digits").onnx_path)


def _plans() -> list[bytes]:
    plans = []
    for model_type, preset in (("MLP", "N11_L1"), ("CNN", "N12_L4")):
        spec = PlanSpec("an-id", "native" if "native" in engines.available() else "seal", load_params(preset).literal(), preset_name=preset)
        plans.append(plan_to_bytes(make_plan(_program(model_type), "an-id", "a-name", spec).client))
    return plans


def frames() -> Target:
    """Single frames of the ciphertext channel."""
    plan = messages.PlanRequest("latest", "native", '{"a": 1}', "auto", 12, 3, {"preset_name": "N11_L1"})
    seeds = [
        messages.Hello("he-nn 0.1", ("native", "seal"), ("N11_L1",)),
        messages.HelloReply("he-nn 0.1", ("native",), ("N11_L1",), limits={"max_call_bytes": 1 << 33}),
        plan,
        messages.PlanReply("ab" * 32, "an-id", "a-name"),
        messages.ProbeRequest("native", "{}", b"{}"),
        messages.ProbeReply(b"{}"),
        messages.RoundRequest("an-id", "ab" * 32, plan, 1, 2, b'{"count": 1}'),
        messages.RoundReply(b"{}", 0.25),
        messages.Block(0, b"payload"),
        messages.End(1, 7, 99),
        messages.Failure("input", "wrong rows"),
    ]
    return Target("frames", 0.25, [messages.encode(one) for one in seeds], messages.decode)


def calls() -> Target:
    """Whole calls at a server: recorded ones with damaged frames. A server answers everything, and nothing is an error inside it."""
    program = _program("MLP")
    service = CipherService(OneModel(program), allow_clear=True, max_call_bytes=1 << 24)
    seeds = []
    for engine in [name for name in ("native", "clear") if name in engines.available()]:
        link = CountingLink(MemoryLink(service.handle), record=True)
        Client(link, engine=engine, preset="N11_L1_small", retry=Retry(1)).infer("latest", zoo.shipped("MLP", "digits").load_test()[0][:2])
        seeds += _cut_into_calls(link.sent)

    def feed(data: bytes) -> None:
        for frame in service.handle(iter(_unframed(data))):
            message = messages.decode(frame)
            assert message != INTERNAL, "an error inside the server"

    return Target("calls", 0.04, seeds, feed)


def _cut_into_calls(sent: list[bytes]) -> list[bytes]:
    found, call = [], []
    for frame in sent:
        call.append(frame)
        if isinstance(messages.decode(frame), messages.End):
            found.append(b"".join(len(one).to_bytes(4, "little") + one for one in call))
            call = []
    return found


def _unframed(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data) and len(found) < 1000:
        size = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def tensors() -> Target:
    """Headers of ciphertext tensors, and payload read by what they say, checked as the server checks them."""
    params = load_params("N11_L1")
    headers = [
        serial.TensorHeader(engine, 2048, engines.tensor_moduli(engine, params.moduli), False, 1, 2, width, mask)
        for engine, width, mask in (("native", 300, "seed"), ("native", 2048, "array"), ("seal", 2048, "seed"), ("clear", 300, "none"))
    ]

    def feed(data: bytes) -> None:
        head, _, payload = data.partition(b"\n")
        header = serial.read_header(head)
        serial.check_header(header, header.engine, 2048, engines.tensor_moduli(header.engine, params.moduli), 2, 8)
        engines.read_tensor(header, [payload])

    return Target("tensors", 0.12, [one.to_bytes() + b"\n" + bytes(one.payload_bytes) for one in headers], feed)


def plans() -> Target:
    """Plans as a client gets them, and the steps in them as it opens them."""

    def feed(data: bytes) -> None:
        for step in plan_from_bytes(data).steps:
            StepRunner(step)

    return Target("plans", 0.06, _plans(), feed)


def steps() -> Target:
    """Client steps: ONNX networks of a peer."""
    return Target("steps", 0.06, [step.model for kind in ("MLP", "CNN") for step in _program(kind).steps if step.model], check_step)


def uploads() -> Target:
    """Uploaded .npy files."""

    def npy(array, version=None) -> bytes:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(array), version=version)
        return buffer.getvalue()

    arrays = [np.ones((3, 4), np.float32), np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((2, 5))), np.ones(4, bool)]
    seeds = [npy(array, version) for array in arrays for version in ((1, 0), (3, 0))]
    return Target("uploads", 0.15, seeds, read_npy)


def presets() -> Target:
    """Parameter sets as text of a request, and as a file."""
    folder = Path(tempfile.mkdtemp(prefix="he-nn-fuzz-"))
    path = folder / "custom_enc_param.json"
    seeds = [json.dumps(load_params(name).literal()).encode() for name in PRESETS]

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        for read in (
            lambda: load_params(path),
            lambda: model_fields.parameters(data.decode("utf-8", "replace")),
            lambda: check_params(_json_or(data)),
        ):
            try:
                read()
            except HeError:
                continue

    return Target("presets", 0.06, seeds, feed)


def _json_or(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def requests() -> Target:
    """Bodies of HTTP requests as an app takes them: JSON, forms, multipart. No answer is a 5xx."""
    keep = Uploads(1 << 20)
    tables = {"load": model_fields.LOAD, "test": model_fields.TEST, "inference": model_fields.INFERENCE, "list": model_fields.GET_LIST}
    operations = [Operation(f"/{name}", name, table, lambda **values: _texts(values)) for name, table in tables.items()]
    operations.append(Operation("/upload", "u", model_fields.UPLOAD, lambda data, file_name: {"name": keep.add(file_name, data)}, 1 << 20))
    app = make_app("fuzzed", "", operations, dict, dict)
    body = {"model_type": "MLP", "is_init": 1, "is_encryption": "yes", "enc_param": "N11_L1", "batch_size": 8, "inf_file_name": "a.npy"}
    form = b"model_type=MLP&is_init=1&batch_size=8&is_encryption=yes"
    multipart = b'--b\r\nContent-Disposition: form-data; name="file_name"\r\n\r\na.npy\r\n--b\r\nContent-Disposition: form-data; '
    multipart += b'name="file"; filename="a.npy"\r\n\r\n' + uploads().seeds[0] + b"\r\n--b--\r\n"
    seeds = [b"0" + json.dumps(body).encode(), b"1" + form, b"2" + multipart, b"3" + multipart]
    kinds = (b"application/json", b"application/x-www-form-urlencoded", *[b"multipart/form-data; boundary=b"] * 2)

    def feed(data: bytes) -> None:
        which = data[:1][0] % 4 if data else 0
        path = "/upload" if which == 3 else f"/{sorted(tables)[len(data) % len(tables)]}"
        status, answer = asyncio.run(_asked(app, path, kinds[which], data[1:]))
        assert status < 500 and set(json.loads(answer)) == {"code", "data", "message"}, (status, answer[:300])

    return Target("requests", 0.08, seeds, feed)


def _texts(values: dict) -> dict:
    for name in ("enc_param", "encryption_params"):
        if name in values:
            model_fields.parameters(values[name])
    return {name: str(value) for name, value in values.items()}


async def _asked(app, path: str, kind: bytes, body: bytes) -> tuple[int, bytes]:
    sent: list[dict] = []
    parts = [body[:7], body[7:]]
    headers = [(b"content-type", kind), (b"host", b"x")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path}
    scope.update(raw_path=path.encode(), query_string=b"", root_path="", headers=headers, client=("x", 1), server=("x", 1), state={})

    async def receive() -> dict:
        return {"type": "http.request", "body": parts.pop(0) if parts else b"", "more_body": bool(parts)}

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


def fields() -> Target:
    """Fields of JSON objects."""

    def feed(data: bytes) -> None:
        values = _json_or(data)
        if isinstance(values, dict):
            read_fields(model_fields.INFERENCE, values)

    seed = {"model_type": "MLP", "inf_file_name": "a.npy", "is_encryption": "yes", "batch_size": 8, "wait": False, "model_name": "latest"}
    return Target("fields", 0.08, [json.dumps(seed).encode()], feed)


def answers() -> Target:
    """Answers of a service as the Python client reads them."""
    server = HEServer("127.0.0.1:1")
    record = {
        "inference_id": "i",
        "state": "finished",
        "progress": 100.0,
        "message": "",
        "time_cost": "0.1(s)",
        "inference_result": "[[1,2]]",
    }
    model = {"model_id": "1", "model_name": "n", "model_type": "MLP", "model_owner": "", "test_acc": 0.5}
    data = {**record, **model, "model_list": [model], "inference_list": [record], "figures": {}, "log": ""}
    seeds = [json.dumps({"code": code, "data": data, "message": "m"}).encode() for code in (200, 400, 503)]

    def feed(given: bytes) -> None:
        values = server._data(given)
        for read in (_model, _record, _inference):
            try:
                read(values)
            except HeError:
                continue

    return Target("answers", 0.06, seeds, feed)


def owner_tests() -> Target:
    """Test sets (.npz) of a model that is registered."""
    return Target("owner_tests", 0.03, [pack_test_set((np.ones((3, 4), np.float32), np.arange(3)))], unpack_test_set)


def rows() -> Target:
    """Rows of the data owner, in .npy and .npz files, as they are read and checked."""
    path = Path(tempfile.mkdtemp(prefix="he-nn-fuzz-")) / "rows"
    specs = _program("MLP").inputs
    name = specs[0].name
    seeds = []
    for save, key in ((np.save, "arr"), (np.savez, name), (np.savez_compressed, name)):
        buffer = io.BytesIO()
        save(buffer, **{key: np.ones((3, 64), np.float32)})
        seeds.append(buffer.getvalue())

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        checked = check_rows(load_rows(path), specs)
        checked.slice(0, min(2, len(checked)))

    return Target("rows", 0.04, seeds, feed)


def objects() -> Target:
    """Objects that the two FATE parties exchange."""
    frames_of_a_call = calls().seeds[0]
    head = json.dumps({"operation": "bind", "model_type": "MLP"}).encode()
    message = len(head).to_bytes(4, "little") + head + b"data"
    seeds = [kind + message for kind in (b"C", b"R", channel.FAILURE)] + [b"B" + frames_of_a_call]

    def feed(data: bytes) -> None:
        _, body = channel._open(data)
        for read in (channel._unpack, lambda body: list(channel._frames(body))):
            try:
                read(body)
            except HeError:
                continue

    return Target("objects", 0.06, seeds, feed)


def networks() -> Target:
    """ONNX files on their way into the registry."""
    seeds = [Path(zoo.shipped(kind, "digits").onnx_path).read_bytes() for kind in ("MLP", "CNN")]
    return Target("networks", 0.01, seeds, convert)


ALL = (frames, calls, tensors, plans, steps, uploads, presets, requests, fields, answers, owner_tests, rows, objects, networks)


def quiet() -> None:
    """Logs are not what is looked at."""
    logging.disable(logging.CRITICAL)
