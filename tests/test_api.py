"""Addresses of the services, as users write them."""

from __future__ import annotations

import pytest

from he_backend.access.credentials import Credentials
from he_backend.api import HEClient, HEServer, parse_url
from he_backend.errors import ParameterError


@pytest.mark.parametrize(
    "given, url",
    [
        ("127.0.0.1:12993", "http://127.0.0.1:12993"),
        ("https://he.example.org:1/", "https://he.example.org:1"),
        ("[::1]:12993", "http://[::1]:12993"),
        ("https://[2001:db8::7]:443", "https://[2001:db8::7]:443"),
        ("http://bücher.example.:80", "http://bücher.example.:80"),
    ],
)
@pytest.mark.parametrize("kind", [HEServer, HEClient])
def test_a_services_url_names_the_same_service_again(kind, given, url):
    assert kind(given, credentials=Credentials()).url == url
    assert kind(url, credentials=Credentials()).url == url


def test_an_ipv6_host_is_kept_without_brackets():
    assert parse_url("[::1]:80") == parse_url("http://[::1]:80") == (False, "::1", 80)


@pytest.mark.parametrize(
    "wrong",
    ["", "host", "::1:80", "[::1]", "[::1:80", "http://a..b:80", f"{'a' * 64}:80", f"x.{'a' * 70}.org:80", ".a:80", "a b:80", "ftp://a:1"],
)
def test_what_is_no_address_is_told_by_the_field(wrong):
    with pytest.raises(ParameterError, match="server_url: .*; allowed: host:port"):
        HEServer(wrong, credentials=Credentials())


def test_the_ciphertext_channel_of_an_ipv6_host_has_brackets(monkeypatch):
    server = HEServer("[::1]:80", credentials=Credentials())
    monkeypatch.setattr(HEServer, "health", lambda self: {"ciphertext_port": 34000})

    assert server.ciphertext_address() == "[::1]:34000"
