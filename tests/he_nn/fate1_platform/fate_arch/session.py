"""Part of a stand-in of FATE 1.x: a task's session: its tables, and its federation with the other party.

In FATE each party's task is a process; here it is a thread, so the session belongs to the thread, and to those it starts in its context.
"""

import asyncio
import contextvars
import threading
import time
import zlib

_session = contextvars.ContextVar("session")
FORGETS = 2  # objects of a variable that FATE keeps while it cleans up by itself
UNDER_WAY_S = 0.05  # FATE polls for an object every 0.1 s


class Federation:
    """Carries objects between the sessions of one task, each (name, tag) once, builtins alone."""

    def __init__(self):
        self._objects, self._changed, self._remoted = {}, threading.Condition(), {}
        self.sizes, self.broken = [], False

    def remote(self, obj, name, tag, cleans):
        if type(obj) is not bytes:
            raise TypeError(f"{type(obj)} is not allowed to cross")
        with self._changed:
            if (name, tag) in self._remoted:
                raise ValueError(f"remote with duplicate tag: {name}.{tag}")
            self._remoted[name, tag] = None
            self._objects[name, tag] = (time.monotonic() + UNDER_WAY_S, obj)
            self.sizes.append((name.rpartition(".")[2], len(obj)))
            mine = [key for key in self._objects if key[0] == name]
            for key in mine[: len(mine) - FORGETS] if cleans else []:
                del self._objects[key]
            self._changed.notify_all()

    def get(self, name, tag, timeout_s):
        given_up = time.monotonic() + timeout_s
        with self._changed:
            while True:
                now = time.monotonic()
                arrives, obj = self._objects.get((name, tag), (given_up, None))
                if obj is not None and arrives <= now:
                    del self._objects[name, tag]
                    return obj
                if obj is None and self.broken:
                    raise RuntimeError("the other party's task has failed")  # FATE kills the process
                if now >= given_up:
                    raise TimeoutError(f"nothing came for {name}.{tag}")
                self._changed.wait(arrives - now)

    def break_off(self):
        """What a party that failed does at its end: nothing that is under way arrives any more."""
        with self._changed:
            self.broken = True
            self._objects.clear()
            self._changed.notify_all()


class Session:
    def __init__(self, role, parties, federation, timeout_s=60.0):
        self.role, self.parties, self._federation, self._timeout_s = role, parties, federation, timeout_s
        self._loop = None  # of the thread that first got an object

    def __enter__(self):
        self._token = _session.set(self)
        return self

    def __exit__(self, *error):
        _session.reset(self._token)

    def remote(self, obj, name, tag, cleans):
        self._federation.remote(obj, name, tag, cleans)

    def get(self, name, tag):
        self._loop = self._loop or asyncio.get_event_loop()
        if asyncio.get_event_loop() is not self._loop:
            raise ValueError("The future belongs to a different loop than the one specified as the loop argument")
        return self._federation.get(name, tag, self._timeout_s)


def get_session():
    return _session.get()


class Table:
    """Keys in partitions by their hash, sorted in each, as FATE's standalone storage has them."""

    def __init__(self, pairs, partitions, schema=None):
        self.partitions, self.schema = partitions, schema or {}
        self._parts = [[] for _ in range(partitions)]
        for key, value in pairs:
            self._parts[zlib.crc32(str(key).encode()) % partitions].append((key, value))
        for part in self._parts:
            part.sort(key=lambda pair: str(pair[0]))

    def collect(self):
        return (pair for part in self._parts for pair in part)

    def count(self):
        return sum(map(len, self._parts))


class _Computing:
    @staticmethod
    def parallelize(data, partition, include_key, **kwargs):
        pairs = data if include_key else enumerate(data)
        return Table(pairs, partition)


computing_session = _Computing()
