"""Fill templates. Everything that is not markup of a template is escaped, wherever it comes from."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from memoair_cloud.assets.files import asset_url
from memoair_cloud.dashboard.view import PERIODS

NOTHING = "-"  # in the place of a missing value
_SHOWN_METADATA_CHARS = 400


def render(
    request: Request, template: str, values: Mapping[str, Any] | None = None, status: int = HTTPStatus.OK
) -> Response:
    """Return a page.

    Args:
        request: The request that it answers.
        template: The name of the template.
        values: Its values. The visitor and the token of forms are there already.
        status: The HTTP status.
    """
    visitor = getattr(request.state, "visitor", None)
    context = {
        "visitor": visitor,
        "form_token": _FormToken(request),
        "path": request.url.path,
        "project": None,
        "view": None,
        "nav": "",
        **(values or {}),
    }
    return HTMLResponse(_environment().get_template(template).render(context), status)


def href(*parts: str, query: str = "") -> str:
    """Return the path of a page of the dashboard, with ids encoded.

    Args:
        *parts: The parts of the path below ``/dashboard``.
        query: Its query with the question mark, as `View.query` returns it.
    """
    return "/".join(["/dashboard", *(quote(part, safe="") for part in parts)]) + query


def format_time(moment: datetime | None, zone: tzinfo, form: str = "%Y-%m-%d %H:%M:%S %Z") -> Markup:
    """Return a moment as HTML, in a time zone that it names."""
    if moment is None:
        return Markup('<span class="muted">-</span>')
    local = moment.astimezone(zone)
    return Markup('<time datetime="{}">{}</time>').format(local.isoformat(), local.strftime(form).strip())


def format_duration(start: datetime | None, end: datetime | None) -> str:
    """Return the time between two moments, such as ``3:05``; a dash if one is unknown."""
    if start is None or end is None:
        return NOTHING
    seconds = max(0, int((end - start).total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def format_ms(value: float | None) -> str:
    """Return milliseconds with the digits that matter; a dash for None."""
    if value is None:
        return NOTHING
    return f"{value:.2f} ms" if value < 10 else f"{value:,.0f} ms"


def format_share(value: float | None) -> str:
    """Return a share from 0 to 1 as a percentage; a dash for None."""
    if value is None:
        return NOTHING
    return "<0.1 %" if 0 < value < 0.001 else f"{value * 100:.1f} %"


def format_json(value: Any) -> str:
    """Return metadata as short text."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_METADATA_CHARS else f"{text[:_SHOWN_METADATA_CHARS]}…"


def spaced(name: str) -> str:
    """Return a name in camel case as words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def safe_url(value: Any) -> str | None:
    """Return an address that a link may lead to: http or https, with a host. Others (``javascript:``) are None."""
    if not isinstance(value, str) or any(char <= " " for char in value):
        return None
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    return value if parts.scheme in ("http", "https") and parts.netloc else None


def mark_spans(text: str, spans: Iterable[tuple[int, int]]) -> Markup:
    """Return a text as HTML in which parts are marked.

    Args:
        text: The text; it is escaped.
        spans: The parts to mark, as start and end, in order and without overlaps.
    """
    pieces, position = [], 0
    for start, end in spans:
        pieces += [escape(text[position:start]), Markup("<mark>{}</mark>").format(text[start:end])]
        position = end
    return Markup("").join([*pieces, escape(text[position:])])


class _FormToken:
    """The hidden field that each form carries. Signed only if the page has a form."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __html__(self) -> str:
        from_state = getattr(self._request.state, "make_form_token", None)
        token = from_state() if from_state else ""
        return Markup('<input type="hidden" name="form_token" value="{}">').format(token)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("memoair_cloud.dashboard", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(asset=asset_url, href=href, mark_spans=mark_spans, periods=list(PERIODS))
    environment.filters.update(
        time=format_time, ms=format_ms, share=format_share, short_json=format_json, safe_url=safe_url, spaced=spaced
    )
    environment.globals.update(duration=format_duration)
    return environment
