"""What a service counts, for Prometheus: requests, rounds, bytes, seconds by model and segment, queue, memory. Of users, nothing."""

from __future__ import annotations

import functools
from typing import Callable, Mapping

from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_SEGMENT = ("model", "segment")


class Metrics:
    """The metrics of one service; `figures` says how busy its queue is."""

    def __init__(self, service: str, figures: Callable[[], Mapping[str, int]]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor seconds, open files
        Gauge("he_nn_up", "1, and which service this is.", ("service",), registry=registry).labels(service).set(1)
        self._requests = Counter("he_nn_requests", "Requests answered.", ("path", "status"), registry=registry)
        self._request_seconds = Histogram("he_nn_request_seconds", "Seconds to the answer.", ("path",), registry=registry, buckets=_SECONDS)
        self._refusals = Counter("he_nn_refusals", "Requests and calls not let in.", ("reason",), registry=registry)
        self._rounds = Counter("he_nn_rounds", "Encrypted rounds.", _SEGMENT, registry=registry)
        self._round_seconds = Histogram(
            "he_nn_round_seconds", "Seconds that this side computed in a round.", _SEGMENT, registry=registry, buckets=_SECONDS
        )
        self._bytes = Counter("he_nn_ciphertext_bytes", "Ciphertext bytes.", (*_SEGMENT, "direction"), registry=registry)
        self._tasks = Counter("he_nn_inferences", "Inferences that have ended.", ("model", "state"), registry=registry)
        self._task_seconds = Histogram(
            "he_nn_inference_seconds", "Seconds of an inference.", ("model",), registry=registry, buckets=_SECONDS
        )
        for name, key, text in (
            ("he_nn_queue_pending", "pending", "Inferences and evaluations at work or waiting."),
            ("he_nn_queue_limit", "most_pending", "How many there may be; one more is answered with 503."),
        ):
            Gauge(name, text, registry=registry).set_function(functools.partial(_figure, figures, key))

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request was answered. `path` is one that the service has, or other: strangers can make up any number of them."""
        self._requests.labels(path, str(status)).inc()
        self._request_seconds.labels(path).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request or a call was not let in."""
        self._refusals.labels(reason).inc()

    def round(self, model: str, segment: int, seconds: float, bytes_in: int, bytes_out: int, rounds: int = 1) -> None:
        """Rounds of a segment: seconds that this side computed, and bytes of ciphertexts that it took in and gave out."""
        labels = (model, str(segment))
        self._rounds.labels(*labels).inc(rounds)
        self._round_seconds.labels(*labels).observe(seconds)
        self._bytes.labels(*labels, "in").inc(bytes_in)
        self._bytes.labels(*labels, "out").inc(bytes_out)

    def task(self, model: str, state: str, seconds: float) -> None:
        """An inference has ended."""
        self._tasks.labels(model, state).inc()
        self._task_seconds.labels(model).observe(seconds)

    def response(self) -> Response:
        """All of them, in Prometheus' text format."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


def _figure(figures: Callable[[], Mapping[str, int]], key: str) -> float:
    return float(figures()[key])
