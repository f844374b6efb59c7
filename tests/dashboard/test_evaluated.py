"""What a result shows: where each requirement is, and a context in which it is marked, whatever it says."""

from typing import Any

from memoair_cloud.dashboard.evaluated import show_result

WILD = "<script>alert(1)</script>"
CONTEXT = f"## permanent\n- Caller: {WILD} red boots\n\n## org\n- {WILD} Boots can be returned.\n- Old & gone <i>"


def hit(**more: Any) -> dict[str, Any]:
    return {"id": "h", "kind": "document", "score": 1.5, "terms": {"a": 0.5, "b": 1.0}, **more}


def trace(*items: dict[str, Any], lane: str = "org") -> dict[str, Any]:
    return {"lanes": {"permanent": {"status": "skipped"}, lane: {"status": "ok", "ms": 1.0, "items": list(items)}}}


def test_a_context_is_text_within_marks_and_around_them() -> None:
    content = {"must": [{"text": "red boots"}, {"document": "returns"}], "mustNot": [{"text": "Old & gone"}]}
    found = trace(hit(documentId="returns", indexName="faq", text=f"{WILD} Boots can be returned."))
    shown = show_result(content, {"found": [0, 1]}, {"trace": found, "context": CONTEXT, "halfContext": CONTEXT})
    for text in (shown.context, shown.half_context):
        assert "<script>" not in text
        assert "<mark>red boots</mark>" in text
        assert "<mark>&lt;script&gt;alert(1)&lt;/script&gt; Boots can be returned.</mark>" in text
        assert '<mark class="unwanted">Old &amp; gone</mark> &lt;i&gt;' in text


def test_a_requirement_is_found_in_its_index_lane_and_call() -> None:
    document = hit(documentId="returns", indexName="faq", text="Boots.", inContext=False)
    turn = hit(kind="turn", turnId="t1", sessionId="s1", text="Caller: Boots.")
    must = [
        {"document": "returns", "index": "faq"},
        {"document": "returns", "index": "other"},
        {"document": "returns"},
        {"turn": "t1", "session": "s1"},
        {"turn": "t1", "session": "s2"},
        {"fact": "Boots"},
        {"text": "boots"},
    ]
    shown = show_result({"must": must}, {}, {"trace": trace(document, turn)})
    labels = {(row.kind, row.place): row.label for row in shown.must}
    assert labels == {
        ("document", "faq"): "found, not in the context",
        ("document", "other"): "not found",
        ("document", ""): "found, not in the context",
        ("turn", "s1"): "found, not in the context",
        ("turn", "s2"): "not found",
        ("fact", ""): "not found",  # documents have no facts
        ("text", ""): "found, not in the context",
    }
    assert [row.terms[0] for row in shown.hits] == [("b", 1.0), ("b", 1.0)]


def test_half_the_budget_cuts_and_what_is_missing_comes_first() -> None:
    must = [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    shown = show_result({"must": must}, {"found": [0, 1], "foundHalf": [0]}, {})
    assert [(row.value, row.label, row.tone) for row in shown.must] == [
        ("c", "not found", "bad"),
        ("a", "in the context", "good"),
        ("b", "in the context, cut at half budget", "warn"),
    ]
    assert show_result(None, {"found": [0]}, {}).must == []
