"""Filters on metadata: which hits pass, and which filters are rejected."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_runtime.errors import BadRequestError
from memoair_runtime.filters import parse_filter

BOOTS: dict[str, Any] = {
    "topic": "returns",
    "year": 2025,
    "price": 3.5,
    "paid": True,
    "note": None,
    "tags": ["red", "boots"],
    "shop": {"city": "Ulm"},
}


def nested_filter(depth: int) -> dict[str, Any]:
    """Return a filter with this many levels."""
    return {"$and": [nested_filter(depth - 1)]} if depth else {"topic": "returns"}


@pytest.mark.parametrize(
    "filter_",
    [
        {},
        {"topic": "returns"},
        {"topic": "returns", "year": 2025},
        {"year": 2025.0},
        {"paid": True},
        {"note": None},
        {"tags": ["red", "boots"]},
        {"shop": {"$eq": {"city": "Ulm"}}},
        {"topic": {"$eq": "returns"}},
        {"topic": {"$ne": "refunds"}},
        {"missing": {"$ne": "anything"}},
        {"missing": {"$ne": None}},
        {"paid": {"$ne": 1}},
        {"year": {"$ne": "2025"}},
        {"topic": {"$in": ["refunds", "returns"]}},
        {"note": {"$in": [None]}},
        {"topic": {"$nin": ["refunds"]}},
        {"topic": {"$nin": []}},
        {"missing": {"$nin": ["anything", None]}},
        {"year": {"$gt": 2024}},
        {"year": {"$gt": 2024, "$lt": 2026}},
        {"price": {"$lt": 4}},
        {"topic": {"$gt": "refunds"}},
        {"$and": [{"topic": "returns"}, {"year": 2025}]},
        {"$or": [{"topic": "refunds"}, {"year": 2025}]},
        {"$or": [{"$and": [{"topic": "refunds"}, {"year": 2025}]}, {"price": {"$gt": 3}}]},
        {"$or": [{}]},
        {"topic": "returns", "$or": [{"year": 2024}, {"year": 2025}]},
        nested_filter(16),
    ],
)
def test_matching_metadata_passes_the_filter(filter_: dict[str, Any]) -> None:
    assert parse_filter(filter_)(BOOTS) is True


@pytest.mark.parametrize(
    "filter_",
    [
        {"topic": "refunds"},
        {"topic": "Returns"},
        {"topic": "returns", "year": 2024},
        {"year": "2025"},
        {"paid": 1},
        {"paid": False},
        {"year": True},
        {"note": 0},
        {"note": ""},
        {"missing": None},
        {"missing": ""},
        {"missing": {"$eq": None}},
        {"tags": "red"},
        {"tags": ["boots", "red"]},
        {"shop.city": "Ulm"},
        {"topic": {"$ne": "returns"}},
        {"topic": {"$in": []}},
        {"paid": {"$in": [1]}},
        {"missing": {"$in": [None]}},
        {"topic": {"$nin": ["refunds", "returns"]}},
        {"year": {"$gt": 2025}},
        {"year": {"$lt": 2025}},
        {"year": {"$gt": 2024, "$lt": 2025}},
        {"year": {"$gt": "2024"}},
        {"topic": {"$gt": 0}},
        {"paid": {"$gt": 0}},
        {"note": {"$lt": 1}},
        {"tags": {"$gt": "a"}},
        {"missing": {"$gt": 0}},
        {"missing": {"$lt": 0}},
        {"$and": [{"topic": "returns"}, {"year": 2024}]},
        {"$or": [{"topic": "refunds"}, {"year": 2024}]},
        {"topic": "refunds", "$or": [{"year": 2025}]},
    ],
)
def test_other_metadata_does_not_pass_the_filter(filter_: dict[str, Any]) -> None:
    assert parse_filter(filter_)(BOOTS) is False


@pytest.mark.parametrize(
    "filter_",
    [
        {"$and": []},
        {"$or": []},
        {"$and": {"topic": "returns"}},
        {"$or": "zanzibarplum"},
        {"$or": [{"topic": "returns"}, "zanzibarplum"]},
        {"$and": [None]},
        {"$not": {"topic": "returns"}},
        {"$eq": "zanzibarplum"},
        {"$": 1},
        {"topic": {}},
        {"topic": {"$regex": "zanzibarplum"}},
        {"topic": {"$EQ": "returns"}},
        {"topic": {"eq": "returns"}},
        {"topic": {"$eq": "returns", "zanzibarplum": 1}},
        {"topic": {"$in": "zanzibarplum"}},
        {"topic": {"$in": {"zanzibarplum": 1}}},
        {"topic": {"$nin": None}},
        {"year": {"$gt": None}},
        {"year": {"$gt": True}},
        {"year": {"$lt": [1]}},
        {"year": {"$lt": {"zanzibarplum": 1}}},
        {"$or": [{"$and": [{"year": {"$gt": None}}]}]},
        nested_filter(17),
        nested_filter(500),
    ],
)
def test_an_invalid_filter_is_rejected_without_quoting_it(filter_: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_filter(filter_)
    assert caught.value.details == {"field": "filter"}
    assert caught.value.message.startswith("filter: ")
    assert "zanzibarplum" not in caught.value.message


def test_a_missing_field_equals_nothing() -> None:
    operands: list[Any] = [None, "", 0, False, [], {"a": 1}]
    for operand in operands:
        assert not parse_filter({"field": {"$eq": operand}})({})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["topic", "year", "$and", "$or", "$eq", "$ne", "$in", "$nin", "$gt", "$lt", "$x", ""])
filters = st.dictionaries(
    names,
    values
    | st.dictionaries(names, values, max_size=3)
    | st.lists(st.dictionaries(names, values | st.dictionaries(names, values, max_size=2), max_size=2), max_size=3),
    max_size=3,
)


@given(filters, st.dictionaries(st.sampled_from(["topic", "year", ""]), values))
@settings(deadline=None)
def test_any_filter_is_rejected_or_returns_a_bool(filter_: dict[str, Any], metadata: dict[str, Any]) -> None:
    try:
        predicate = parse_filter(filter_)
    except BadRequestError:
        return
    assert predicate(metadata) in (True, False)


@given(values, values)
@settings(deadline=None)
def test_ne_and_nin_negate_eq_and_in(value: Any, operand: Any) -> None:
    metadata = {"field": value}

    def matches(operator: str, operand: Any) -> bool:
        return parse_filter({"field": {operator: operand}})(metadata)

    assert matches("$eq", operand) != matches("$ne", operand)
    assert matches("$in", [operand]) == matches("$eq", operand)
    assert matches("$nin", [operand]) == matches("$ne", operand)
