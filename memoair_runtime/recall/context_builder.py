"""The context builder: it turns the lanes' answers into the text for the agent's language model."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import attrs

from memoair_protocol.context_format import (
    MAX_CONTEXT_CHARS,
    MAX_SECTION_CHARS,
    SECTION_HEADERS,
    SECTION_SEPARATOR,
    TRUNCATION_MARK,
    format_line,
)
from memoair_protocol.enums import LaneName
from memoair_protocol.sanitizer import sanitize_line
from memoair_runtime.recall.lanes.lane import LaneAnswer, Passage, SourceKey

# What a section says instead of passages, if the client asks for that. The lanes that leave out hits by confidence
# have one.
_NOTHING_FOUND = {
    LaneName.PERMANENT: "(nothing found in earlier calls about what was asked)",
    LaneName.ORG: "(nothing found in the organization's documents about what was asked)",
}
_SENTENCE_END = re.compile(r"[.!?\N{HORIZONTAL ELLIPSIS}]['\")\]]*(?=\s|$)|[\u3002\uff01\uff1f]")
# A line that is truncated to less than this says too little to be worth its space.
_MIN_TRUNCATED_CHARS = 40
_MAX_SPEAKER_CHARS = 200


@attrs.frozen
class Budgets:
    """Size limits of the context.

    Attributes:
        context_chars: Maximum characters of the whole context.
        lane_chars: Maximum characters of each lane's section, including its header.
    """

    context_chars: int = MAX_CONTEXT_CHARS
    lane_chars: int = MAX_SECTION_CHARS


@attrs.frozen
class ComposedContext:
    """A context, and what is in it.

    Attributes:
        text: The context, within the budgets and without duplicate texts; empty if there is nothing to say.
        sources: The turns, facts and documents of which a passage is in it, or has the same text as one that is.
    """

    text: str = attrs.field(repr=False)
    sources: frozenset[SourceKey] = frozenset()


# The formatted lines of a section by their heading, each with its position.
_LinesByHeading = dict[str, list[tuple[tuple[Any, ...], str]]]
_position = itemgetter(0)


def build_context(answers: Mapping[LaneName, LaneAnswer], budgets: Budgets, *, says_nothing_found: bool = False) -> str:
    """Return the text of the context; see `compose_context`."""
    return compose_context(answers, budgets, says_nothing_found=says_nothing_found).text


def compose_context(
    answers: Mapping[LaneName, LaneAnswer], budgets: Budgets, *, says_nothing_found: bool = False
) -> ComposedContext:
    """Build the context: one section per lane that found something, in the order of `LaneName`.

    Args:
        answers: The answers of the lanes. Their passages are taken in order while they fit.
        budgets: The size limits.
        says_nothing_found: Whether a lane that has searched and found nothing gets a section that says so.
    """
    notes: Mapping[LaneName, str] = {}
    if says_nothing_found:
        notes = {name: note for name, note in _NOTHING_FOUND.items() if _found_nothing(answers.get(name))}
    sources: set[SourceKey | None] = set()
    sections = _build_sections(
        answers, notes, budgets.lane_chars, len(answers) * (budgets.lane_chars + len(SECTION_SEPARATOR)), sources
    )
    text_budget = budgets.context_chars - len(SECTION_SEPARATOR) * (len(sections) - 1)
    if sum(map(len, sections)) > text_budget:
        section_limit = _fair_limit(list(map(len, sections)), text_budget)
        sources.clear()
        lane_chars = min(budgets.lane_chars, section_limit)
        sections = _build_sections(answers, notes, lane_chars, budgets.context_chars, sources)
    return ComposedContext(SECTION_SEPARATOR.join(sections), frozenset(key for key in sources if key is not None))


def _found_nothing(answer: LaneAnswer | None) -> bool:
    """Return whether a lane has searched, and has no hits."""
    return answer is not None and answer.confidence is not None and not answer.hits


def _build_sections(
    answers: Mapping[LaneName, LaneAnswer],
    notes: Mapping[LaneName, str],
    lane_chars: int,
    context_chars: int,
    sources: set[SourceKey | None],
) -> list[str]:
    seen: set[str] = set()
    sections: list[str] = []
    for name, header in SECTION_HEADERS.items():
        if name in answers:
            # A text that no longer fits one section may move to a later one, which is then longer than before: so the
            # rest of the context's budget limits each section, too.
            section = _build_section(header, answers[name].passages, min(lane_chars, context_chars), seen, sources)
            if not section and name in notes:
                note = f"## {name.value}\n{notes[name]}"
                section = note if len(note) <= min(lane_chars, context_chars) else ""
            if section:
                sections.append(section)
                context_chars -= len(section) + len(SECTION_SEPARATOR)
    return sections


def _fair_limit(lengths: Sequence[int], budget: int) -> int:
    """Return the maximum length for which all sections fit the budget together; shorter ones stay as they are."""
    remaining = sorted(lengths)
    while remaining and remaining[0] * len(remaining) <= budget:
        budget -= remaining.pop(0)
    return budget // len(remaining) if remaining else budget


def _build_section(
    header: str, passages: Iterable[Passage], budget: int, seen: set[str], sources: set[SourceKey | None]
) -> str:
    """Build one lane's section in at most ``budget`` characters, without texts in ``seen``; empty if nothing fits.

    Adds the sources of what is in it to ``sources``.
    """
    remaining = budget - len(header)
    max_chars = 2 * budget + _MIN_TRUNCATED_CHARS
    chosen: _LinesByHeading = {}
    for passage in passages:
        if remaining < _MIN_TRUNCATED_CHARS and chosen:
            break  # lanes return far more passages than fit
        full_text = passage.text
        # Text far beyond the budget is not even sanitized.
        line, key = _format_line(
            full_text if len(full_text) <= max_chars else full_text[:max_chars], passage.speaker[:_MAX_SPEAKER_CHARS]
        )
        if not key or key in seen:
            if key:
                sources.add(passage.source)
            continue
        heading = passage.heading
        line_budget = remaining - 1 if not heading or heading in chosen else remaining - len(f"\n{heading}:\n")
        if len(line) > line_budget:
            line = _truncate(line, line_budget, at_word=not chosen)
        if line and line not in seen:  # two texts may be truncated to the same sentence
            seen.add(key)
            seen.add(line)
            sources.add(passage.source)
            chosen.setdefault(heading, []).append((passage.position, line))
            remaining = line_budget - len(line)
    return "\n".join([header, *_list_lines(chosen)]) if chosen else ""


@lru_cache(maxsize=2_048)
def _format_line(text: str, speaker: str) -> tuple[str, str]:
    """Return a text as a line, and its key for deduplication; cached, because a session repeats the same texts."""
    clean_text = sanitize_line(text)
    return format_line(clean_text, speaker), clean_text.casefold()


def _list_lines(chosen: _LinesByHeading) -> list[str]:
    """Return the lines sorted by position under their headings, and the headings sorted by their first line."""
    for group in chosen.values():
        group.sort(key=_position)
    lines: list[str] = []
    for _, heading, group in sorted((group[0][0], heading, group) for heading, group in chosen.items()):
        if heading or lines:  # lines without a heading must not appear under another heading
            lines.append(f"{heading}:")
        lines += [text for _, text in group]
    return lines


def _truncate(text: str, budget: int, *, at_word: bool) -> str:
    """Truncate a text to whole sentences; if none fits, to whole words if ``at_word``, otherwise to nothing."""
    if budget < _MIN_TRUNCATED_CHARS:
        return ""
    # Search one character beyond the budget, to tell the end of a sentence from the point in a number.
    sentence_ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, budget + 1) if match.end() <= budget]
    if sentence_ends and sentence_ends[-1] >= _MIN_TRUNCATED_CHARS:
        return text[: sentence_ends[-1]]
    if not at_word:
        return ""
    truncated = text[: budget - len(TRUNCATION_MARK)]
    whole_words = truncated.rpartition(" ")[0]
    return (whole_words if len(whole_words) >= _MIN_TRUNCATED_CHARS else truncated).rstrip() + TRUNCATION_MARK
