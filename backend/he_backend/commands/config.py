"""Settings of a service: flags over environment over configuration file over defaults, and a way to see them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Collection, Mapping

import click

from he_backend.database import shown_url
from he_backend.errors import EngineError, ParameterError

_OWN = ("config", "show_config", "help")
_KINDS: Mapping[type, str] = {list: "a list", dict: "a table"}
_SOURCES = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "file"}


def with_config(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --config and --show-config. Use with context_settings=config_context(PREFIX), so that the environment is read."""
    show = click.option(
        "--show-config", is_flag=True, expose_value=False, callback=_show, help="Print the settings, each with where it is from, and end."
    )
    config = click.option(
        "--config",
        type=click.Path(dir_okay=False),
        envvar="HE_NN_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="TOML file; its table [serve] or [client-serve] holds options by their names.",
    )
    return config(show(command))


def config_context(prefix: str) -> dict[str, Any]:
    """click's settings for a command whose option --some-name is also read from PREFIX_SOME_NAME."""
    return {"auto_envvar_prefix": prefix}


def read_config(path: str, section: str, names: Mapping[str, str], several: Collection[str] = ()) -> dict[str, Any]:
    """The settings in a table of a TOML file, by parameter; `names` maps option names to parameters. Raises ParameterError.

    Parameters in `several` take a list, the others one value.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ParameterError(f"--config: {path} cannot be read: {getattr(problem, 'strerror', None) or 'it is not text'}") from None
    loads, error = _toml()
    try:
        table = loads(text).get(section, {})
    except error as problem:
        raise ParameterError(f"--config: {path} is not TOML: {problem}") from None
    if not isinstance(table, dict):
        raise ParameterError(f"--config: {section} in {path} is not a table: write [{section}], then one setting a line")
    given = {name.replace("_", "-"): value for name, value in table.items()}
    unknown = sorted(given.keys() - names.keys())
    if unknown:
        raise ParameterError(f"--config: [{section}] in {path} has {', '.join(unknown)}; allowed: {', '.join(sorted(names))}")
    for name, value in given.items():
        many = names[name] in several
        one = isinstance(value, (str, int, float))
        if not (many and isinstance(value, list) and all(isinstance(each, str) for each in value)) and (many or not one):
            allowed = "a list of texts in quotes" if many else "one number, one text in quotes, true or false"
            kind = _KINDS.get(type(value), "one value" if one else "a date or time")  # not the value: it may hold a password
            raise ParameterError(f"--config: {name} in [{section}] of {path} is {kind}; allowed: {allowed}")
    return {names[name]: value for name, value in given.items()}


def _toml() -> tuple[Callable[[str], dict[str, Any]], type[Exception]]:
    try:
        import tomllib  # Python 3.11 and newer  # novermin

        return tomllib.loads, tomllib.TOMLDecodeError
    except ImportError:
        pass
    try:
        import tomli

        return tomli.loads, tomli.TOMLDecodeError
    except ImportError:
        raise EngineError("--config: before Python 3.11, a TOML file needs tomli: pip install 'he-nn[server]'") from None


def _read(context: click.Context, _: click.Parameter, path: str | None) -> None:
    if path:
        try:
            several = [str(one.name) for one in context.command.params if isinstance(one, click.Option) and one.multiple]
            context.default_map = read_config(path, context.command.name or "", option_names(context.command), several)
        except (ParameterError, EngineError) as problem:
            raise click.UsageError(str(problem), context) from None


def _show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        context.meta["he_nn.show_config"] = True


def show_if_asked() -> None:
    """Ends the command after printing its settings as TOML, where --show-config was given. Passwords are left out."""
    context = click.get_current_context()
    if not context.meta.get("he_nn.show_config"):
        return
    click.echo(f"[{context.command.name}]")
    for name, parameter in sorted(option_names(context.command).items()):
        source = context.get_parameter_source(parameter)
        value = context.params[parameter]
        where = _SOURCES.get(source.name if source else "", "default")
        click.echo(f"# {name} is not set" if value in (None, ()) else f"{name} = {_value(name, value)}  # {where}")
    context.exit(0)


def option_names(command: click.Command) -> dict[str, str]:
    """Name of each option that a file may set, without dashes -> its parameter."""
    options = [one for one in command.params if isinstance(one, click.Option) and one.name not in _OWN]
    return {max(one.opts, key=len).lstrip("-"): str(one.name) for one in options}


def _value(name: str, value: Any) -> str:
    if name.endswith("database"):
        value = shown_url(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value)  # JSON's texts, numbers and lists are TOML's too
