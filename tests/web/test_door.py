"""The door of a service: who is let in where, how many at a time, how slowly, and what is said of it in metrics and logs."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import pytest

from he_backend.access.gate import TokenGate
from he_backend.access.tokens import TokenFile
from he_backend.errors import InputError
from he_backend.web.app import Operation, make_app
from he_backend.web.callers import current_caller
from he_backend.web.door import Door, DoorLimits
from he_backend.web.fields import REQUIRED, Field
from he_backend.web.logs import JsonFormatter, TextFormatter
from he_backend.web.metrics import Metrics

FIELDS = (Field("word", str, REQUIRED, "a word"),)


@pytest.fixture
def tokens(tmp_path):
    return TokenFile(tmp_path / "tokens.json")


@pytest.fixture
def metrics():
    return Metrics("he-test", lambda: {"pending": 3, "most_pending": 66})


def door(tokens, metrics, limits=None):
    def say(word):
        return {"word": word, "caller": current_caller().name}

    operations = [Operation("/model/say", "Says a word.", FIELDS, say)]
    return Door(make_app("test", "A test.", operations, dict, dict), TokenGate(tokens), metrics, limits or DoorLimits())


async def asked(door, path, body=b'{"word": "x"}', token="", method="POST", pieces=None, more=(), keep=False):
    """(status, headers, body) of one request; `pieces` are those of its body, a number among them a pause in seconds."""
    todo, sent = (pieces if keep else list(pieces if pieces is not None else [body])), []

    async def receive():
        while todo:
            piece = todo.pop(0)
            if isinstance(piece, bytes):
                return {"type": "http.request", "body": piece, "more_body": bool(todo)}
            await asyncio.sleep(piece)
        await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json"), *more, *([(b"authorization", f"Bearer {token}".encode())] if token else [])]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
    await door({**scope, "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 1)}, receive, send)
    names = dict(sent[0]["headers"])
    return sent[0]["status"], names, b"".join(part.get("body", b"") for part in sent[1:])


def ask(*arguments, **more):
    status, headers, body = asyncio.run(asked(*arguments, **more))
    return status, headers, json.loads(body) if body[:1] == b"{" else body.decode()


def test_without_tokens_everybody_is_local(tokens, metrics):
    status, headers, envelope = ask(door(tokens, metrics), "/model/say")

    assert status == 200 and envelope["data"] == {"word": "x", "caller": "local"}
    assert headers[b"cache-control"] == b"no-store" and headers[b"x-content-type-options"] == b"nosniff"


def test_with_tokens_each_caller_is_known_and_others_are_refused_before_their_body_is_read(tokens, metrics):
    alice = tokens.add("alice")
    service = door(tokens, metrics)

    assert ask(service, "/model/say", token=alice)[2]["data"]["caller"] == "alice"
    for wrong in ("", alice + "x", "x"):
        status, headers, envelope = ask(service, "/model/say", pieces=[3600], token=wrong)
        assert status == envelope["code"] == 401 and headers[b"www-authenticate"] == b"Bearer"
        assert envelope["data"] == {"error": "unauthenticated"} and "token" in envelope["message"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_probes_and_documents_need_no_token(tokens, metrics, path):
    tokens.add("alice")

    assert ask(door(tokens, metrics), path, method="GET")[0] == 200


@pytest.mark.parametrize("method, path", [("POST", "/healthz"), ("GET", "/model/say"), ("GET", "/metrics"), ("POST", "/"), ("GET", "/x")])
def test_all_else_does(tokens, metrics, method, path):
    tokens.add("alice")

    assert ask(door(tokens, metrics), path, method=method)[0] == 401


def test_metrics_are_for_admins_and_monitors_and_monitors_do_nothing_else(tokens, metrics):
    given = {role: tokens.add(role, role) for role in ("user", "admin", "monitor")}
    service = door(tokens, metrics)

    assert {role: ask(service, "/metrics", method="GET", token=token)[0] for role, token in given.items()} == {
        "user": 403,
        "admin": 200,
        "monitor": 200,
    }
    assert ask(service, "/model/say", token=given["monitor"])[0] == 403


def test_what_is_counted(tokens, metrics):
    alice, service = tokens.add("alice"), door(tokens, metrics)
    for path, token in (("/model/say", alice), ("/model/say", ""), ("/made-up-1", alice), ("/made-up-2", alice)):
        ask(service, path, token=token)
    metrics.round("1MLP", 2, 0.5, 100, 200)
    metrics.task("1MLP", "finished", 1.5)

    text = ask(service, "/metrics", method="GET", token=tokens.add("m", "monitor"))[2]

    for line in (
        'he_nn_requests_total{path="/model/say",status="200"} 1.0',
        'he_nn_requests_total{path="/model/say",status="401"} 1.0',
        'he_nn_requests_total{path="other",status="404"} 2.0',
        'he_nn_refusals_total{reason="Unauthenticated"} 1.0',
        'he_nn_rounds_total{model="1MLP",segment="2"} 1.0',
        'he_nn_ciphertext_bytes_total{direction="in",model="1MLP",segment="2"} 100.0',
        'he_nn_round_seconds_sum{model="1MLP",segment="2"} 0.5',
        'he_nn_inferences_total{model="1MLP",state="finished"} 1.0',
        "he_nn_queue_pending 3.0",
        "he_nn_queue_limit 66.0",
        'he_nn_up{service="he-test"} 1.0',
    ):
        assert f"\n{line}\n" in text, line
    assert "process_resident_memory_bytes" in text and "made-up" not in text


def test_one_request_too_many_is_answered_with_503(tokens, metrics):
    service = door(tokens, metrics, DoorLimits(requests=1))

    async def both():
        slow = asyncio.ensure_future(asked(service, "/model/say", pieces=[b'{"word"', 0.2, b': "slow"}']))
        await asyncio.sleep(0.05)
        second = await asked(service, "/model/say")
        probe = await asked(service, "/healthz", method="GET")
        return second, probe, await slow

    second, probe, slow = asyncio.run(both())
    assert second[0] == 503 and int(second[1][b"retry-after"]) > 0
    assert probe[0] == slow[0] == 200
    assert ask(service, "/model/say")[0] == 200


def test_those_who_are_refused_take_nobody_s_place(tokens, metrics):
    alice, service = tokens.add("alice"), door(tokens, metrics, DoorLimits(requests=1))

    async def both():
        closing = ((b"connection", b"close"),)
        refused = [asyncio.ensure_future(asked(service, "/model/say", pieces=[b"x", 3600], more=closing)) for _ in range(2)]
        await asyncio.sleep(0.05)
        waits = [one.done() for one in refused]
        let_in = await asked(service, "/model/say", token=alice)
        for one in refused:
            one.cancel()
        return waits, let_in[0]

    # The first is given time to end what nobody reads; not so the second, beyond as many as may be under way.
    assert asyncio.run(both()) == ([False, True], 200)


def test_a_request_that_stands_still_is_given_up(tokens, metrics):
    service = door(tokens, metrics, DoorLimits(idle_s=0.1))

    status, _, envelope = ask(service, "/model/say", pieces=[b'{"word"', 3600])

    assert status == 408 and "stood still" in envelope["message"]
    patient = door(tokens, metrics, DoorLimits(idle_s=20.0))
    assert ask(patient, "/model/say", pieces=[b'{"word"', 0.05, b': "a', 0.05, b'b"}'])[2]["data"]["word"] == "ab"


def test_a_refused_body_is_taken_before_the_connection_closes_so_that_the_answer_is_seen(tokens, metrics, monkeypatch):
    tokens.add("alice")
    service, left = door(tokens, metrics), [b"x" * 1000] * 5
    assert asyncio.run(asked(service, "/model/say", pieces=left, more=((b"connection", b"close"),), keep=True))[0] == 401
    assert left == []

    monkeypatch.setattr("he_backend.web.door._DRAIN_BYTES", 2500)
    left = [b"x" * 1000] * 5
    assert asyncio.run(asked(service, "/model/say", pieces=left, more=((b"connection", b"close"),), keep=True))[0] == 401
    assert len(left) == 2


def test_a_token_file_that_is_damaged_lets_nobody_in(tokens, metrics):
    alice, service = tokens.add("alice"), door(tokens, metrics)
    tokens.path.write_text("{")

    status, _, envelope = ask(service, "/model/say", token=alice)

    assert status == 500 and str(tokens.path) not in json.dumps(envelope)


def test_requests_are_logged_by_caller_and_never_with_body_or_token(tokens, metrics, caplog):
    alice, service = tokens.add("alice"), door(tokens, metrics)
    with caplog.at_level(logging.INFO, logger="he_backend"):
        ask(service, "/model/say", b'{"word": "private-word"}', token=alice)
        ask(service, "/model/say", b'{"word": "private-word"}', token="hnn_wrong-token")

    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name.startswith("he_backend")]
    shown = [(one.get("caller"), one["level"], one.get("status")) for one in lines]
    assert ("alice", "info", 200) in shown and ("nobody", "info", 401) in shown and ("nobody", "warning", None) in shown
    text = json.dumps(lines)
    assert "private-word" not in text and "wrong-token" not in text and alice.split("_", 2)[2] not in text


# logs


def logged(error, **extra):
    try:
        raise error
    except type(error):
        record = logging.LogRecord("he_backend.x", logging.ERROR, __file__, 1, "it %s", ("failed\nforged line",), sys.exc_info())
    record.__dict__.update(extra)
    return record


def test_an_exception_is_logged_without_its_text_unless_it_is_ours():
    foreign = JsonFormatter().format(logged(ValueError("could not convert 0.12345 to int"), task_id="t1", secret="s"))
    own = JsonFormatter().format(logged(InputError("the file has no rows")))

    assert "0.12345" not in foreign and "builtins.ValueError" in foreign and "test_door.py" in foreign
    assert json.loads(foreign)["task_id"] == "t1" and "secret" not in json.loads(foreign)
    assert "InputError: the file has no rows" in own


def test_a_line_is_one_line_whatever_it_says():
    for formatter in (JsonFormatter(), TextFormatter()):
        record = logged(InputError("x"), caller="a\nlevel=error forged", path="/\x1b[31m")
        record.exc_info = None
        line = formatter.format(record)
        assert "\n" not in line and "\x1b" not in line and "forged" in line
