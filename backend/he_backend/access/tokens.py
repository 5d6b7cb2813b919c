"""API tokens: made here, kept as hashes in a file, checked in constant time.

A token is `hnn_ID_SECRET`. SECRET has 256 random bits, so a plain SHA-256 of it is enough at rest: there is no dictionary to try
(NIST SP 800-63B, 5.1.2.2: salting and stretching are for secrets below 112 bits). ID finds the entry without comparing secrets.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from he_backend.access.callers import ROLES, USER, Caller
from he_backend.errors import EngineError, NotFoundError, ParameterError, Unauthenticated

MOST_MODELS, MOST_DAYS = 100, 3650
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_TOKEN = re.compile(r"hnn_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_log = logging.getLogger(__name__)
_NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Token:
    """What is kept of a token; the token itself is shown once, when it is made. Times are seconds since 1970; `expires` 0: never."""

    token_id: str
    name: str
    role: str
    models: tuple[str, ...]
    created: int
    expires: int
    sha256: str = field(repr=False)

    @property
    def caller(self) -> Caller:
        """Whom it stands for."""
        return Caller(self.name, self.role, self.models)


class TokenFile:
    """The tokens in a file, readable by its owner alone. A change of the file holds from the next call on, in running services too."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().absolute()
        self._lock = threading.Lock()
        self._seen: tuple[Any, dict[str, Token]] = (None, {})

    def list(self) -> tuple[Token, ...]:
        """All tokens, oldest first; none when there is no file. Raises ParameterError when the file is damaged or open to others."""
        return tuple(self._read().values())

    def add(self, name: str, role: str = USER, models: Sequence[str] = (), days: int = 0) -> str:
        """A new token, which is shown nowhere else; valid for `days` (0: until it is removed). Raises ParameterError."""
        token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        now = int(time.time())
        with self._changing():
            tokens = self._read()
            if any(one.name == name for one in tokens.values()):
                raise ParameterError(f"name: {name!r} is taken; remove that token first or choose another name")
            new = _checked(
                {
                    "token_id": token_id,
                    "name": name,
                    "role": role,
                    "models": list(models),
                    "created": now,
                    "expires": now + 86_400 * _days(days) if days else 0,
                    "sha256": _hash(secret),
                }
            )
            self._write([*tokens.values(), new])
        return f"hnn_{token_id}_{secret}"

    def remove(self, name: str) -> Token:
        """The token of that name, which is refused from now on; raises NotFoundError."""
        with self._changing():
            tokens = self._read()
            found = [one for one in tokens.values() if one.name == name]
            if not found:
                names = ", ".join(one.name for one in tokens.values()) or "none"
                raise NotFoundError(f"there is no token {name[:80]!r} in {self.path}; it has {names}")
            self._write([one for one in tokens.values() if one.name != name])
        return found[0]

    def check(self, token: str) -> Caller:
        """Whom a token stands for. Raises Unauthenticated, whose text holds nothing of the token."""
        parts = _TOKEN.fullmatch(token)
        token_id, secret = parts.groups() if parts else ("", "")
        found = self._read().get(token_id)
        # The same work whether the id is known or not; compared without telling where the first difference is.
        right = hmac.compare_digest(_hash(secret), found.sha256 if found else _NOBODY)
        if found is None or not right:
            # The caller must not hear which ids there are.
            _log.warning("a wrong token: %s", f"the id of {found.name!r} with another secret" if found else "its id is unknown")
            raise Unauthenticated("the token is not one of this service's; ask its operator for one (he-nn token add)")
        if found.expires and time.time() >= found.expires:
            raise Unauthenticated(f"token {found.name!r} has expired; ask the service's operator for a new one (he-nn token add)")
        return found.caller

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Until it ends, no other process or thread changes the file: what is read here is what the next write replaces.

        The lock is on a file beside it, because each write puts another file in the place of the first.
        """
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise self._unwritable(problem) from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as problem:
                raise self._unwritable(problem) from None
            with self._lock:
                self._seen = (None, {})  # two changes within one tick of the clock can look alike
            yield
        finally:
            os.close(handle)

    def _unwritable(self, problem: OSError) -> EngineError:
        return EngineError(f"the token file {self.path} cannot be written: {problem.strerror}")

    def _read(self) -> dict[str, Token]:
        try:
            with open(self.path, encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                key = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)
                with self._lock:
                    if self._seen[0] == key:
                        return self._seen[1]
                tokens = self._parse(file.read(), status.st_mode)
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as problem:
            raise ParameterError(f"the token file {self.path} cannot be read: {getattr(problem, 'strerror', 'it is not text')}") from None
        with self._lock:
            self._seen = (key, tokens)
        return tokens

    def _parse(self, text: str, mode: int) -> dict[str, Token]:
        if mode & 0o077:
            raise ParameterError(f"the token file {self.path} is open to other users: chmod 600 {self.path}")
        try:
            tokens = [_checked(values) for values in json.loads(text)["tokens"]]
        except (ValueError, KeyError, TypeError, AttributeError, ParameterError):
            # Nothing of the file's content: it may be another file, with something secret in it.
            raise ParameterError(f"the token file {self.path} is damaged; put back a copy, or remove it and make new tokens") from None
        return {one.token_id: one for one in tokens}

    def _write(self, tokens: Sequence[Token]) -> None:
        """The whole file at once, so that a service never reads half of it."""
        text = json.dumps({"tokens": [asdict(one) for one in tokens]}, indent=1)
        try:
            handle, temporary = tempfile.mkstemp(prefix=".tokens", dir=str(self.path.parent))  # mode 0600
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as problem:
            raise self._unwritable(problem) from None


def default_tokens() -> Path:
    """Where tokens are kept unless an option says otherwise: $HE_NN_HOME (or ~/.he_nn)/tokens.json."""
    home = os.environ.get("HE_NN_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".he_nn") / "tokens.json"


def _checked(values: Mapping[str, Any]) -> Token:
    name, role, models = values["name"], values["role"], values["models"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ParameterError(f"name: {str(name)[:80]!r}; allowed: letters, digits, '.', '_', '@' and '-', at most 64 characters")
    if role not in ROLES:
        raise ParameterError(f"role: {str(role)[:80]!r}; allowed: {', '.join(ROLES)}")
    if not isinstance(models, list) or len(models) > MOST_MODELS:
        raise ParameterError(f"models: allowed are at most {MOST_MODELS} types, names or ids")
    for model in models:
        if not isinstance(model, str) or not _MODEL.fullmatch(model):
            raise ParameterError(f"model: {str(model)[:80]!r}; allowed: a model's type, name or id")
    created, expires = values["created"], values["expires"]
    if type(created) is not int or type(expires) is not int or not re.fullmatch(r"[0-9a-f]{64}", values["sha256"]):
        raise ParameterError("a token's times or hash are damaged")
    if not re.fullmatch(r"[0-9a-f]{12}", values["token_id"]):
        raise ParameterError("a token's id is damaged")
    return Token(values["token_id"], name, role, tuple(models), created, expires, values["sha256"])


def _days(days: int) -> int:
    if type(days) is not int or not 0 < days <= MOST_DAYS:
        raise ParameterError(f"days: {days!r}; allowed: 1 to {MOST_DAYS}, or 0 for a token that does not expire")
    return days


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8")).hexdigest()
