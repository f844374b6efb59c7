"""The default extractor: rules, the same everywhere, without a network. A fact that is doubtful is none."""

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
# Whoever corrects himself means what was said a moment ago.
_MAX_CORRECTED_TURNS = 3


class RuleExtractor:
    """Finds what is said plainly: precise rather than greedy, since every word stays recallable as it was said."""

    def extract(self, turns: Sequence[CallTurn]) -> Extraction:
        """The facts that the turns of one session tell."""
        facts: list[Fact] = []
        sentences_by_turn: list[list[str]] = []  # by turn, the sentences that may be put right later
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
                        sentences.append(new)  # who puts right twice means the second time what he said the first
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
    """The facts of a mended sentence, each with the value that it takes the place of."""
    if len(old) != len(new):
        return new
    pairs = zip(old, new, strict=True)
    return [
        attrs.evolve(after, corrects=before.value)
        if (before.subject, before.attribute) == (after.subject, after.attribute) and before.value != after.value
        else after
        for before, after in pairs
    ]
