"""The ciphertext channel over TCP: gRPC without generated stubs, frames streamed both ways with flow control.

A frame is one gRPC message, passed on as bytes. Neither side reads ahead: the next frame is asked for when the last one has been dealt
with, so what waits in memory is bounded by HTTP/2's windows. A request that is small goes in one message instead (bundles.py), and its
answer in as few as it needs.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Callable, Iterable, Iterator, Mapping

import grpc

from he_backend.errors import HeError, NotPermitted, ParameterError, TransportError, Unauthenticated
from he_backend.protocol.bundles import bundles, small_or_stream, unbundle
from he_backend.protocol.messages import MAX_FRAME_BYTES
from he_backend.protocol.transport import Handler

DEFAULT_PORT = 34000
_SERVICE, _STREAMED, _SMALL = "he_nn.Ciphertext", "Exchange", "Call"
METHOD = f"/{_SERVICE}/{_STREAMED}"
AUTHORIZATION, TASK = "authorization", "x-he-nn-task"  # metadata of a call: Bearer TOKEN; the id that both sides log
Entrance = Callable[[Mapping[str, str]], Handler]  # the handler for a call with this metadata; raises HeError to refuse it
_log = logging.getLogger(__name__)

_COMMON = (
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    ("grpc.http2.max_frame_size", 1 << 20),  # fewer, larger HTTP/2 frames than the 16 KiB of the standard
    ("grpc.http2.lookahead_bytes", 4 << 20),  # first window of a stream; later the measured bandwidth sets it
    ("grpc.keepalive_time_ms", 20_000),  # notices a peer that vanished without closing
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_CLIENT = (
    *_COMMON,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),  # retries are the session's
    ("SingleThreadedUnaryStream", 1),  # answers to small requests are read in the caller's thread
    ("grpc.use_local_subchannel_pool", 1),  # a link that was closed leaves no connection behind for the next one
)
_NO_CONNECTION = ("failed to connect", "resol", "all backends failing")  # in gRPC's words
_SEVERAL = ("ipv4:", "ipv6:", "dns:")  # forms of an address that may stand for several servers
_ROUND_ROBIN = '{"loadBalancingConfig": [{"round_robin": {}}]}'
_SERVER = (
    *_COMMON,
    ("grpc.so_reuseport", 0),  # a second server on the port is an error instead of half of the calls
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


@dataclass(frozen=True)
class ClientTls:
    """PEM bytes for a client: roots to trust (None: the system's), and a key and certificate where the server asks for one.

    `server_name` is the name the certificate is made out to, if it is not the address.
    """

    roots: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = None
    server_name: str = ""


@dataclass(frozen=True)
class ServerTls:
    """PEM bytes for a server: its key and certificate chain; with `client_roots`, clients must have a certificate of those.

    `renewed` is asked at each new connection for another (key, certificate), None where nothing has changed.
    """

    key: bytes = field(repr=False)
    certificate: bytes
    client_roots: bytes | None = None
    renewed: Callable[[], tuple[bytes, bytes] | None] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ServerLimits:
    """What one server takes on: calls at the same time beyond which it says it is busy, and seconds that a call may last."""

    max_calls: int = 64
    call_timeout_s: float = 3600.0


class GrpcLink:
    """A link to a server at `address` (host:port). Calls may run at the same time in several threads.

    Connecting may take `connect_timeout_s`; a whole call may take `call_timeout_s` (None: as long as both sides live). Every call carries
    `token` where one is given, and `task_id`, which both sides log.
    Replicas: ipv4:1.2.3.4:34000,1.2.3.5:34000, or dns:NAME:PORT of a name with several addresses; calls go round among them, past those
    that are down.
    """

    def __init__(
        self,
        address: str,
        connect_timeout_s: float = 5.0,
        call_timeout_s: float | None = None,
        tls: ClientTls | None = None,
        token: str = "",
        task_id: str = "",
    ) -> None:
        self._address = address
        pairs = ((AUTHORIZATION, f"Bearer {token}" if token else ""), (TASK, task_id))
        self._metadata = tuple((name, value) for name, value in pairs if value) or None
        self._call_timeout_s = call_timeout_s
        self._channel = _channel(address, connect_timeout_s, tls)
        self._streamed = self._channel.stream_stream(METHOD)  # no serializers: bytes as they are
        self._small = self._channel.unary_stream(f"/{_SERVICE}/{_SMALL}")

    def exchange(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """The server's frames. Those of a large request are taken from `frames` in a thread of gRPC's while the answer is read.

        Closing the iterator cancels the call. Raises TransportError, Unauthenticated or NotPermitted, or what `frames` raised.
        """
        small, stream = small_or_stream(frames)
        if small is None:
            yield from self._run(_Outgoing(stream), lambda outgoing: self._streamed(iter(outgoing), **self._options))
        else:
            for message in self._run(_Outgoing(()), lambda _: self._small(small, **self._options)):
                yield from unbundle(message)

    @property
    def _options(self) -> dict[str, Any]:
        return {"timeout": self._call_timeout_s, "metadata": self._metadata}

    def _run(self, outgoing: _Outgoing, start: Callable[[_Outgoing], Any]) -> Iterator[bytes]:
        """The messages of the call that `start` makes."""
        try:
            call = start(outgoing)
        except ValueError:  # gRPC's answer on a closed channel
            raise TransportError(f"the link to {self._address} is closed") from None
        outgoing.stop = call.cancel
        try:
            for frame in call:
                outgoing.check()
                yield frame
            outgoing.check()
        except grpc.RpcError as problem:
            outgoing.check()
            raise _call_error(self._address, problem, self._call_timeout_s) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """Closes the connection; calls that still run end with TransportError."""
        self._channel.close()


class _Outgoing:
    """The request's frames as gRPC takes them; what goes wrong while they are made ends the call and is raised by `check`."""

    def __init__(self, frames: Iterable[bytes]) -> None:
        self.stop: Callable[[], object] = lambda: None
        self._frames = frames
        self._problem: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._frames
        except Exception as problem:  # noqa: BLE001 - raised again in the caller's thread
            self._problem = problem
            self.stop()

    def check(self) -> None:
        """Raises what the frames raised."""
        if self._problem is not None:
            raise self._problem


class ServerHandle:
    """A server that runs; `port` is the one it listens on."""

    def __init__(self, server: Any, port: int) -> None:
        self.port = port
        self._server = server

    def stop(self, grace_s: float = 5.0) -> None:
        """Refuses new calls, gives running ones `grace_s` seconds, then cancels them. Returns when all have ended."""
        self._server.stop(grace_s).wait()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Returns when the server has stopped (True) or after `timeout_s` (False)."""
        return not self._server.wait_for_termination(timeout_s)


def serve(
    handler: Handler,
    address: str = f"0.0.0.0:{DEFAULT_PORT}",
    max_workers: int = 8,
    limits: ServerLimits = ServerLimits(),
    tls: ServerTls | None = None,
) -> ServerHandle:
    """A running server of `handler` at `address` (port 0: any free one, see the handle), with `max_workers` calls at work at a time.

    Raises TransportError when the port cannot be had, ParameterError for TLS material that cannot be read.
    """
    return serve_entrance(lambda _: handler, address, max_workers, limits, tls)


def serve_entrance(
    entrance: Entrance,
    address: str,
    max_workers: int = 8,
    limits: ServerLimits = ServerLimits(),
    tls: ServerTls | None = None,
) -> ServerHandle:
    """As `serve`, where `entrance` finds the handler for each call by its metadata, or refuses the call before a frame of it is read."""
    server = grpc.server(
        ThreadPoolExecutor(max_workers, thread_name_prefix="he-nn-call"),
        options=_SERVER,
        maximum_concurrent_rpcs=max(limits.max_calls, max_workers),
    )
    methods = {
        _STREAMED: grpc.stream_stream_rpc_method_handler(_streamed(entrance, limits.call_timeout_s)),
        _SMALL: grpc.unary_stream_rpc_method_handler(_small(entrance, limits.call_timeout_s)),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    port = _bind(server, address, tls)
    server.start()
    return ServerHandle(server, port)


def _bind(server: Any, address: str, tls: ServerTls | None) -> int:
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _server_credentials(tls))
    except RuntimeError:
        port = 0
    if not port:
        cause = "is the port in use?" if tls is None else "is the port in use, or the TLS key or certificate damaged?"
        raise TransportError(f"cannot listen on {address}: {cause}")
    return int(port)


def _server_credentials(tls: ServerTls) -> Any:
    roots, renewed = tls.client_roots, tls.renewed
    if renewed is None:
        return grpc.ssl_server_credentials([(tls.key, tls.certificate)], roots, roots is not None)

    def fetch() -> Any:
        pair = renewed()
        return None if pair is None else grpc.ssl_server_certificate_configuration([pair], roots)

    first = grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)], roots)
    return grpc.dynamic_ssl_server_credentials(first, fetch, roots is not None)


def _streamed(entrance: Entrance, call_timeout_s: float) -> Callable[[Iterator[bytes], Any], Iterator[bytes]]:
    def exchange(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        handler = _admitted(entrance, context)
        yield from _within(call_timeout_s, context, _guarded(handler(_incoming(requests)), context))

    return exchange


def _small(entrance: Entrance, call_timeout_s: float) -> Callable[[bytes, Any], Iterator[bytes]]:
    def call(request: bytes, context: Any) -> Iterator[bytes]:
        handler = _admitted(entrance, context)
        answer = _guarded(bundles(handler(unbundle(request))), context)
        # Only an answer of several messages can wait for a client that does not read.
        first, second = next(answer, None), next(answer, None)
        if first is not None:
            yield first
        if second is not None:
            yield from _within(call_timeout_s, context, chain((second,), answer))

    return call


def _within(seconds: float, context: Any, messages: Iterable[bytes]) -> Iterator[bytes]:
    """The messages; the call is cancelled when they take longer."""
    timer = threading.Timer(seconds, context.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield from messages
    finally:
        timer.cancel()


def _guarded(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
    try:
        yield from messages
    except Exception:  # noqa: BLE001 - gRPC would send the text of the error to the client
        if context.is_active():
            _log.exception("a call failed")
            context.abort(grpc.StatusCode.INTERNAL, "an error inside the server; its log describes it")


def _admitted(entrance: Entrance, context: Any) -> Handler:
    """The handler of a call; one that is not let in ends here, with a status that proxies understand too."""
    metadata = {str(name): value for name, value in context.invocation_metadata() if isinstance(value, str)}
    try:
        return entrance(metadata)
    except HeError as problem:
        _log.warning("a call from %s was refused: %s", context.peer(), problem)
        codes = ((Unauthenticated, grpc.StatusCode.UNAUTHENTICATED), (NotPermitted, grpc.StatusCode.PERMISSION_DENIED))
        context.abort(next((code for kind, code in codes if isinstance(problem, kind)), grpc.StatusCode.UNAVAILABLE), str(problem))
        raise  # not reached: abort raises


def _incoming(requests: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from requests
    except grpc.RpcError:
        raise TransportError("the client went away before its request was complete") from None


def _channel(address: str, connect_timeout_s: float, tls: ClientTls | None) -> Any:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ParameterError(f"{address!r} is not an address: write host:port, such as localhost:{DEFAULT_PORT}")
    # gRPC core: the name says backoff, but this is how long one attempt to connect may take.
    options: list[tuple[str, Any]] = [*_CLIENT, ("grpc.min_reconnect_backoff_ms", max(1, round(connect_timeout_s * 1000)))]
    if address.startswith(_SEVERAL):
        options += [("grpc.service_config", _ROUND_ROBIN), ("grpc.enable_http_proxy", 0)]
    elif host in ("localhost", "0.0.0.0", "[::1]") or host.startswith("127."):
        options.append(("grpc.enable_http_proxy", 0))
    if tls is None:
        return grpc.insecure_channel(address, options=options)
    if (tls.key is None) != (tls.certificate is None):
        raise ParameterError("a client certificate needs both its key and the certificate")
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(tls.roots, tls.key, tls.certificate)
    return grpc.secure_channel(address, credentials, options=options)


def _call_error(address: str, problem: Any, call_timeout_s: float | None) -> HeError:
    code, details = problem.code(), str(problem.details() or "")
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        refused = NotPermitted if code == grpc.StatusCode.PERMISSION_DENIED else Unauthenticated
        return refused(f"server {address}: {details[:300]}")
    texts = {
        grpc.StatusCode.DEADLINE_EXCEEDED: f"a call took longer than the {call_timeout_s} s it may take",
        grpc.StatusCode.RESOURCE_EXHAUSTED: "it is busy, or a message was too large: try again later",
        grpc.StatusCode.CANCELLED: "the call was cancelled: the server stopped or the link was closed",
        grpc.StatusCode.UNIMPLEMENTED: "something else listens there: check the port",
    }
    if code in texts:
        text = texts[code]
    elif code == grpc.StatusCode.UNAVAILABLE and any(sign in details.lower() for sign in _NO_CONNECTION):
        text = f"no connection: is the address right, the server running, TLS the same on both sides? ({details[:300]})"
    elif code == grpc.StatusCode.UNAVAILABLE:
        text = f"it went away in the middle of a call ({details[:300]})"
    else:
        text = f"the call failed: {code.name.lower()} ({details[:300]})"
    return TransportError(f"server {address}: {text}")
