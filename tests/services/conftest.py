"""Folders for the two services of a test, and their end with it."""

from __future__ import annotations

import pytest


@pytest.fixture
def homes(tmp_path):
    """(the HE-server's, the HE-client's)."""
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    return tmp_path / "server", tmp_path / "client"


@pytest.fixture
def running():
    """A list for services that the test starts; those that still run are killed."""
    services = []
    yield services
    for service in services:
        if service.process.poll() is None:
            service.kill()
