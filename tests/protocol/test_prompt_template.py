"""Prompts with placeholders: what is one, what is text, and what values are put in."""

import contextlib
import time

import pytest

from memoair_protocol.prompt_template import (
    PromptTemplateError,
    find_placeholders,
    is_prompt_label,
    render_prompt,
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("plain", ()),
        ("{{b}} {{a}} {{b}}", ("b", "a")),
        ("{{ name }}{{\tname_2\t}}", ("name", "name_2")),
        ('{"a": {"b": {}}}', ()),  # JSON: a single brace is text, and so is "}}"
        ("{{{{name}}", ()),
        ("{{{{{{name}}}}", ("name",)),
        ("{{{name}}}", ("name",)),
        ("}} {{a}}}}", ("a",)),
        (f"{{{{{'a' * 64}}}}}", ("a" * 64,)),
    ],
)
def test_placeholders_are_found_in_the_order_of_their_first_appearance(text: str, names: tuple[str, ...]) -> None:
    assert find_placeholders(text) == names


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{{", "line 1, column 1"),
        ("a\nbc {{name", "line 2, column 4"),
        ("{{name}", "line 1, column 1"),
        ("{{}}", "line 1, column 1"),
        ("x {{first name}}", "line 1, column 3"),
        ("{{1st}}", "line 1, column 1"),
        ("{{na\nme}}", "line 1, column 1"),
        ("{{größe}}", "line 1, column 1"),
        ("{{{{{{", "line 1, column 5"),
        (f"{{{{{'a' * 65}}}}}", "line 1, column 1"),
    ],
)
def test_a_malformed_placeholder_is_reported_by_its_place_and_not_its_text(text: str, place: str) -> None:
    for check in (find_placeholders, lambda text: render_prompt(text, {"name": "Mara"})):
        with pytest.raises(PromptTemplateError, match=place) as caught:
            check(text)
        assert "first name" not in str(caught.value)
        assert "größe" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("Hello {{name}}, {{ name }}!", "Hello Mara, Mara!"),
        ('{"a": {"b": "{{name}}"}}', '{"a": {"b": "Mara"}}'),
        ("{{{{name}} is {{name}}", "{{name}} is Mara"),
        ("{{{{{{name}}}}", "{{Mara}}"),
        ("{{{name}}}", "{Mara}"),
    ],
)
def test_values_are_put_in(text: str, rendered: str) -> None:
    assert render_prompt(text, dict.fromkeys(find_placeholders(text), "Mara")) == rendered


def test_a_value_is_put_in_once_and_as_it_is() -> None:
    values = {"a": r"{{b}} {{{{ \1 \g<name>", "b": "line\r\nbreak {{a}}", "n": 3}
    assert render_prompt("{{a}}|{{b}}|{{n}}", values) == f"{values['a']}|{values['b']}|3"


def test_values_that_do_not_fit_are_named_and_never_shown() -> None:
    with pytest.raises(PromptTemplateError) as caught:
        render_prompt("{{a}} {{b}} {{c}}", {"b": None, "c": "s" * 10_001, "d": "secret", "my secret": ""})
    assert str(caught.value) == (
        "values are missing for placeholders: a, b; the prompt has no placeholder for values: d, (no valid name); "
        "values are longer than 10,000 characters: c"
    )
    assert render_prompt("{{c}}", {"c": "s" * 10_000}) == "s" * 10_000
    with pytest.raises(PromptTemplateError, match=r"p9 and 20 more$"):
        render_prompt("".join(f"{{{{p{n}}}}}" for n in range(30)), {})


@pytest.mark.parametrize("text", ["{" * 100_000, "{{{{" * 25_000, "{{a" * 33_000, "{{ " * 33_000, "{{" + "\t" * 99_000])
def test_hostile_text_takes_linear_time(text: str) -> None:
    started = time.process_time()
    with contextlib.suppress(PromptTemplateError):
        find_placeholders(text)
    assert time.process_time() - started < 2


def test_labels_have_one_rule() -> None:
    assert all(map(is_prompt_label, ("production", "0a", "2.", "a.b_c-d", "x" * 64)))
    assert not any(map(is_prompt_label, ("", "0", "12", "Production", ".a", "-a", "a b", "x" * 65, "a\n", "ü", "../a")))
