"""A certificate whose files may be replaced while a service runs: connections made afterwards get the new one."""

from __future__ import annotations

import logging
import os
import threading

from he_backend.access.certificates import Identity, load_identity
from he_backend.errors import ParameterError

_log = logging.getLogger(__name__)


class RenewedIdentity:
    """The certificate and key in two files, as they are now. Raises ParameterError when they cannot be used at the start.

    Later, files that cannot be used (half written, out of time, of another key) are logged once, and the last good pair stays.
    """

    def __init__(self, certificate: str, key: str, what: str) -> None:
        self._paths, self._what = (certificate, key), what
        self._lock = threading.Lock()
        self._identity, self._seen = load_identity(certificate, key, what), self._stamps()

    def current(self) -> Identity:
        """The pair to show now; the same object for as long as the files stay as they are."""
        with self._lock:
            stamps = self._stamps()
            if stamps != self._seen:
                self._seen = stamps
                try:
                    self._identity = load_identity(*self._paths, self._what)
                    _log.warning("the certificate %s was renewed", self._paths[0])
                except ParameterError as problem:
                    _log.error("the certificate stays the one before: %s", problem)
            return self._identity

    def _stamps(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(os.path.expanduser(path))
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
