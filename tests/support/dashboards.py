"""Dashboards for tests: a filled project, and people who visit it over HTTP, with cookies and without JavaScript."""

import html
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urljoin, urlsplit

import attrs
import urllib3

from memoair_protocol.timestamps import format_utc, utc_now
from support.clouds import Client, RunningCloud, recall_trace, session_end, session_start, turn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FORM_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


class Page(NamedTuple):
    """A page as a person gets it."""

    status: int
    text: str
    headers: Any
    path: str

    @property
    def form_token(self) -> str:
        """The token that its forms carry."""
        match = _FORM_TOKEN.search(self.text)
        assert match, self.text
        return html.unescape(match[1])


class Visitor:
    """A person with a browser that has cookies and no JavaScript."""

    def __init__(self, url: str, **headers: str) -> None:
        self.url, self.headers = url, headers
        self.cookies: dict[str, str] = {}
        self._http = urllib3.PoolManager(maxsize=2, timeout=30, retries=False)

    def close(self) -> None:
        self._http.clear()

    def request(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str] | Sequence[tuple[str, str]] | tuple[bytes, str] | None = None,
        **headers: str,
    ) -> Page:
        """Send a request, and do not follow a redirect."""
        all_headers = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.cookies:
            all_headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = None
        if isinstance(fields, tuple):  # a body, and its type
            body, all_headers["Content-Type"] = fields  # type: ignore[assignment]
        elif fields is not None:
            body = urlencode(fields).encode()
            all_headers["Content-Type"] = "application/x-www-form-urlencoded"
        response = self._http.request(method, urljoin(self.url, path), body=body, headers=all_headers, redirect=False)
        for cookie in response.headers.getlist("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
            if "max-age=0" in cookie.lower():
                del self.cookies[name]
        return Page(response.status, response.data.decode(), response.headers, path)

    def get(self, path: str, **headers: str) -> Page:
        """Get a page; follow redirects within the server."""
        page = self.request("GET", path, **headers)
        while page.status in (302, 303, 307):
            location = page.headers["location"]
            assert not urlsplit(location).netloc, location
            page = self.request("GET", location, **headers)
        return page

    def post(self, path: str, form_on: str, **fields: str) -> Page:
        """Send a form of a page; follow the redirect after it."""
        token = self.get(form_on).form_token
        page = self.request("POST", path, {"form_token": token, **fields})
        return self.get(page.headers["location"]) if page.status == 303 else page

    def post_files(self, path: str, form_on: str, files: Mapping[str, bytes], **fields: str) -> Page:
        """Send a form with files of a page; follow the redirect after it."""
        parts: list[Any] = [("form_token", self.get(form_on).form_token), *fields.items()]
        parts += [("files", (name, content, "application/octet-stream")) for name, content in files.items()]
        page = self.request("POST", path, urllib3.encode_multipart_formdata(parts))
        return self.get(page.headers["location"]) if page.status == 303 else page

    def sign_in(self, key: str, next_path: str = "/dashboard") -> Page:
        """Sign in with a key."""
        return self.post("/dashboard/sign-in", "/dashboard/sign-in", key=key, next=next_path)


@attrs.frozen
class Dashboard:
    """A server with a filled project.

    Attributes:
        cloud: The server.
        client: A client of the account, in the project.
        project_id: The project.
        user_id: A caller with two calls, facts and traces.
    """

    cloud: RunningCloud
    client: Client
    project_id: str
    user_id: str

    def path(self, *parts: str, **query: str) -> str:
        """Return the path of a page of the project."""
        path = "/".join(["/dashboard/p", *(quote(part, safe="") for part in (self.project_id, *parts))])
        return f"{path}?{urlencode(query)}" if query else path

    def visitor(self, key: str | None = None) -> Visitor:
        """Return a person who has signed in with a key; by default with that of the account."""
        person = Visitor(self.cloud.url)
        assert person.sign_in(key or str(self.client.key)).status == 200
        return person


def fill_project(cloud: RunningCloud, slug: str = "acme", user_id: str = "caller/1") -> Dashboard:
    """Make a project with documents, a caller with facts, two calls with all that turns can have, and traces."""
    client = cloud.tenant(slug).with_identity(user=user_id)
    now = format_utc(utc_now())
    document = {"id": "returns", "text": "Boots can be returned within thirty days, with the receipt."}
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
    for text, label in (("Greet {{caller}}.", "staging"), ("Greet {{caller}} and be brief.", "production")):
        client.ok("POST", "/v1/voice-sdk/prompts", {"text": text, "notes": "first words", "labels": [label]})
    client.send(
        session_start("a-start", "call-a", 1, name="Ana Sousa", occurredAt=now),
        turn("a-1", "call-a", 2, "I live in Lisbon.", occurredAt=now),
        session_end("a-end", "call-a", 3, occurredAt=now),
    )
    interrupted = {
        "turnId": "t-2",
        "userText": "How long can I return the boots?",
        "assistantText": "Within thirty days,",
        "assistantFullText": "Within thirty days, with the receipt, Ana.",
        "toolCalls": [{"name": "search_memory", "latencyMs": 8.8, "hits": 3}],
        "metadata": {"interrupted": True, "audioUrl": "https://records.example/b.wav"},
    }
    client.send(
        session_start("b-start", "call-b", 1, name="Ana Sousa", occurredAt=now),
        {**turn("b-1", "call-b", 2, occurredAt=now), "payload": interrupted},
        turn("b-2", "call-b", 3, "And where do I live?", occurredAt=now),
        session_end("b-end", "call-b", 4, occurredAt=now),
    )
    cloud.run_tasks()
    hits = [
        {
            "id": "returns",
            "kind": "document",
            "score": 4.2,
            "indexName": "faq",
            "documentId": "returns",
            "termWeights": [3.0, 1.2],
        },
    ]
    lanes = {
        "permanent": {"status": "late", "ms": 250.0, "hits": 0},
        "org": {"status": "ok", "ms": 0.9, "hits": 1, "chars": 60, "items": hits},
    }
    client.send_traces(
        recall_trace("trace-b-1", sessionId="call-b", turnId="t-2", occurredAt=now, totalMs=250.4, deadlineMs=250.0,
                     degraded=True, contextChars=60, lanes=lanes)
    )  # fmt: skip
    return Dashboard(cloud, client, client.identity["project"], user_id)
