"""Connections that ask nothing, or never end their question, keep nobody from the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time

import pytest
import uvicorn

from he_backend.access.gate import TokenGate
from he_backend.web.app import Operation, make_app
from he_backend.web.connections import connections
from he_backend.web.door import Door, DoorLimits
from he_backend.web.fields import REQUIRED, Field
from he_backend.web.metrics import Metrics
from he_backend.web.running import listen

HALF = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
IDLE_S, MOST_WAITING = 0.5, 6


@contextlib.contextmanager
def served(limits, most_waiting=MOST_WAITING, idle_s=IDLE_S, ready=dict):
    """The address of a service of one operation, in a thread."""
    operation = Operation("/model/say", "Says a word.", (Field("word", str, REQUIRED, "a word"),), lambda word: {"word": word})
    metrics = Metrics("he-test", lambda: {"pending": 0, "most_pending": 1})
    door = Door(make_app("test", "A test.", [operation], dict, ready), TokenGate(None), metrics, limits)
    config = uvicorn.Config(door, http=connections(most_waiting, idle_s), ws="none", log_config=None, access_log=False)
    server, listener = uvicorn.Server(config), listen("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(20)


def connected(address, data=b""):
    found = socket.create_connection(address, 10)
    found.sendall(data)
    return found


def answered(connection):
    """(status, envelope) of what comes until the connection closes; (0, {}) for nothing."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body)) if head else (0, {})


def asked(address, body=b'{"word": "x"}'):
    head = b"POST /model/say HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with connected(address, head + body) as connection:
        return answered(connection)


def test_half_open_heads_take_nobody_s_place_and_make_room_for_one_another():
    with served(DoorLimits(1, IDLE_S), idle_s=60.0) as address, contextlib.ExitStack() as held:
        half = [held.enter_context(connected(address, HALF)) for _ in range(3 * MOST_WAITING)]

        assert [asked(address)[0] for _ in range(3)] == [200] * 3
        with connected(address, HALF + b"Connection: close\r\n\r\n") as probe:
            assert answered(probe)[0] == 200
        assert answered(half[0]) == (0, {})  # the oldest made room
        half[-1].sendall(b"Connection: close\r\n\r\n")
        assert answered(half[-1])[0] == 200


@pytest.mark.parametrize("first, code", [(HALF, 408), (b"", 0), (HALF + b"\r\n" + HALF, 200)])
def test_a_head_that_is_not_complete_in_time_is_given_up(first, code):
    with served(DoorLimits(3, IDLE_S)) as address, connected(address, first) as connection:
        started = time.monotonic()
        if code == 200:  # the second head on the same connection: once the first request is answered
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
            connection.sendall(b"X: y\r\n")
            code = 408
        status, envelope = answered(connection)

        assert IDLE_S / 2 < time.monotonic() - started < 20
        assert status == code
        if code:
            assert envelope["code"] == 408 and envelope["data"] == {"error": "http"} and "head was not complete" in envelope["message"]


def test_a_head_in_pieces_is_taken_and_requests_under_way_have_no_such_limit():
    with served(DoorLimits(3, 20.0)) as address, connected(address) as connection:
        for piece in (b"POST /model/say HTTP/1.1\r\nHost: x\r\n", b"Connection: close\r\nContent-", b"Length: 13\r\n\r\n"):
            connection.sendall(piece)
            time.sleep(0.05)
        time.sleep(2 * IDLE_S)
        connection.sendall(b'{"word": "x"}')

        assert answered(connection)[0] == 200


def test_requests_beyond_the_limit_are_refused_in_the_envelope_and_probes_answered():
    with served(DoorLimits(1, 20.0)) as address, contextlib.ExitStack() as held:
        head = b"POST /model/say HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n"
        held.enter_context(connected(address, head + b'{"word"'))
        time.sleep(0.2)

        status, envelope = asked(address)
        assert status == envelope["code"] == 503 and "1 requests are under way" in envelope["message"]
        with connected(address, HALF + b"Connection: close\r\n\r\n") as probe:
            assert answered(probe)[0] == 200


def test_the_service_is_alive_while_all_its_threads_are_held():
    go = threading.Event()

    def silent():
        go.wait(20)
        return {}

    with served(DoorLimits(3, 20.0), 100, 20.0, silent) as address, contextlib.ExitStack() as held:
        for _ in range(60):  # more than there are threads
            held.enter_context(connected(address, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"))
        time.sleep(0.2)
        with connected(address, HALF + b"Connection: close\r\n\r\n") as probe:
            assert answered(probe)[0] == 200
        go.set()


def test_what_is_no_http_is_answered_in_the_envelope():
    with served(DoorLimits(1, 20.0)) as address, connected(address, b"\x16\x03\x01 not HTTP\r\n\r\n") as connection:
        status, envelope = answered(connection)

        assert status == envelope["code"] == 400 and "not an HTTP/1.1 request" in envelope["message"]
