"""The files to run the services with: every command, option and setting in them exists, and what they refer to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from he_backend.cli import main
from he_backend.commands.config import option_names, read_config

TOP = Path(__file__).resolve().parents[1]
DOCKER, SYSTEMD = TOP / "docker", TOP / "systemd"
COMPOSE = sorted(DOCKER.glob("*.compose.yaml"))
UNITS = sorted(SYSTEMD.glob("*.service"))


def command_of(name):
    command = main.get_command(click.Context(main), name)
    assert command is not None, f"there is no he-nn {name}"
    return command


def check(arguments):
    """Parses a command line of he-nn as the command itself would, without running it."""
    name, *rest = arguments
    command = command_of(name)
    if isinstance(command, click.Group):
        check_in = command.get_command(click.Context(command), rest[0])
        assert check_in is not None, arguments
        return check_in.name
    options = {one for parameter in command.params for one in parameter.opts}
    assert {one for one in rest if one.startswith("--")} <= options, arguments
    return name


def compose(path):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_run_commands_that_exist(path):
    services = compose(path)["services"]
    ours = [one for one in services.values() if one.get("image") == "he-nn"]

    assert len(ours) == 1
    for service in ours:
        assert check(service["command"]) == path.name.split(".")[0].replace("server", "serve").replace("client", "client-serve")
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DOCKER / "Dockerfile"
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
        compile(service["healthcheck"]["test"][-1], "healthcheck", "exec")
        for port in service["ports"]:
            assert port.split(":")[1] in re.search(r"EXPOSE (.*)", (DOCKER / "Dockerfile").read_text()).group(1).split()


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_what_compose_files_name_is_defined(path):
    document = compose(path)
    for service in document["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = source in document.get("volumes", {}) or (DOCKER / source).exists() or source.startswith(("./tls", "./secrets/"))
            assert known, f"{volume} is neither a volume nor made by what the page says"
        assert set(service.get("networks", [])) <= set(document.get("networks", {}))
        assert set(service.get("secrets", [])) <= set(document.get("secrets", {}))


@pytest.mark.parametrize("section", ["serve", "client-serve"])
def test_the_example_configuration_has_options_that_exist(section):
    found = read_config(str(DOCKER / "he-nn.toml"), section, option_names(command_of(section)))

    assert found["host"] == "0.0.0.0" and found["tls_cert"] and found["log_format"] == "json"
    assert "allow_anonymous" not in found and "allow_plaintext" not in found


def test_the_image_runs_he_nn_as_a_user_without_rights_and_takes_no_secrets_along():
    text = (DOCKER / "Dockerfile").read_text()
    ignored = (TOP / ".dockerignore").read_text().splitlines()

    assert re.search(r"^USER 10001$", text, re.M) and 'ENTRYPOINT ["he-nn"]' in text
    assert ignored[1] == "*"
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        for name in source.split():
            assert (TOP / name).exists() and f"!{name}" in ignored
    extras = set(re.search(r'"\.\[(.*)\]"', text).group(1).split(","))
    declared = (TOP / "setup.py").read_text()
    assert all(f'"{name}":' in declared for name in extras - {"postgresql"})


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_run_commands_that_exist_and_are_confined(path):
    settings = dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.M))
    executable, *arguments = shlex.split(settings["ExecStart"])

    assert executable.endswith("/bin/he-nn") and check(arguments) in path.name.replace("server", "serve").replace("client", "client-serve")
    assert settings["User"] == "he-nn" and settings["NoNewPrivileges"] == "yes" and settings["ProtectSystem"] == "strict"
    assert settings["CapabilityBoundingSet"] == "" and settings["StateDirectory"] in settings["Environment"]


def test_commands_on_the_page_exist():
    text = (TOP / "docs" / "operations.md").read_text()
    lines = [line.partition("#")[0] for block in re.findall(r"```\n(.*?)```", text, re.S) for line in block.splitlines()]
    commands = [line[line.index("he-nn ") :] for line in lines if re.match(r"(\S+/)?he-nn ", line)]

    assert len(commands) >= 5
    for command in commands:
        check(list(shlex.split(command)[1:]))
    for option in set(re.findall(r"`(--[a-z-]+)", text)):
        names = ("serve", "client-serve", "infer", "dev-ca")
        groups = [one for name in names for one in command_of(name).params] + list(command_of("token").commands["add"].params)
        assert any(option in one.opts for one in groups), option
