"""The default extractor: rules that work the same everywhere and need no network. Doubtful facts are left out."""

from collections.abc import Sequence

import attrs

from memoair_cloud.consolidation import identity, plans_and_events, preferences, relations
from memoair_cloud.consolidation.commitments import find_commitments
from memoair_cloud.consolidation.normalization import apply_correction, parse_utterance, recent_text, split_statements
from memoair_cloud.consolidation.records import CallTurn, Extraction, Fact
from memoair_cloud.consolidation.rule_api import Statement, apply_rules
from memoair_cloud.consolidation.words import has_capitals

NAME = "rules"
_RULES = (*identity.RULES, *relations.RULES, *preferences.RULES, *plans_and_events.RULES)
# A correction refers to one of the last few turns.
_MAX_CORRECTED_TURNS = 3


class RuleExtractor:
    """Finds what is said plainly.

    It prefers precision to recall, because all turns stay recallable as they were said.
    """

    def extract(self, turns: Sequence[CallTurn]) -> Extraction:
        """Return the facts in the turns of one session. Their order does not matter."""
        facts: list[Fact] = []
        sentences_by_turn: list[list[str]] = []  # by turn: the sentences that a later turn may correct
        ordered = sorted(turns, key=lambda turn: (turn.number, turn.said_at, turn.event_id))
        previous: CallTurn | None = None
        for turn in ordered:
            utterance = parse_utterance(turn.user_text)
            agent_before, caller_before = (
                (recent_text(previous.assistant_text), recent_text(previous.user_text)) if previous else ("", "")
            )
            has_caps = has_capitals(turn.user_text)
            sentences = list(utterance.sentences)
            turn_facts = [
                fact
                for sentence in sentences
                for fact in _extract_from_sentence(sentence, turn, agent_before, caller_before, has_capitals=has_caps)
            ]
            if utterance.correction:
                for earlier in reversed(sentences_by_turn[-_MAX_CORRECTED_TURNS:]):
                    corrections = [
                        (old, new) for old in reversed(earlier) if (new := apply_correction(old, utterance.correction))
                    ]
                    if corrections:
                        old, new = corrections[0]
                        turn_facts += _link_corrections(
                            _extract_from_sentence(old, turn, "", "", has_capitals=True),
                            _extract_from_sentence(new, turn, "", "", has_capitals=True),
                        )
                        sentences.append(new)  # a second correction refers to the corrected sentence
                        break
            sentences_by_turn.append(sentences)
            turn_facts += find_commitments(turn, parse_utterance(turn.assistant_text).sentences)
            facts += turn_facts
            previous = turn
        return Extraction(tuple(dict.fromkeys(facts)), NAME)


def _extract_from_sentence(
    sentence: str, turn: CallTurn, agent_before: str, caller_before: str, *, has_capitals: bool
) -> list[Fact]:
    facts: list[Fact] = []
    for clause in split_statements(sentence):
        statement = Statement(clause, turn, agent_before, caller_before, has_capitals)
        facts += apply_rules(_RULES, statement)
    return facts


def _link_corrections(old: list[Fact], new: list[Fact]) -> list[Fact]:
    """Return the facts of a corrected sentence, each with the value that it replaces."""
    if len(old) != len(new):
        return new
    pairs = zip(old, new, strict=True)
    return [
        attrs.evolve(after, corrects=before.value)
        if (before.subject, before.attribute) == (after.subject, after.attribute) and before.value != after.value
        else after
        for before, after in pairs
    ]
