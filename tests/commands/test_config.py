"""Settings of the services: flags over environment over file over defaults; and the commands for tokens and certificates."""

from __future__ import annotations

import json
import os
import stat

import click
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.exc import OperationalError

from he_backend import database
from he_backend.access.tokens import TokenFile
from he_backend.cli import main
from he_backend.errors import ParameterError

pytestmark = pytest.mark.skipif(not hasattr(click.Context, "get_parameter_source"), reason="the services need click 8.1")


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("HE_NN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HE_NN_HOME", str(tmp_path / "home"))

    def run(*arguments, **environment):
        return CliRunner().invoke(main, [str(one) for one in arguments], env=environment)

    return run


def settings(done):
    """Name -> (value, source) of what --show-config printed."""
    assert done.exit_code == 0, done.output
    found = {}
    for line in done.output.splitlines():
        name, equals, rest = line.partition(" = ")
        if equals:
            value, _, source = rest.rpartition("  # ")
            found[name] = (json.loads(value), source)
    return found


@pytest.mark.parametrize("command, prefix", [("serve", "HE_NN_SERVER"), ("client-serve", "HE_NN_CLIENT")])
def test_flags_beat_the_environment_which_beats_the_file_which_beats_defaults(run, tmp_path, command, prefix):
    path = tmp_path / "he-nn.toml"
    path.write_text(f"[{command}]\nqueue = 1\nworkers = 3\nhttp-port = 4\nlog_format = 'json'\nallow-anonymous = true\n")

    given = run(command, "--config", path, "--show-config", "--queue", 9, **{f"{prefix}_QUEUE": "8", f"{prefix}_WORKERS": "7"})

    found = settings(given)
    assert found["queue"] == (9, "flag") and found["workers"] == (7, "environment") and found["http-port"] == (4, "file")
    assert found["log-format"] == ("json", "file") and found["allow-anonymous"] == (True, "file")
    assert found["max-requests"] == (256, "default") and "# tls-cert is not set" in given.output


def test_what_is_shown_is_a_configuration_file(run, tmp_path):
    path = tmp_path / "shown.toml"
    first = run("serve", "--show-config", "--port", 5, "--host", "::1", "--tokens", "/x")
    path.write_text(first.output)

    again = settings(run("serve", "--show-config", HE_NN_CONFIG=str(path)))

    assert again["port"] == (5, "file") and again["host"] == ("::1", "file") and again["tokens"] == ("/x", "file")
    assert again["workers"] == (2, "file")


def test_a_password_is_not_shown(run):
    shown = run("serve", "--show-config", HE_NN_DATABASE="postgresql://user:very-secret@host/base")

    assert "very-secret" not in shown.output and settings(shown)["database"] == ("postgresql://user:***@host/base", "environment")
    assert "very-secret" not in run("serve", "--show-config", "--database", "very-secret").output


@pytest.mark.parametrize("name", ["password", "passwd", "PASSWORD", "sslpassword", "oauth_client_secret"])
def test_a_password_among_the_parameters_of_a_url_is_not_shown(run, name):
    url = f"postgresql://host/base?user=u&{name}=very-secret&passfile=/run/pgpass&{name}=another-secret"

    shown = run("serve", "--show-config", "--database", url, "--registry-database", url)

    assert "-secret" not in shown.output
    base, _, query = settings(shown)["database"][0].partition("?")
    assert base == "postgresql://host/base" and sorted(query.split("&")) == sorted(["user=u", f"{name}=***", "passfile=%2Frun%2Fpgpass"])
    assert settings(shown)["registry-database"] == settings(shown)["database"]


def test_a_password_is_not_in_the_error_of_a_database_that_cannot_be_opened(run):
    done = run("model", "list", "--registry-database", "postgresql://127.0.0.1:1/base?user=u&password=very-secret")

    assert done.exit_code == 1 and "password=***" in done.output and "cannot be opened" in done.output
    assert "very-secret" not in done.output


