"""What the metadata of a session says about its prompt."""

from typing import Any

import pytest

from memoair_protocol.session_prompt import describe_prompt, find_prompt_version


def test_what_the_sdk_records_is_found() -> None:
    assert describe_prompt(3, "production") == {"prompt": {"version": 3, "label": "production"}}
    assert describe_prompt(3, None) == {"prompt": {"version": 3}}
    assert find_prompt_version({"line": "returns", **describe_prompt(3, "production")}) == 3


@pytest.mark.parametrize(
    "about", ["a text", 3, None, [], {}, {"version": "3"}, {"version": True}, {"version": 0}, {"version": 2**53}]
)
def test_what_an_application_has_put_there_is_no_version(about: Any) -> None:
    assert find_prompt_version({"prompt": about}) is None
    assert find_prompt_version({}) is None
    assert find_prompt_version(None) is None
