"""The components by way of services that ask for tokens: these come from the environment, so that no job file holds one."""

from __future__ import annotations

import pytest

from he_backend.access.tokens import TokenFile
from he_backend.errors import NotPermitted, Unauthenticated
from he_nn.params import InferenceParams, LoadParams
from tests import processes
from tests.he_nn.test_roles import digits
from tests.he_nn.test_service import guest

ANY = {"model_type": "MLP", "is_encryption": True, "encryption_parameters": "N11_L1"}


def test_each_service_gets_its_own_token_from_the_environment(tmp_path, monkeypatch):
    homes = {name: tmp_path / name for name in ("server", "client")}
    for home in homes.values():
        home.mkdir()
    at_server, at_client = (TokenFile(home / "tokens.json") for home in homes.values())
    owner, party, passed_on = at_server.add("owner", "admin"), at_server.add("party"), at_server.add("he-client")
    user = at_client.add("user")
    monkeypatch.setenv("HE_NN_TOKEN", passed_on)  # what the HE-client's process shows to the server
    server = processes.server(homes["server"])
    client = processes.client(homes["client"], server.http)
    rows, plain = digits(8)
    load = LoadParams.of({"model_type": "MLP", "server_url": server.http})
    direct = InferenceParams.of({**ANY, "server_url": server.http})
    through = InferenceParams.of({**ANY, "server_url": server.http, "client_url": client.http, "client": True})
    try:
        monkeypatch.setenv("HE_NN_TOKEN", owner)
        bound = guest("load", load)[0]
        monkeypatch.setenv("HE_NN_TOKEN", party)
        monkeypatch.setenv("HE_NN_CLIENT_TOKEN", user)
        outputs = [guest("infer", params, rows)[0] for params in (direct, through)]

        with pytest.raises(NotPermitted, match="role admin"):
            guest("load", load)
        monkeypatch.delenv("HE_NN_CLIENT_TOKEN")
        with pytest.raises(Unauthenticated):
            guest("infer", through, rows)
        monkeypatch.delenv("HE_NN_TOKEN")
        with pytest.raises(Unauthenticated):
            guest("infer", direct, rows)
    finally:
        assert (client.stop(), server.stop()) == (0, 0)
    assert {one.artifact.model_id for one in outputs} == {bound.model_id}
    assert all(one.predictions.result == plain.argmax(axis=1).tolist() for one in outputs)
