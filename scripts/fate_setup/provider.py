"""Tells a running FATE Flow 1.x of the provider (`flow provider register`), over its REST interface."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

from .deployment import Deployment, SetupError

NAME = "fate_sql"  # FATE Flow 1.x takes fate, fate_flow and fate_sql alone


def register(deployment: Deployment, path: Path, version: str, address: str = "") -> str:
    """FATE Flow's address, after it took the provider. Raises SetupError when it does not answer or refuses."""
    address = address or address_of(deployment)
    body = {"name": NAME, "version": re.sub(r"[^0-9.]", "", version) or "1.0", "path": str(path)}
    answer = post(address, "provider/register", body)
    if answer.get("retcode") != 0:
        raise SetupError(f"FATE Flow at {address} refused the provider: {answer.get('retmsg')}")
    return address


def address_of(deployment: Deployment) -> str:
    """host:port of FATE Flow in conf/service_conf.yaml. Raises SetupError when it is not there."""
    assert deployment.base is not None
    path = deployment.base / "conf" / "service_conf.yaml"
    section = ""
    if path.is_file():
        match = re.search(r"^fateflow:\s*\n((?:[ \t#].*\n|\s*\n)+)", path.read_text(encoding="utf-8") + "\n", re.MULTILINE)
        section = match.group(1) if match else ""
    host = re.search(r"^\s+host:\s*(\S+)", section, re.MULTILINE)
    port = re.search(r"^\s+http_port:\s*(\d+)", section, re.MULTILINE)
    if not host or not port:
        raise SetupError(f"{path} does not say where FATE Flow listens: name it with --flow HOST:PORT")
    return f"{host.group(1)}:{port.group(1)}"


def post(address: str, endpoint: str, body: Any) -> Any:
    """FATE Flow's answer. Raises SetupError when it cannot be reached."""
    request = urllib.request.Request(
        f"http://{address}/v1/{endpoint}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy must not see calls to one's own FATE Flow
    try:
        with opener.open(request, timeout=120) as response:
            return json.loads(response.read())
    except (OSError, ValueError) as problem:
        raise SetupError(f"FATE Flow at {address} does not answer ({problem}); start it, then run this again") from None
