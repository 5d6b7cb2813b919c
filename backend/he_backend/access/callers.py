"""Who a call is from, and what that caller may do."""

from __future__ import annotations

from dataclasses import dataclass

from he_backend.errors import NotPermitted

USER, ADMIN, MONITOR = "user", "admin", "monitor"
ROLES = (USER, ADMIN, MONITOR)


@dataclass(frozen=True)
class Caller:
    """A caller by name and role; `models` are the types, names or ids that it may use (none: all).

    A user infers with models, evaluates them and sees its own inferences and files; an admin also registers models and sees every
    inference; a monitor reads the metrics and nothing else.
    """

    name: str
    role: str = USER
    models: tuple[str, ...] = ()

    @property
    def is_admin(self) -> bool:
        """Whether it may do what is the operator's."""
        return self.role == ADMIN

    @property
    def is_restricted(self) -> bool:
        """Whether it may use some models only."""
        return bool(self.models)

    def may_use(self, *names: str) -> bool:
        """Whether it may use a model with these names: its type, its name, its id."""
        if self.role == MONITOR:
            return False
        allowed = {name.lower() for name in self.models}
        return not allowed or any(name.lower() in allowed for name in names if name)

    def need_use(self, *names: str) -> None:
        """Raises NotPermitted unless it may use a model with these names."""
        if not self.may_use(*names):
            raise NotPermitted(f"token {self.name!r} may not use this model; the service's operator can allow it")

    def need_admin(self, what: str) -> None:
        """Raises NotPermitted unless it is an admin; `what` says what needs one."""
        if not self.is_admin:
            raise NotPermitted(f"{what} needs a token with role admin; token {self.name!r} has role {self.role}")

    def sees(self, owner: str) -> bool:
        """Whether the inferences that `owner` asked for are shown to it."""
        return self.is_admin or owner == self.name


LOCAL = Caller("local", ADMIN)  # whoever reaches a service that asks nobody for a token