def test_a_password_that_a_driver_repeats_is_not_passed_on(monkeypatch):
    def refused(*_):
        raise OperationalError("SELECT 1", {}, Exception("no such user u:first-secret or second-secret"))

    monkeypatch.setattr(database, "_create_tables", refused)

    with pytest.raises(ParameterError, match=r"cannot be opened: no such user u:\*\*\* or \*\*\*$"):
        database.open_database("postgresql://u:first-secret@host/base?passwd=second-secret", sa.MetaData(), "the base's")


@pytest.mark.parametrize(
    "text, says",
    [
        ("[serve]\nquue = 1", "has quue; allowed: advertise, allow-anonymous"),
        ("[serve]\nqueue = 'many'", "queue"),
        ("[serve]\nqueue = -1", "queue"),
        ("[serve]\nhttp-port = [1, 2]", "http-port in [serve] of"),
        ("[serve]\nhttp-port = 2020-01-01", "is a date or time; allowed: one number"),
        ("[serve]\ndatabase = ['very-secret']", "is a list; allowed: one number, one text"),
        ("[serve]\nqueue = {a = 1}", "is a table; allowed"),
        ("[serve]\nallow-origin = 'https://x'", "is one value; allowed: a list of texts"),
        ("[serve]\nallow-origin = [['x']]", "is a list; allowed: a list of texts"),
        ("serve = 1", "is not a table"),
        ("[serve", "is not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused(run, tmp_path, text, says):
    path = tmp_path / "he-nn.toml"
    path.write_text(text)

    done = run("serve", "--config", path, "--show-config")

    assert done.exit_code == 2 and says in done.output and "very-secret" not in done.output


def test_a_file_that_is_missing_is_refused(run, tmp_path):
    done = run("serve", "--config", tmp_path / "nothing.toml")

    assert done.exit_code == 2 and "cannot be read: No such file" in done.output


@pytest.mark.parametrize("command", ["serve", "client-serve"])
@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--host", "0.0.0.0"], "nobody would be asked for a token"),
        (["--host", "0.0.0.0", "--allow-anonymous"], "in the clear"),
        (["--tokens", "/nothing/tokens.json"], "he-nn token add NAME --tokens /nothing/tokens.json"),
        (["--tls-cert", "/nothing.pem"], "belong together"),
        (["--tls-cert", "/nothing.pem", "--tls-key", "/nothing.pem"], "cannot be read"),
        (["--client-ca", "/nothing.pem"], "--client-ca: /nothing.pem cannot be read"),
    ],
)
def test_services_do_not_start_unprotected_or_with_files_that_are_none(run, command, arguments, says):
    done = run(command, "--http-port", 0, *arguments)

    assert done.exit_code == 1 and says in done.output


def test_tokens_by_command(run, tmp_path):
    made = run("token", "add", "alice", "--model", "MLP", "--model", "CNN", "--days", 3)
    token = made.output.strip()

    file = TokenFile(tmp_path / "home" / "tokens.json")
    assert made.exit_code == 0 and file.check(token).models == ("MLP", "CNN")
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    shown = run("token", "list").output
    assert "alice  user  MLP, CNN" in shown and "until" in shown and token.split("_", 2)[2] not in shown
    assert [one["name"] for one in json.loads(run("token", "list", "--json").output)] == ["alice"]
    assert run("token", "add", "alice").exit_code == 1
    assert run("token", "rm", "alice").output == "removed alice\n" and "no tokens" in run("token", "list").output
    assert run("token", "rm", "alice").exit_code == 1


def test_a_development_authority_by_command(run, tmp_path):
    done = run("dev-ca", tmp_path / "tls", "--host", "he.example.org")

    assert done.exit_code == 0 and len(done.output.splitlines()) == 6 and (tmp_path / "tls" / "server.pem").exists()
    assert "already: --renew" in run("dev-ca", tmp_path / "tls").output
