"""Split sentences into clauses, and keep those that the caller states of themselves without doubt.

Where a sentence is doubtful, nothing is learned from it; its turn stays recallable.
"""

import attrs

from memoair_cloud.consolidation.forms import Forms
from memoair_cloud.consolidation.language import Language, Speech

# A longer clause is no plain statement. The limit also bounds the time that the expressions take.
_MAX_CLAUSE_CHARS = 300


@attrs.frozen
class _Clause:
    text: str
    joined_by: str = ""
    is_doubtful: bool = False


def find_statements(sentence: str, language: Language) -> list[str]:
    """Return the clauses of a sentence that state something: no question, no hypothesis, no doubt, no reported speech.

    Contractions in them are written out.
    """
    speech, forms = language.speech, language.forms
    sentence = speech.courtesy.sub("", forms.expand_contractions(sentence))
    if speech.whole_sentence.search(sentence):
        return []
    clauses = _split(sentence, language)
    if sentence.rstrip(" .\"'").endswith("?"):
        clauses = _drop_question(clauses, language)
    statements: list[str] = []
    is_open = True  # whether what was said so far leaves the next clause a plain statement
    for position, clause in enumerate(clauses):
        follower = clauses[position + 1] if position + 1 < len(clauses) else None
        before = clauses[position - 1].text if position else ""  # empty: merely a greeting
        if clause.joined_by == "contrast":
            is_open = True
        if clause.joined_by == "colon" or clause.is_doubtful:
            is_open = False  # what follows a doubt, or is announced, may hang on it
        if follower is not None and follower.is_doubtful and follower.joined_by in ("comma", "stop"):
            is_open = False  # "..., I think": the doubt is about what was just said
        if (
            clause.joined_by == "comma"
            and before
            and (not forms.own_clause.match(before) or forms.announcing.search(before))
        ):
            is_open = False
        is_short = 0 < len(clause.text) <= _MAX_CLAUSE_CHARS
        if is_open and is_short and not speech.question.match(clause.text):
            statements += _distribute(clause.text, forms)
    return statements


def is_announcement(sentence: str, language: Language) -> bool:
    """Return whether a sentence announces another person's words, which follow: "Your letter says."."""
    sentence = language.forms.expand_contractions(sentence)
    found = [match.end() for match in language.speech.reported.finditer(sentence)]
    return bool(found) and len(sentence[found[-1] :].split()) <= 1


def _split(sentence: str, language: Language) -> list[_Clause]:
    speech, forms = language.speech, language.forms
    pieces: list[tuple[str, str]] = []
    joined_by, start = "", 0
    for match in forms.boundary.finditer(sentence):
        pieces.append((joined_by, sentence[start : match.start()]))
        joined_by, start = match.lastgroup or "", match.end()
    pieces.append((joined_by, sentence[start:]))
    clauses: list[_Clause] = []
    for position, (joiner, piece) in enumerate(pieces):
        text = piece.strip(" ,.!?")
        if (
            text.istitle()
            and " " not in text
            and position + 1 < len(pieces)
            and forms.and_i.match(pieces[position + 1][1])
        ):
            pieces[position + 1] = joiner, f"{text} and {pieces[position + 1][1]}"  # "Ann and I have separated"
            continue
        time = language.days.find_expression(text)
        if time and time[0] == text and position + 1 < len(pieces):  # "In March, I ..." is one clause
            pieces[position + 1] = joiner, f"{text}, {pieces[position + 1][1]}"
            continue
        bare = _strip_lead(text, speech)
        is_request = bool(speech.request.match(bare)) and not speech.reported.search(bare)
        is_doubtful = not is_request and bool(speech.doubt.search(bare) or speech.reported.search(bare))
        clauses.append(_Clause(bare, joiner, is_doubtful))
    return clauses


def _strip_lead(text: str, speech: Speech) -> str:
    lead = speech.lead.match(text)
    return text[lead.end() :].strip(" ,.!?") if lead else text


def _drop_question(clauses: list[_Clause], language: Language) -> list[_Clause]:
    """Return the clauses before the question that ends a sentence; none if it asks whether they are true."""
    speech, last = language.speech, clauses[-1].text if clauses else ""
    if len(clauses) == 1 or not speech.question.match(last) or speech.tag.fullmatch(last):
        return []
    return clauses[:-1]


def _distribute(clause: str, forms: Forms) -> list[str]:
    if joined := forms.shared_subject.fullmatch(clause):
        return [*_distribute(joined["first"], forms), *_distribute(f"{joined['who']} {joined['second']}", forms)]
    shared = forms.shared_verb.fullmatch(clause)
    if not shared:
        return [clause]
    return [f"{shared['verb']}{shared['first']}", *_distribute(f"{shared['verb']}{shared['second']}", forms)]
