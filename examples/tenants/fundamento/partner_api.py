"""The partner API of the cloud: a project and an agent per customer, with one key for the account."""

from typing import Any

import requests
from urllib3.util import Retry

_TIMEOUT_S = 10.0


class PartnerApi:
    """Creates projects and agents. Every method can be repeated safely. Use it from one thread at a time."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = requests.Session()
        self._http.auth = lambda request: request  # an entry in ~/.netrc would replace the key
        self._http.headers["Authorization"] = f"Bearer {api_key}"
        # A failed POST may have arrived; the ones below can be repeated safely.
        retries = Retry(3, backoff_factor=0.2, status_forcelist=[429, 502, 503, 504], allowed_methods=None)
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retries))

    def ensure_project(self, name: str, slug: str, description: str = "") -> str:
        """Return the id of the customer's project; create it if needed. Raises `requests.RequestException`."""
        body = {"name": name, "slug": slug, "description": description}
        return self._find_or_create("/v1/projects", "projects", "slug", body)

    def ensure_agent(self, project_id: str, name: str) -> str:
        """Return the id of a voice agent in a project; create it if needed. Raises `requests.RequestException`."""
        return self._find_or_create(
            f"/v1/projects/{project_id}/agents", "agents", "name", {"name": name, "agentType": "voice"}
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _find_or_create(self, path: str, kind: str, key: str, body: dict[str, str]) -> str:
        """Return the id of the item whose ``key`` equals that of ``body``; create the item if needed."""
        url = self._base_url + path
        listed = self._http.get(url, timeout=_TIMEOUT_S, allow_redirects=False)
        _check(listed)
        existing: list[dict[str, Any]] = [item for item in listed.json()[kind] if item[key] == body[key]]
        if existing:
            return str(existing[0]["id"])
        created = self._http.post(url, json=body, timeout=_TIMEOUT_S, allow_redirects=False)
        _check(created)  # 409: another process has just created it; a retry finds it
        return str(created.json()["id"])


def _check(reply: requests.Response) -> None:
    """Raise `requests.HTTPError` for a failure, and for a redirect: it would lead the key to another server."""
    reply.raise_for_status()
    if reply.is_redirect:
        raise requests.HTTPError(f"the cloud redirects (HTTP status {reply.status_code})", response=reply)
