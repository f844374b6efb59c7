"""The default extractor: rules that work the same everywhere and need no network. Doubtful facts are left out."""

from collections.abc import Iterable, Sequence

import attrs

from memoair_cloud.consolidation.clauses import find_statements, is_announcement
from memoair_cloud.consolidation.commitments import find_commitments
from memoair_cloud.consolidation.corrections import apply_correction
from memoair_cloud.consolidation.endings import find_endings, is_closing
from memoair_cloud.consolidation.engine import RuleFinding, Statement, apply_rules
from memoair_cloud.consolidation.language import Language, available_languages, load_language
from memoair_cloud.consolidation.normalization import parse_utterance, recent_text, remove_sounds
from memoair_cloud.consolidation.people import is_name_fact
from memoair_cloud.consolidation.records import ANY_VALUE, DENIED, END_OF_RELATION, CallTurn, Extraction, Fact
from memoair_cloud.consolidation.speakers import CallVoices
from memoair_cloud.consolidation.turn_language import LanguageRecognizer, languages_of_turns
from memoair_cloud.consolidation.words import has_capitals

NAME = "rules"
# A correction refers to one of the last few turns.
_MAX_CORRECTED_TURNS = 3


class RuleExtractor:
    """Finds what is said plainly.

    It prefers precision to recall, because all turns stay recallable as they were said. Thread-safe.

    Args:
        languages: The languages of the callers, each a folder beside this module; None means all. The first one is
            assumed where nothing shows another. From turns in other languages nothing is learned.
    """

    def __init__(self, languages: Sequence[str] | None = None) -> None:
        names = tuple(available_languages() if languages is None else languages)
        self._languages = names
        load_language(names[0])  # the others when a caller first speaks them: each takes a second
        self._recognizer = LanguageRecognizer(names)

    def extract(self, turns: Sequence[CallTurn]) -> Extraction:
        """Return the facts in the turns of one session. Their order does not matter."""
        ordered = sorted(turns, key=lambda turn: (turn.number, turn.said_at, turn.event_id))
        first = load_language(self._languages[0])
        call = _Call(first, CallVoices(first))
        for turn, language in zip(ordered, languages_of_turns(ordered, self._recognizer), strict=True):
            call.add(turn, load_language(language) if language in self._languages else None)
        return Extraction(call.speakers.facts(), NAME, denials=call.speakers.facts(are_denials=True))


@attrs.define
class _Call:
    """The facts of a call so far, and what its next turn may refer to.

    Attributes:
        language: The language of the caller, in the latest turn that is in one of those with rules.
        speakers: Who speaks, and what was learned from each of them.
        facts: The facts.
        denials: What was denied in the current turn, for facts of other calls.
    """

    language: Language
    speakers: CallVoices
    facts: list[Fact] = attrs.field(factory=list)
    denials: list[Fact] = attrs.field(factory=list)
    _sentences: list[list[str]] = attrs.field(factory=list)  # by turn: the sentences that a later turn may correct
    _previous: CallTurn | None = None

    def add(self, turn: CallTurn, language: Language | None) -> None:
        """Add the next turn, and the language that it is in; None if it is in one without rules."""
        found: list[Fact] = []
        self.denials = []
        self.language = self.speakers.language = language or self.language
        speech, text = self.language.speech, self.language.forms.expand_contractions(remove_sounds(turn.user_text))
        is_learnable = self.speakers.follow(turn, text) and not speech.whole_turn.search(text)
        if is_learnable and language is not None:
            found = self._learn(turn)
            if speech.renamed is not None and speech.renamed.search(text):
                found = [attrs.evolve(fact, corrects=ANY_VALUE) if is_name_fact(fact) else fact for fact in found]
        else:
            self._sentences.append([])
        found += find_commitments(turn, parse_utterance(turn.assistant_text, load_language()).sentences)
        self.speakers.add(found, turn)
        self.speakers.add(self.denials, turn, is_denial=True)
        self.facts += found
        self._previous = turn

    def _learn(self, turn: CallTurn) -> list[Fact]:
        utterance = parse_utterance(turn.user_text, self.language)
        agent_before, caller_before = (
            (recent_text(self._previous.assistant_text), recent_text(self._previous.user_text))
            if self._previous
            else ("", "")
        )
        sentences = list(utterance.sentences)
        found: list[Fact] = []
        for sentence in sentences:
            if is_announcement(sentence, self.language):
                break
            position = turn.number - self.speakers.current.first_number
            statement = Statement("", turn, agent_before, caller_before, has_capitals(turn.user_text), position)
            learned = self._hold(self._find(sentence, statement), found)
            if all(map(is_closing, learned)):
                self.denials += find_endings(self.language.forms.expand_contractions(sentence), turn, self.language)
            found += learned
        if utterance.correction:
            for earlier in reversed(self._sentences[-_MAX_CORRECTED_TURNS:]):
                corrections = [
                    (old, new)
                    for old in reversed(earlier)
                    if (new := apply_correction(old, utterance.correction, self.language))
                ]
                if corrections:
                    old, new = corrections[0]
                    statement = Statement("", turn, position=turn.number)
                    found += _link_corrections(
                        self._hold(self._find(old, statement), found), self._hold(self._find(new, statement), found)
                    )
                    sentences.append(new)  # a second correction refers to the corrected sentence
                    break
        self._sentences.append(sentences)
        return found

    def _find(self, sentence: str, statement: Statement) -> Iterable[RuleFinding]:
        for clause in find_statements(sentence, self.language):
            yield from apply_rules(self.language, attrs.evolve(statement, clause=clause))

    def _hold(self, findings: Iterable[RuleFinding], found: Sequence[Fact]) -> list[Fact]:
        """Return the facts of findings: a denial counts if the call has said before what it denies."""
        facts: list[Fact] = []
        for finding in findings:
            before = [*self.facts, *found, *facts]
            if not finding.is_denial or any(_is_closed_by(fact, finding.fact) for fact in before):
                facts.append(finding.fact)
            else:
                denied = f"{DENIED}{finding.fact.corrects or ''}"
                self.denials.append(attrs.evolve(finding.fact, value=denied, text="", is_one_of_many=True))
        return facts


def _is_closed_by(fact: Fact, denial: Fact) -> bool:
    if denial.attribute == END_OF_RELATION:
        return fact.kind is denial.kind and fact.value == denial.corrects
    is_same = (fact.subject, fact.attribute) == (denial.subject, denial.attribute)
    return is_same and fact.value == (denial.corrects or fact.value)


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
