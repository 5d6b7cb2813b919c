"""he-nn: the command line."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any

import click

from he_backend.version import VERSION

# Name -> module and object; a module is imported when its command is called or described.
_COMMANDS = {
    "demo": ("he_backend.commands.demo", "demo"),
    "infer": ("he_backend.commands.infer", "infer"),
    "plan": ("he_backend.commands.plan", "plan"),
    "eval": ("he_backend.commands.evaluate", "eval_command"),
    "convert": ("he_backend.commands.convert", "convert"),
    "train": ("he_backend.commands.train", "train"),
    "train-table": ("he_backend.commands.train_table", "train_table_command"),
    "model": ("he_backend.commands.model", "model"),
    "calibrate": ("he_backend.commands.calibrate", "calibrate"),
    "bench": ("he_backend.commands.bench", "bench"),
    "serve": ("he_backend.commands.serve", "serve"),
    "client-serve": ("he_backend.commands.client_serve", "client_serve"),
    "token": ("he_backend.commands.token", "token"),
    "dev-ca": ("he_backend.commands.dev_ca", "dev_ca"),
}
_PLUGINS = "he_nn.commands"  # entry points of packages that add commands, such as `job` of the FATE plugin


class _Lazy(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*_COMMANDS, *_plugins()})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in _COMMANDS:
            module, attribute = _COMMANDS[name]
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        plugin = _plugins().get(name)
        return plugin.load() if plugin is not None else None


def _plugins() -> dict[str, Any]:
    found: Any = metadata.entry_points()
    # Python 3.10 and newer select by group; older ones give a mapping.
    chosen = found.select(group=_PLUGINS) if hasattr(found, "select") else found.get(_PLUGINS, [])
    return {point.name: point for point in chosen}


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="he-nn")
def main() -> None:
    """Encrypted neural-network inference. Exit status: 0 done, 1 failed, 2 wrong usage."""


if __name__ == "__main__":
    main()
