"""Sections of Markdown: the headings that CommonMark has, their paths, and the chunks that are made from them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from memoair_index import Index, Query, split_chunks, split_document, split_text
from memoair_index.sections import Section, split_sections

ROOT = Path(__file__).parents[2]
RETURNS = "# Returns\n\n## Boots\n\nThey go back within thirty days.\n\n## Hats\n\nThey go back within ten.\n"
MARKDOWN = {"format": "markdown"}


def headings_of(markdown: str) -> list[str]:
    """Return the headings that have text under them, by the parser of the CommonMark project's port."""
    tokens = MarkdownIt("commonmark").parse(markdown)
    return [
        " ".join(tokens[place + 1].content.split())
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and token.level == 0
    ]


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_the_headings_of_our_own_pages_are_those_of_a_commonmark_parser(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    expected = {heading.replace("`", "").replace("*", "") for heading in headings_of(text)}
    assert {name for section in split_sections(text) for name in section.headings} <= expected
    assert expected  # each page has headings, and so the line above says something


@given(st.lists(st.sampled_from(["# a", "## b", "### c", "text", "", "```", "~~~", "===", "---", "> q", "1. x"])))
@example(["text", "==="])
@example(["```", "# a", "```", "# b"])
@example(["> q", "text", "---"])
@example(["text", "> q", "==="])
@example(["text", "1. x", "---"])
def test_headings_are_those_of_a_commonmark_parser(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines) + "\n\nend\n"
    found = {name for section in split_sections(text) for name in section.headings}
    assert found <= set(headings_of(text)), text


def test_a_section_has_the_path_of_headings_above_it() -> None:
    assert split_sections("Before.\n" + RETURNS + "# Other\nMore.\n") == [
        Section((), "Before.\n"),
        Section(("Returns", "Boots"), "\nThey go back within thirty days.\n\n"),
        Section(("Returns", "Hats"), "\nThey go back within ten.\n"),
        Section(("Other",), "More.\n"),
    ]


@pytest.mark.parametrize(
    ("markdown", "heading"),
    [
        ("Boots\n=====\nText", "Boots"),
        ("## Boots ##\nText", "Boots"),
        ("## **Boots** and [hats](https://shop.example) `new`\nText", "Boots and hats new"),
        ("## snake_case_name\nText", "snake_case_name"),
        ("## C#\nText", "C#"),
    ],
)
def test_headings_are_plain(markdown: str, heading: str) -> None:
    assert split_sections(markdown)[0].headings == (heading,)


@pytest.mark.parametrize(
    "text", ["#1 in boots\n", "```\n# a comment\n```\n", "    # code\n", "- item\n---\n", "#\n", ""]
)
def test_what_is_no_heading_stays_text(text: str) -> None:
    assert split_sections(text) == [Section((), text)]


def test_a_section_is_found_by_its_headings_and_shows_them() -> None:
    index = Index()
    index.add(split_document("returns.md", RETURNS + "\n## Socks\n\n" + "Unworn pairs only. " * 40, MARKDOWN))
    index.add(split_document("fees.md", "# Fees\n\nThirty days of storage are free.", MARKDOWN))
    best = index.search(Query("boots return"), 1)[0].document
    assert "Returns > Boots\nThey go back within thirty days." in best.text
    assert best.id == "returns.md#0"
    assert best.labels == ("Returns",)  # not its format, and no heading below the title


def test_short_sections_share_a_chunk_and_each_part_of_a_long_one_names_it() -> None:
    metadata = {**MARKDOWN, "title": "Shop"}
    long_section = "\n## Socks\n\n" + "Unworn pairs only, in their bag. " * 60
    chunks = split_text(RETURNS + long_section + "\n## Ties\nNever.", metadata)
    assert chunks[0] == (
        "Shop > Returns > Boots\nThey go back within thirty days.\n\nShop > Returns > Hats\nThey go back within ten."
    )
    assert len(chunks) > 4
    assert all(chunk.startswith("Shop > Returns > Socks\nUnworn") for chunk in chunks[1:-1])
    assert chunks[-1] == "Shop > Returns > Ties\nNever."


@given(st.text("ab#\n =-`>.", max_size=300))
def test_any_markdown_gives_chunks_of_bounded_size_with_all_its_words(text: str) -> None:
    chunks = split_text(text * 4, MARKDOWN)
    assert chunks
    assert max(map(len, chunks)) <= 700 + 201
    for section in split_sections(text * 4):
        assert all(word in "".join(chunks) for word in section.text.split())


@pytest.mark.parametrize("metadata", [{}, {"format": "pdf"}, {"format": ["markdown"]}])
def test_other_documents_are_split_as_before(metadata: dict[str, Any]) -> None:
    text = RETURNS + "Unworn pairs only. " * 60
    assert split_text(text, metadata) == split_chunks(text)
