"""New models of a type: of the zoo's from the weights that come with the package, otherwise of what a user added."""

from __future__ import annotations

from he_backend import zoo
from he_backend.errors import NotFoundError
from he_backend.server.registry import ModelRecord, Registry


def register(registry: Registry, model_type: str) -> ModelRecord:
    """A new record of a model of that type: the zoo's, or the newest registered one of the type once more, under a name of its own.

    Raises NotFoundError for a type that is neither.
    """
    try:
        network = zoo.shipped(model_type)
    except NotFoundError as missing:
        return registry.add_again(model_type, str(missing))
    return registry.add(network.onnx_path, network.model_type, test=network.load_test(), test_acc=network.test_acc, meta=network.describe())
