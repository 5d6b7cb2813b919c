"""The registry as the caller of the current request may use it: what a caller may not use is not there for it."""

from __future__ import annotations

from typing import Any

from he_backend.errors import NotFoundError
from he_backend.server.model_files import Source
from he_backend.server.registry import ALL, ModelRecord, Records, Registry
from he_backend.web.callers import current_caller


class PermittedRegistry(Registry):
    """A registry whose models are those that the current caller may use; only an admin registers and removes."""

    def list(self, model_type: str = "") -> Records:
        """The records of a type that the caller may use, oldest first."""
        caller = current_caller()
        records = super().list(model_type)
        if not caller.is_restricted:
            return records
        return [one for one in records if caller.may_use(one.model_type, one.model_name, one.model_id)]

    def get(self, name_or_id: str = "latest", model_type: str | None = None) -> ModelRecord:
        """As a registry's. Raises NotPermitted where a restricted caller names what it may not use, whether it is there or not."""
        try:
            return super().get(name_or_id, model_type)
        except NotFoundError:
            caller, named = current_caller(), (name_or_id or "").strip()
            of_type = model_type or ALL
            if caller.is_restricted and (named.lower() not in ("", "latest") or of_type.lower() != ALL):
                caller.need_use(named, of_type)
            raise

    def add(self, model: Source, model_type: str, **more: Any) -> ModelRecord:
        """As a registry's. Raises NotPermitted unless the caller is an admin who may use models of the type."""
        caller = current_caller()
        caller.need_admin("registering a model (is_init 1)")
        caller.need_use(model_type)
        return super().add(model, model_type, **more)

    def remove(self, name_or_id: str) -> ModelRecord:
        """As a registry's. Raises NotPermitted unless the caller is an admin."""
        current_caller().need_admin("removing a model")
        return super().remove(name_or_id)
