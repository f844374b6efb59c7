"""Suites, runs and document sets of the cloud's tests."""

from typing import Any

from support.clouds import Client, session_end, session_start, turn

ROOT = "/v1/voice-sdk/evaluations"


def case_of(case_id: str, question: str = "Can I return the boots?", **more: Any) -> dict[str, Any]:
    """Return a case on the wire, which requires the document of the returns policy unless it says otherwise."""
    return {"id": case_id, "question": question, "must": [{"document": "returns"}], **more}


def new_suite(client: Client, *cases: dict[str, Any], name: str = "returns") -> str:
    """Create a suite with cases; return its path."""
    suite = f"{ROOT}/suites/{client.ok('POST', f'{ROOT}/suites', {'name': name})['suiteId']}"
    if cases:
        client.ok("PUT", f"{suite}/cases", {"cases": list(cases)})
    return suite


def tell_life(client: Client) -> None:
    """Send three calls of a caller: what they say in the second is asked about, and the third comes later."""
    client.send(
        session_start("s1", "call-1", 1, occurredAt="2026-03-01T09:00:00Z"),
        turn("e1", "call-1", 2, "I live in Lisbon.", occurredAt="2026-03-01T09:01:00Z"),
        turn("e2", "call-1", 3, "My number is 030 901820.", occurredAt="2026-03-01T09:02:00Z"),
        session_end("x1", "call-1", 4, occurredAt="2026-03-01T09:03:00Z"),
    )
    client.send(
        session_start("s2", "call-2", 1, occurredAt="2026-03-02T09:00:00Z"),
        turn("e3", "call-2", 2, "It is about my red boots.", occurredAt="2026-03-02T09:01:00Z"),
        turn("e4", "call-2", 3, "Where do I live? Call 030 901820.", occurredAt="2026-03-02T09:02:00Z"),
        turn("e5", "call-2", 4, "I am allergic to nuts.", occurredAt="2026-03-02T09:03:00Z"),
        session_end("x2", "call-2", 5, occurredAt="2026-03-02T09:04:00Z"),
    )
    client.send(
        session_start("s3", "call-3", 1, occurredAt="2026-03-03T09:00:00Z"),
        turn("e6", "call-3", 2, "I live in Oslo now.", occurredAt="2026-03-03T09:01:00Z"),
        session_end("x3", "call-3", 3, occurredAt="2026-03-03T09:02:00Z"),
    )
