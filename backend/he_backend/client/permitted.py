"""The HE-server as the HE-client's caller may use it: requests about a model that it may not use go no further."""

from __future__ import annotations

from typing import Any, Mapping

from he_backend.access.callers import Caller
from he_backend.access.credentials import Credentials
from he_backend.api import HEServer, Model
from he_backend.errors import NotFoundError

_LIST, _LOAD = "/model/get_list", "/model/load"


class PermittedServer(HEServer):
    """An HE-server for one caller of this HE-client."""

    def __init__(self, url: str, caller: Caller, credentials: Credentials, timeout_s: float = 3600.0) -> None:
        super().__init__(url, timeout_s, credentials)
        self._caller = caller

    def post(self, path: str, **values: Any) -> dict[str, Any]:
        """The data that the path answers with. Raises NotPermitted."""
        model_type, model_name = str(values.get("model_type", "")), str(values.get("model_name", ""))
        if path == _LOAD and (values.get("is_init") == 1 or (values.get("is_init") is None and not model_name)):
            self._caller.need_admin("registering a model (is_init 1)")
            self._caller.need_use(model_type)
            return super().post(path, **values)
        if not self._caller.is_restricted:
            return super().post(path, **values)
        if path == _LIST:
            data = super().post(path, **values)
            models = data.get("model_list")
            return {**data, "model_list": [one for one in models if self._may_use(one)] if isinstance(models, list) else []}
        if "model_name" in values or "model_type" in values:
            # By its id: a name that the server resolves, such as latest, could be that of another.
            values = {**values, "model_name": self.find(model_type or "all", model_name).model_id}
        return super().post(path, **values)

    def find(self, model_type: str, model_name: str = "latest") -> Model:
        """As an HEServer's, among the models that the caller may use. Raises NotPermitted where it names another, there or not."""
        try:
            return super().find(model_type, model_name)
        except NotFoundError:
            self._caller.need_use(model_type, model_name)
            raise

    def _may_use(self, model: Any) -> bool:
        words = (str(model.get(name, "")) for name in ("model_type", "model_name", "model_id")) if isinstance(model, Mapping) else ()
        return self._caller.may_use(*words)
