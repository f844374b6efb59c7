"""``memoair cloud demo``: fill a new cloud, serve it, and open its dashboard, until Ctrl-C."""

import signal
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from memoair_cli.options import OptionalPath, fail
from memoair_protocol.installing import install_command
from memoair_protocol.temporary import remove_abandoned_folders, temporary_folder
from memoair_protocol.threads import ThreadUnavailableError, start_thread
from memoair_protocol.timestamps import utc_now

if TYPE_CHECKING:
    from fastapi import FastAPI

    from memoair_cloud.settings import CloudSettings

DEFAULT_CALLS = 200
_FOLDER_PREFIX = "memoair-cloud-demo-"
# One whose names and talks are well mixed in the first pages, which a visitor sees first.
_SEED = 19
_ZONE = "Europe/London"  # where the two phone lines are
_INTERRUPTED = 130


def demo(
    storage: Annotated[
        OptionalPath,
        typer.Option(help="Keep the cloud in this new or empty folder, instead of deleting it.", file_okay=False),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the dashboard in a browser.")] = True,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 picks a free one.")] = 0,
    calls: Annotated[int, typer.Option(min=1, max=5_000, help="The number of calls.")] = DEFAULT_CALLS,
) -> None:
    """Fill a new cloud with a month of calls of two phone lines, and open its dashboard. Ctrl-C ends it.

    Needs neither a key nor a network, and touches no other cloud.
    """
    _require_cloud()
    from memoair_cloud.starting import StartError

    console = Console(highlight=False)
    try:
        with _ending_like_ctrl_c(), _folder(storage) as folder:
            settings = _make_settings(folder, port)
            key = _fill(console, settings, calls)
            _serve(console, settings, key, opens_browser=browser)
            if storage is not None:
                _explain_kept_folder(console, settings, folder)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    except StartError as error:
        fail(str(error))


def _require_cloud() -> None:
    try:
        import memoair_cloud.serving  # noqa: F401 - imports everything of the extra
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("memoair_"):
            raise
        fail(f"{error.name} is not installed; run: {install_command('cloud')}")


@contextmanager
def _ending_like_ctrl_c() -> Iterator[None]:
    """Let other requests to end clean up, too: by a supervisor, or because the terminal was closed."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handlers: dict[int, Callable[..., None]] = {signal.SIGTERM: interrupt}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = lambda *_: signal.raise_signal(signal.SIGTERM)
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _folder(storage: Path | None) -> Iterator[Path]:
    """Yield an empty folder; remove it at the end, unless it is to be kept."""
    if storage is None:
        remove_abandoned_folders(_FOLDER_PREFIX)  # with a database each, of demos that were killed
        with temporary_folder(_FOLDER_PREFIX) as temporary:
            yield temporary
        return
    folder = storage.expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        fail(f"{folder} cannot be used: {error.strerror}")
    if not is_empty:
        fail(f"{folder} is not empty: the demo changes no existing cloud; choose a new folder")
    yield folder


def _make_settings(folder: Path, port: int) -> "CloudSettings":
    from memoair_cloud.settings import IsolatedSettings

    return IsolatedSettings(
        database_url=f"sqlite:///{(folder / 'cloud.db').as_posix()}",
        blob_url=(folder / "blobs").as_uri(),
        port=port,
        time_zone=_ZONE,
    )


def _fill(console: Console, settings: "CloudSettings", count: int) -> str:
    """Fill the cloud, and return the key of its account."""
    from zoneinfo import ZoneInfo

    from memoair_cli.cloud_demo.filling import fill_cloud
    from memoair_cli.cloud_demo.planning import plan_calls
    from memoair_cli.cloud_demo.script import load_lines
    from memoair_cloud.serving import open_services

    lines = load_lines()
    callers = sum(len(line.callers) for line in lines)
    console.print(f"[dim]{callers} callers phone two companies. What they say is scripted, what is recalled is not.[/]")
    calls = plan_calls(lines, utc_now(), ZoneInfo(_ZONE), count, _SEED)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with open_services(settings) as services, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("calls", total=len(calls) + len(lines))
        return fill_cloud(services, lines, calls, lambda: progress.advance(task)).key


def _serve(console: Console, settings: "CloudSettings", key: str, *, opens_browser: bool) -> None:
    from memoair_cli.cloud_demo.script import load_lines
    from memoair_cloud.serving import serve

    first_page = f"/dashboard/p/proj_{load_lines()[0].slug}?period=30d"

    def show_link(app: "FastAPI", url: str) -> None:
        link = url + app.state.one_time_links.issue(key, first_page)
        console.print(f"\nThe dashboard, for one sign-in within ten minutes:\n\n  {escape(link)}\n", soft_wrap=True)
        console.print("[dim]Ctrl-C ends it.[/]")
        if opens_browser:
            with suppress(ThreadUnavailableError):  # the link is shown
                start_thread(_open_browser, name="memoair-browser", args=(link,))

    serve(settings, on_started=show_link)


def _open_browser(link: str) -> None:
    with suppress(webbrowser.Error):
        # One without a window would take over the terminal.
        if type(webbrowser.get()) is not webbrowser.GenericBrowser:
            webbrowser.open(link)


def _explain_kept_folder(console: Console, settings: "CloudSettings", folder: Path) -> None:
    console.print(
        f"The cloud is kept in {escape(str(folder))}. To see it again, make a key and serve it:\n\n"
        f"  memoair cloud init --account demo --database-url '{settings.database_url}'\n"
        f"  memoair cloud serve --database-url '{settings.database_url}' --blob-url '{settings.blob_url}'",
        soft_wrap=True,
    )
