"""Valid and invalid requests generated from the schema: all get a documented reply, none a 5xx."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from support.openapi import runtime_openapi
from support.runtimes import RunningRuntime

schema = schemathesis.openapi.from_dict(runtime_openapi())


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    storage: Path = tmp_path_factory.mktemp("storage")
    with closing(RunningRuntime(storage)) as runtime:
        yield f"http://127.0.0.1:{runtime.port}"


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_valid_and_invalid_requests_get_a_documented_reply(case: schemathesis.Case, base_url: str) -> None:
    case.call_and_validate(
        base_url=base_url,
        checks=[
            schemathesis.checks.not_a_server_error,
            schemathesis.checks.status_code_conformance,
            schemathesis.checks.response_schema_conformance,
            schemathesis.checks.content_type_conformance,
        ],
    )
