"""Who may use which model: on the ciphertext channel, and in the registry as a request sees it."""

from __future__ import annotations

import uuid

import pytest

import he_backend as he
from he_backend.access.callers import ADMIN, LOCAL, Caller
from he_backend.access.credentials import Credentials
from he_backend.access.gate import TokenGate
from he_backend.access.tokens import TokenFile
from he_backend.client.connect import hosts_of, open_link
from he_backend.errors import NotFoundError, NotPermitted, ParameterError, Unauthenticated
from he_backend.server.models import RegistryModels
from he_backend.server.permitted import PermittedRegistry
from he_backend.server.registry import Registry
from he_backend.server.serving import task_id
from he_backend.web.callers import calling
from he_backend.zoo import shipped
from tests.parties import digits

NETWORK = shipped("MLP", "digits").onnx_path


@pytest.fixture(scope="module")
def rows():
    return digits(4)[1]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    store = Registry(tmp_path_factory.mktemp("models"))
    return store, store.add(NETWORK, "MLP"), store.add(NETWORK, "CNN")


@pytest.fixture
def tokens(tmp_path):
    return TokenFile(tmp_path / "tokens.json")


@pytest.fixture
def channel(registry, tokens):
    told = []
    server = he.Server(models=RegistryModels(registry[0]), gate=TokenGate(tokens), observe=told.append)
    handle = server.start("127.0.0.1:0")
    yield f"127.0.0.1:{handle.port}", told
    handle.stop(1.0)


def infer(address, model, rows, token, task=""):
    client = he.Client(open_link(address, Credentials(token), task), preset="N11_L1")
    try:
        return client.infer(model, rows).output.shape
    finally:
        client.close()


def test_the_channel_asks_for_a_token_as_soon_as_there_is_one(channel, tokens, rows, caplog):
    address, _ = channel
    assert infer(address, "latest", rows, "") == (4, 10)

    alice = tokens.add("alice")

    assert infer(address, "latest", rows, alice) == (4, 10)
    for wrong in ("", "x", alice[:-2] + "zz"):
        with pytest.raises(Unauthenticated, match="token"):
            infer(address, "latest", rows, wrong)
    assert "was refused" in caplog.text and alice.split("_", 2)[2] not in caplog.text


def test_a_token_opens_the_models_it_names_alone(channel, registry, tokens, rows, caplog):
    address, _ = channel
    _, mlp, cnn = registry
    some = tokens.add("some", models=["MLP"])
    one = tokens.add("one", models=[cnn.model_name.upper()])

    assert infer(address, mlp.model_id, rows, some) == infer(address, cnn.model_id, rows, one) == (4, 10)
    for model, token in ((cnn.model_id, some), (mlp.model_name, one), ("latest", some), ("nothing-there", some)):
        with pytest.raises(NotPermitted, match="may not use this model") as refused:
            infer(address, model, rows, token)
        assert mlp.model_name not in str(refused.value) and cnn.model_name not in str(refused.value)
    assert sum("token 'some' may not use" in one.message and one.caller == "some" for one in caplog.records) == 3


def test_a_model_that_is_no_longer_permitted_is_refused_in_the_middle_of_a_task(channel, registry, tokens, rows):
    address, _ = channel
    alice = tokens.add("alice")
    client = he.Client(
        open_link(address, Credentials(alice)), preset="N11_L1", progress=lambda at: at.round == 1 and tokens.remove("alice")
    )
    try:
        with pytest.raises(Unauthenticated):
            client.infer(registry[1].model_id, rows)
    finally:
        client.close()


def test_rounds_are_told_with_caller_task_model_and_bytes(channel, registry, tokens, rows):
    address, told = channel
    alice, task = tokens.add("alice"), str(uuid.uuid4())

    infer(address, registry[1].model_id, rows, alice, task)

    assert [(one.caller, one.task_id, one.model_name, one.segment) for one in told] == [
        ("alice", task, registry[1].model_name, index) for index in range(3)
    ]
    assert all(one.bytes_in > 1000 and one.bytes_out > 1000 and one.seconds > 0 for one in told)


def test_a_task_id_that_is_none_is_not_logged():
    assert task_id("x" * 36) == task_id("") == task_id("{" + "0" * 34 + "}") == ""
    assert task_id("6F9619FF-8B86-D011-B42D-00C04FC964FF") == "6f9619ff-8b86-d011-b42d-00c04fc964ff"


@pytest.mark.parametrize(
    "address", ["he.example.org:34000", "10.0.0.7:1", "ipv4:127.0.0.1:1,10.0.0.7:1", "dns:he.example.org:1", "dns:///x:1"]
)
def test_a_token_crosses_no_network_in_the_clear(address):
    with pytest.raises(ParameterError, match="in the clear"):
        open_link(address, Credentials("t"))


def test_hosts_of_addresses():
    assert hosts_of("localhost:1") == ["localhost"] and hosts_of("[::1]:1") == ["[::1]"]
    assert hosts_of("ipv4:127.0.0.1:1,127.0.0.2:1") == ["127.0.0.1", "127.0.0.2"] and hosts_of("dns:localhost:5") == ["localhost"]


# the registry


def test_a_caller_sees_the_models_it_may_use(registry):
    store, mlp, cnn = registry
    seen = PermittedRegistry(store.root)
    for caller, names in (
        (LOCAL, [mlp, cnn]),
        (Caller("every"), [mlp, cnn]),
        (Caller("some", models=("MLP",)), [mlp]),
        (Caller("one", models=(cnn.model_id,)), [cnn]),
        (Caller("none", models=("BERT",)), []),
    ):
        with calling(caller):
            assert [one.model_id for one in seen.list()] == [one.model_id for one in names]
    with calling(Caller("some", models=("MLP",))):
        assert seen.get("latest").model_id == mlp.model_id and seen.get(mlp.model_name, "MLP").model_id == mlp.model_id
        for name, model_type in ((cnn.model_name, None), (cnn.model_id, "CNN"), ("latest", "CNN"), ("nothing", None)):
            with pytest.raises(NotPermitted, match="may not use this model"):
                seen.get(name, model_type)
        with pytest.raises(NotFoundError) as missing:
            seen.get("nothing", "MLP")
        assert cnn.model_name not in str(missing.value)


def test_only_an_admin_registers_and_removes(registry):
    seen = PermittedRegistry(registry[0].root)
    for caller, says in ((Caller("a"), "role admin"), (Caller("b", ADMIN, ("CNN",)), "may not use")):
        with calling(caller), pytest.raises(NotPermitted, match=says):
            seen.add(NETWORK, "MLP")
    with calling(Caller("a")), pytest.raises(NotPermitted, match="role admin"):
        seen.remove(registry[1].model_id)
    with calling(Caller("root", ADMIN)):
        added = seen.add(NETWORK, "MLP")
        seen.remove(added.model_id)


def test_outside_of_a_request_nothing_is_permitted(registry):
    with pytest.raises(LookupError):
        PermittedRegistry(registry[0].root).list()
