"""The description of the API: valid, and good enough to generate a client from it that works."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clouds import RunningCloud, running

# Not installed with the other tools, see tox.ini: `tox -e openapi` runs this.
GENERATOR = shutil.which("openapi-python-client", path=str(Path(sys.executable).parent))


@pytest.fixture(scope="module")
def own_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    folder = tmp_path_factory.mktemp("openapi")
    with running(f"sqlite:///{folder / 'cloud.db'}", folder) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def description(own_cloud: RunningCloud) -> Any:
    return own_cloud.account().ok("GET", "/openapi.json")


def test_the_description_is_valid(description: Any) -> None:
    pytest.importorskip("openapi_spec_validator").validate(description)


def test_every_reference_leads_to_a_schema(description: Any) -> None:
    references = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            references.update({node["$ref"]} if isinstance(node.get("$ref"), str) else ())
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            collect(child)

    collect(description)
    schemas = {f"#/components/schemas/{name}" for name in description["components"]["schemas"]}
    assert references
    assert references <= schemas


@pytest.mark.parametrize(
    ("path", "method", "field", "wanted"),
    [
        ("/v1/voice-sdk/events", "post", "events", {"eventId", "type", "sessionId", "seq", "occurredAt", "payload"}),
        ("/v1/voice-sdk/recall-traces", "post", "traces", {"traceId", "sessionId", "mode", "lanes", "origin"}),
    ],
)
def test_the_items_of_a_batch_are_described(
    description: Any, path: str, method: str, field: str, wanted: set[str]
) -> None:
    body = description["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    batch = description["components"]["schemas"][body.rpartition("/")[2]]["properties"][field]
    assert batch["maxItems"] in (200, 500)
    assert wanted <= set(batch["items"]["properties"])


@pytest.mark.skipif(GENERATOR is None, reason="openapi-python-client is not installed")
def test_a_generated_client_works(own_cloud: RunningCloud, description: Any, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(description))
    command = [str(GENERATOR), "generate", "--path", "openapi.json", "--output-path", "generated", "--meta", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "schema" not in done.stdout.lower(), done.stdout  # what it says of those that it left out
    script = f"""
from generated import AuthenticatedClient
from generated.api.projects import create_project, list_projects
from generated.models import ProjectIn

client = AuthenticatedClient({own_cloud.url!r}, {own_cloud.account().key!r})
created = create_project.sync(client=client, body=ProjectIn(name="Acme", slug="acme"))
print([project.id for project in list_projects.sync(client=client).projects] == [created.id])
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == "True\n", run.stderr
