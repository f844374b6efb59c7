"""Filters on the metadata of hits: ``{"topic": "returns", "year": {"$gt": 2024}, "$or": [...]}``.

The grammar follows common query languages: a field with a value means equality, a field with an object of operators
means all of them, several keys mean all of them. A field that a hit does not have equals nothing.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memoair_runtime.errors import BadRequestError

Predicate = Callable[[Mapping[str, Any]], bool]

_MAX_DEPTH = 16
_MAX_OPERAND_VALUES = 1_000
_MISSING = object()


def parse_filter(filter_: Mapping[str, Any], depth: int = 0) -> Predicate:
    """Compile a filter to a predicate over metadata.

    Args:
        filter_: The filter, as parsed from JSON.
        depth: Nesting depth of this filter in the outermost one.

    Returns:
        A function that takes a hit's metadata and returns whether the hit passes. Thread-safe.

    Raises:
        BadRequestError: If the filter is invalid. The message names the operator, never a value or a field of the
            filter.

    Example:
        >>> parse_filter({"year": {"$gt": 2024}})({"year": 2025})
        True
    """
    if depth > _MAX_DEPTH:
        raise BadRequestError(f"filter: nested deeper than {_MAX_DEPTH} levels", field="filter")
    return _all_of([_parse_clause(key, value, depth) for key, value in filter_.items()])


def _parse_clause(key: str, value: Any, depth: int) -> Predicate:
    if key in ("$and", "$or"):
        if not (isinstance(value, list) and value and all(isinstance(part, dict) for part in value)):
            raise BadRequestError(f"filter: {key} requires a list of one or more filters", field="filter")
        predicates = [parse_filter(part, depth + 1) for part in value]
        return _all_of(predicates) if key == "$and" else _any_of(predicates)
    if key.startswith("$"):
        raise BadRequestError("filter: unknown operator, or an operator in place of a field name", field="filter")
    if isinstance(value, dict):
        if not value:
            raise BadRequestError("filter: a field requires a value or an operator", field="filter")
        return _all_of([_parse_comparison(key, name, operand) for name, operand in value.items()])
    return _parse_comparison(key, "$eq", value)


def _parse_comparison(field: str, operator_name: str, operand: Any) -> Predicate:
    operator_function = _OPERATORS.get(operator_name)
    if operator_function is None:
        raise BadRequestError(f"filter: unknown operator; use one of {', '.join(_OPERATORS)}", field="filter")
    if operator_name in ("$in", "$nin") and not isinstance(operand, list):
        raise BadRequestError(f"filter: {operator_name} requires a list", field="filter")
    if isinstance(operand, list) and len(operand) > _MAX_OPERAND_VALUES:
        raise BadRequestError(f"filter: {operator_name} accepts at most {_MAX_OPERAND_VALUES} values", field="filter")
    if operator_name in ("$gt", "$lt") and (isinstance(operand, bool) or not isinstance(operand, int | float | str)):
        raise BadRequestError(f"filter: {operator_name} requires a number or a string", field="filter")
    return lambda metadata: operator_function(metadata.get(field, _MISSING), operand)


def _all_of(predicates: Sequence[Predicate]) -> Predicate:
    return lambda metadata: all(predicate(metadata) for predicate in predicates)


def _any_of(predicates: Sequence[Predicate]) -> Predicate:
    return lambda metadata: any(predicate(metadata) for predicate in predicates)


def _equals(value: Any, operand: Any) -> bool:
    # In Python True equals 1; in a filter a bool equals only a bool.
    return isinstance(value, bool) == isinstance(operand, bool) and bool(value == operand)


def _compare_same_type(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Make a comparison that is false unless both sides are numbers or both are strings."""

    def compare_values(value: Any, operand: Any) -> bool:
        are_numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in (value, operand))
        are_texts = isinstance(value, str) and isinstance(operand, str)
        return (are_numbers or are_texts) and compare(value, operand)

    return compare_values


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equals,
    "$ne": lambda value, operand: not _equals(value, operand),
    "$in": lambda value, operand: any(_equals(value, option) for option in operand),
    "$nin": lambda value, operand: not any(_equals(value, option) for option in operand),
    "$gt": _compare_same_type(operator.gt),
    "$lt": _compare_same_type(operator.lt),
}
