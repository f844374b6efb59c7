"""Commands that are imported when they are used, because each needs only some of our packages."""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup


class CommandSource(NamedTuple):
    """Where a command is: a function, or a `typer.Typer` with more commands."""

    module: str
    attribute: str
    is_hidden: bool = False


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name. Their names are known at once; what belongs to a name is imported when it is read."""

    def __init__(self, sources: Mapping[str, CommandSource]) -> None:
        self._commands: dict[str, Any] = dict(sources)

    def __getitem__(self, name: str) -> Any:
        command = self._commands[name]
        if isinstance(command, CommandSource):
            command = self._commands[name] = _import_command(name, command)
        return command

    def __setitem__(self, name: str, command: Any) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


def group_of(sources: Mapping[str, CommandSource]) -> type[TyperGroup]:
    """Return the class of a group that has these commands."""

    class LazyGroup(TyperGroup):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.commands = LazyCommands(sources)

    return LazyGroup


def _import_command(name: str, source: CommandSource) -> Any:
    found = getattr(import_module(source.module), source.attribute)
    parent = typer.Typer()
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name, hidden=source.is_hidden)
    else:
        parent.command(name, hidden=source.is_hidden)(found)
    return typer.main.get_group(parent).commands[name]
