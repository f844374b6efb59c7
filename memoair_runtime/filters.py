"""Filters on the metadata of hits: ``{"topic": "returns", "year": {"$gt": 2024}, "$or": [...]}``.

The grammar is that of the query languages people know: a field with a value means equality, a field with an object of
operators means all of them, several keys mean all of them. A field that a hit does not have equals nothing.
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
    """Make a predicate over metadata of a filter; raise `BadRequestError`, naming the operator, where it makes no sense."""
    if depth > _MAX_DEPTH:
        raise BadRequestError("filter: nested too deep", field="filter")
    return _all_of([_parse_clause(key, value, depth) for key, value in filter_.items()])


def _parse_clause(key: str, value: Any, depth: int) -> Predicate:
    if key in ("$and", "$or"):
        if not (isinstance(value, list) and value and all(isinstance(part, dict) for part in value)):
            raise BadRequestError(f"filter: {key} takes a list of one or more filters", field="filter")
        predicates = [parse_filter(part, depth + 1) for part in value]
        return _all_of(predicates) if key == "$and" else _any_of(predicates)
    if key.startswith("$"):
        raise BadRequestError("filter: an operator that is not known, or stands where a field should", field="filter")
    if isinstance(value, dict):
        if not value:
            raise BadRequestError("filter: a field has no operator", field="filter")
        return _all_of([_parse_comparison(key, name, operand) for name, operand in value.items()])
    return _parse_comparison(key, "$eq", value)


def _parse_comparison(field: str, operator_name: str, operand: Any) -> Predicate:
    operator_function = _OPERATORS.get(operator_name)
    if operator_function is None:
        raise BadRequestError(f"filter: an operator is not one of {', '.join(_OPERATORS)}", field="filter")
    if operator_name in ("$in", "$nin") and not isinstance(operand, list):
        raise BadRequestError(f"filter: {operator_name} takes a list", field="filter")
    if isinstance(operand, list) and len(operand) > _MAX_OPERAND_VALUES:
        raise BadRequestError(f"filter: {operator_name} takes at most {_MAX_OPERAND_VALUES} values", field="filter")
    if operator_name in ("$gt", "$lt") and (isinstance(operand, bool) or not isinstance(operand, int | float | str)):
        raise BadRequestError(f"filter: {operator_name} takes a number or a text", field="filter")
    return lambda metadata: operator_function(metadata.get(field, _MISSING), operand)


def _all_of(predicates: Sequence[Predicate]) -> Predicate:
    return lambda metadata: all(part(metadata) for part in predicates)


def _any_of(predicates: Sequence[Predicate]) -> Predicate:
    return lambda metadata: any(part(metadata) for part in predicates)


def _equals(value: Any, operand: Any) -> bool:
    return isinstance(value, bool) == isinstance(operand, bool) and bool(value == operand)  # True is not 1 here


def _compare_same_type(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare_values(value: Any, operand: Any) -> bool:
        are_numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in (value, operand))
        are_texts = isinstance(value, str) and isinstance(operand, str)
        return (are_numbers or are_texts) and compare(value, operand)

    return compare_values


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equals,
    "$ne": lambda value, operand: not _equals(value, operand),
    "$in": lambda value, operand: any(_equals(value, each) for each in operand),
    "$nin": lambda value, operand: not any(_equals(value, each) for each in operand),
    "$gt": _compare_same_type(operator.gt),
    "$lt": _compare_same_type(operator.lt),
}
