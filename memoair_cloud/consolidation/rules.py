"""The default extractor: rules, the same everywhere, without a network. A fact that is doubtful is none."""

from collections.abc import Sequence

import attrs

from memoair_cloud.consolidation import identity, plans_and_events, preferences, relations
from memoair_cloud.consolidation.commitments import commitments
from memoair_cloud.consolidation.normalization import put_right, recent, statements, understood
from memoair_cloud.consolidation.records import CallTurn, Extraction, Fact
from memoair_cloud.consolidation.rule_api import Statement, found_by
from memoair_cloud.consolidation.words import is_cased

NAME = "rules"
_RULES = (*identity.RULES, *relations.RULES, *preferences.RULES, *plans_and_events.RULES)
# Whoever corrects himself means what was said a moment ago.
_LOOK_BACK_TURNS = 3


class RuleExtractor:
    """Finds what is said plainly: precise rather than greedy, since every word stays recallable as it was said."""

    def extract(self, turns: Sequence[CallTurn]) -> Extraction:
        """The facts that the turns of one session tell."""
        found: list[Fact] = []
        told: list[list[str]] = []  # by turn, the sentences that may be put right later
        ordered = sorted(turns, key=lambda turn: (turn.number, turn.said_at, turn.event_id))
        before: CallTurn | None = None
        for turn in ordered:
            spoken = understood(turn.user_text)
            asked, said = (recent(before.assistant_text), recent(before.user_text)) if before else ("", "")
            cased = is_cased(turn.user_text)
            sentences = list(spoken.sentences)
            of_turn = [fact for sentence in sentences for fact in _read(sentence, turn, asked, said, is_cased=cased)]
            if spoken.correction:
                for earlier in reversed(told[-_LOOK_BACK_TURNS:]):
                    mended = [(old, new) for old in reversed(earlier) if (new := put_right(old, spoken.correction))]
                    if mended:
                        old, new = mended[0]
                        of_turn += _corrected(
                            _read(old, turn, "", "", is_cased=True), _read(new, turn, "", "", is_cased=True)
                        )
                        sentences.append(new)  # who puts right twice means the second time what he said the first
                        break
            told.append(sentences)
            of_turn += commitments(turn, understood(turn.assistant_text).sentences)
            found += of_turn
            before = turn
        return Extraction(tuple(dict.fromkeys(found)), NAME)


def _read(sentence: str, turn: CallTurn, asked: str, said: str, *, is_cased: bool) -> list[Fact]:
    found: list[Fact] = []
    for clause in statements(sentence):
        heard = Statement(clause, turn, asked, said, is_cased)
        found += found_by(_RULES, heard)
    return found


def _corrected(old: list[Fact], new: list[Fact]) -> list[Fact]:
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
