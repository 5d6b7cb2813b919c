"""FATE 2.2's context as channel and tracker, with a context that keeps what it is told; the real one is in the jobs of the other tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from he_backend.errors import ParameterError
from he_nn.fate2.binding import FateChannel, FateTracker


class Hosts(list):
    """Several contexts: what is put is put for each."""

    def put(self, name, value):
        for host in self:
            host.put(name, value)


class Context:
    """Contexts form a tree by name and index; what is put is found under (sender, tag, name) once."""

    def __init__(self, role="guest", hosts=1, tag="", shared=None, points=None):
        self.role, self.tag, self._count = role, tag, hosts
        self.shared = {} if shared is None else shared
        self.points = [] if points is None else points
        self.metrics = SimpleNamespace(
            log_loss=lambda name, value: self.points.append((self.tag, "loss", name, value)),
            log_scalar=lambda name, value: self.points.append((self.tag, "scalar", name, value)),
            log_metrics=lambda values, name, type: self.points.append((self.tag, type, name, values)),
        )

    def sub_ctx(self, name):
        return Context(self.role, self._count, f"{self.tag}/{name}", self.shared, self.points)

    indexed_ctx = sub_ctx

    @property
    def hosts(self):
        return Hosts([self] * self._count)

    @property
    def guest(self):
        return self

    @property
    def parties(self):
        return [SimpleNamespace(role=role) for role in ["guest", *["host"] * self._count]]

    def put(self, name, value):
        key = (self.tag, name)
        assert key not in self.shared, "a name and tag are used once"
        self.shared[key] = value

    def get(self, name):
        return self.shared.pop((self.tag, name))


def test_objects_of_a_direction_share_a_name_and_arrive_in_order():
    shared = {}
    guest = FateChannel(Context("guest", shared=shared), True)
    host = FateChannel(Context("host", shared=shared), False)

    for data in (b"one", b"two", b"three"):
        guest.send(data)
    host.send(b"answer")

    assert {name for _, name in shared} == {"guest_to_host", "host_to_guest"}
    assert [host.receive() for _ in range(3)] == [b"one", b"two", b"three"] and guest.receive() == b"answer"


@pytest.mark.parametrize("hosts", [0, 2])
def test_embedded_mode_takes_one_model_owner(hosts):
    with pytest.raises(ParameterError, match=f"the job has {hosts} host parties"):
        FateChannel(Context(hosts=hosts), True).send(b"")


def test_a_service_needs_no_host():
    context = Context(hosts=0)

    FateChannel(context, True).notify(b"by a service")

    assert not context.shared


def test_a_party_that_waits_hears_that_the_other_stays_away():
    shared = {}
    guest, host = FateChannel(Context("guest", shared=shared), True), FateChannel(Context("host", shared=shared), False)

    guest.notify(b"from the guest")
    host.notify(b"from the host")

    assert guest.receive() == b"from the host" and host.receive() == b"from the guest"


def test_metrics_have_the_names_and_types_that_the_board_draws():
    context = Context()
    tracker = FateTracker(context)

    tracker.progress(0, 4)
    tracker.progress(1, 4)
    tracker.series("round_ms", [2.5, 3.5])
    tracker.summary({"rounds": 2})

    assert context.points == [
        ("/progress/0", "loss", "progress", 0.0),
        ("/progress/1", "loss", "progress", 25.0),
        ("/round_ms/0", "scalar", "round_ms", 2.5),
        ("/round_ms/1", "scalar", "round_ms", 3.5),
        ("", "custom", "summary", {"rounds": 2}),
    ]
