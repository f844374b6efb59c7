"""The partner API of the cloud: a project and an agent for each customer, with the one key of the account."""

from typing import Any

import requests
from urllib3.util import Retry

_TIMEOUT_S = 10.0


class PartnerApi:
    """What makes customers' workspaces. Whatever it is asked for twice is there once. One thread at a time."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {api_key}"
        # Of a POST nobody knows whether it arrived; those below may be made again.
        retries = Retry(3, backoff_factor=0.2, status_forcelist=[429, 502, 503, 504], allowed_methods=None)
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retries))

    def ensure_project(self, name: str, slug: str, description: str = "") -> str:
        """The id of the customer's project, made if there is none. Raises `requests.RequestException`."""
        body = {"name": name, "slug": slug, "description": description}
        return self._find_or_create("/v1/projects", "projects", "slug", body)

    def ensure_agent(self, project_id: str, name: str) -> str:
        """The id of a voice agent in a project, made if there is none. Raises `requests.RequestException`."""
        return self._find_or_create(
            f"/v1/projects/{project_id}/agents", "agents", "name", {"name": name, "agentType": "voice"}
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _find_or_create(self, path: str, kind: str, key: str, body: dict[str, str]) -> str:
        """The id of what has the same ``key`` as ``body``, or of what is made of it."""
        url = self._base_url + path
        listed = self._http.get(url, timeout=_TIMEOUT_S)
        listed.raise_for_status()
        existing: list[dict[str, Any]] = [each for each in listed.json()[kind] if each[key] == body[key]]
        if existing:
            return str(existing[0]["id"])
        created = self._http.post(url, json=body, timeout=_TIMEOUT_S)
        created.raise_for_status()  # 409: somebody else has just made it; whoever asks again finds it
        return str(created.json()["id"])
