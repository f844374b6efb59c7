"""Lists that commands print: pages of the cloud, tables, and words that cannot control the terminal."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memoair_cli.cloud_client import request

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

_PAGE_SIZE = 500

AsJson = Annotated[bool, typer.Option("--json", help="Print the cloud's reply as JSON.")]
MaxItems = Annotated[int, typer.Option("--limit", min=1, help="Print at most so many.")]


def iterate_items(
    cloud: "CloudHttp", path: str, key: str, headers: Mapping[str, str], **filters: str | None
) -> Iterator[dict[str, Any]]:
    """Yield the items of a list of the cloud, page by page.

    Args:
        cloud: The connection.
        path: The path of the list.
        key: The name of the items in a page.
        headers: The headers of the requests.
        filters: Parameters of the query; those that are None are left out.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    cursor: str | None = None
    while True:
        query = urlencode({**given, "limit": _PAGE_SIZE, **({"cursor": cursor} if cursor else {})})
        page = request(cloud, "GET", f"{path}?{query}", headers)
        yield from page[key]
        cursor = page.get("next")
        if cursor is None:
            return


def print_items(
    items: Iterable[Mapping[str, Any]], columns: Mapping[str, Any], *, max_items: int, as_json: bool, nothing: str
) -> None:
    """Print a list as a table, or as one JSON array.

    Args:
        items: The items.
        columns: By title, the function that returns an item's cell.
        max_items: The number of items after which the list ends; a note on standard error says so.
        as_json: Whether to print JSON.
        nothing: What to print on standard error if the list is empty.
    """
    found = list(islice(items, max_items + 1))
    shown = found[:max_items]
    if as_json:
        typer.echo(json.dumps(shown, ensure_ascii=False))
    elif not shown:
        typer.echo(nothing, err=True)
    else:
        print_table(list(columns), [[cell(item) for cell in columns.values()] for item in shown])
    if len(found) > max_items:
        typer.echo(f"only the first {max_items:,} are shown; pass a larger --limit for more", err=True)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows below titles. Nothing in a cell is markup, and no cell is cut unless a terminal is too narrow."""
    console = Console(highlight=False)
    table = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(escape(make_printable(str(cell))) for cell in row))
    console.print(table, soft_wrap=not console.is_terminal)


def make_printable(text: str) -> str:
    """Return text in which every character that could control a terminal is a space. Line feeds stay."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def format_time(timestamp: str | None) -> str:
    """Return a timestamp of the cloud to the minute, in UTC; empty for None."""
    return f"{timestamp[:10]} {timestamp[11:16]}" if timestamp else ""


def cell(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return the function that returns a field of an item."""
    return lambda item: item[name]


def time_cell(name: str) -> Callable[[Mapping[str, Any]], str]:
    """Return the function that returns a time of an item, to the minute."""
    return lambda item: format_time(item[name])


def print_fields(reply: Mapping[str, Any], as_json: bool) -> None:
    """Print the fields of one thing, one a line, or as JSON."""
    if as_json:
        typer.echo(json.dumps(reply, ensure_ascii=False))
        return
    for name, value in reply.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"{name}: {make_printable(text)}")
