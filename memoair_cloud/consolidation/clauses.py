"""Split sentences into clauses, and keep those that the caller states of themselves without doubt.

Where a sentence is doubtful, nothing is learned from it; its turn stays recallable.
"""

import re

import attrs

from memoair_cloud.consolidation.date_expressions import find_time_expression
from memoair_cloud.consolidation.language import Speech

# A longer clause is no plain statement. The limit also bounds the time that the expressions take.
_MAX_CLAUSE_CHARS = 300
_CONTRACTIONS = {
    r"\b(i)'m\b": r"\1 am",
    r"\b(i|we|you|they)'ve\b": r"\1 have",
    r"\b(i|we|you|he|she|they|it|that)'ll\b": r"\1 will",
    r"\b(i|we|you|he|she|they)'d\b": r"\1 would",
    r"\b(we|you|they)'re\b": r"\1 are",
    r"\b(it|that|he|she|there|what|who|here)'s\b": r"\1 is",
    r"\b(do|does|did|is|are|was|were|have|has|had|would|could|should)n't\b": r"\1 not",
    r"\bwon't\b": "will not",
    r"\bcan't\b": "cannot",
}
# "My number: 555-0142" states; another colon announces something.
_STATING_COLON = re.compile(
    r"\b(my (?:[a-z]+ )?(?:number|e-?mail|address|name|mobile|phone|birthday)): ", re.IGNORECASE
)
# "My motto was, ...": a verb without what it says
_ANNOUNCING = re.compile(r"\b(?:is|was|were|are|goes|be)$", re.IGNORECASE)
_CONTRACTION = [(re.compile(pattern, re.IGNORECASE), full) for pattern, full in _CONTRACTIONS.items()]
_SUBJECT = r"(?:i|we|my|our|it|she|he|they|that|you|there|everyone|everybody|people|friends)\b"
# What joins two clauses: a colon announces something else; after "and" and "but" a statement is as good as before.
_BOUNDARY = re.compile(
    r"(?P<colon>:\s+)|(?P<stop>;\s+|\s+-+\s+)"
    r"|(?P<contrast>,?\s+(?:but|however,?)\s+)"
    r"|(?P<coordinate>,?\s+(?:because|although|(?<!as )though|while|whereas|so that|'cause|cause)\s+"
    r"|,\s+so\s+"
    rf"|(?:,\s*|\s+)(?:and|so|and so|and then|or)\s+(?!you know\b)(?=(?:{_SUBJECT}|(?:can|could|please|do not)\b)))"
    rf"|(?P<comma>,\s*(?=(?:{_SUBJECT}|(?:this|which|who|do|does|can|could|would|is|are|where|what|please|but|not)\b)))",
    re.IGNORECASE,
)
# A clause before another one that the caller says of themselves or of the call.
_OWN_CLAUSE = re.compile(
    r"(?:i|we|my|our|it is|this is|please|do not|can|could|thank|call|text|email|ring|no|never)\b", re.IGNORECASE
)
_AND_I = re.compile(r"i\b", re.IGNORECASE)
# "I have a dog called Rex and a cat called Milo": subject and verb hold for both.
_SHARED_SUBJECT = re.compile(
    r"(?P<first>(?P<who>i|we) .+?) and (?P<second>"
    r"(?:have|work|live|take|like|love|hate|am|are|speak|eat|prefer|come) .+)",
    re.IGNORECASE,
)
_SHARED_VERB = re.compile(
    r"(?P<verb>(?:i|we) (?:have(?: got)?|own|take|adopted|have adopted) )"
    r"(?P<first>(?:an?|one|two|three|four|five) .+?),? and "
    r"(?P<second>(?:an?|one|two|three|four) .+)",
    re.IGNORECASE,
)


@attrs.frozen
class _Clause:
    text: str
    joined_by: str = ""
    is_doubtful: bool = False


def expand_contractions(text: str) -> str:
    """Return a text with its contractions written out: "I'm" as "I am"."""
    for pattern, full in _CONTRACTION:
        text = pattern.sub(full, text)
    return _STATING_COLON.sub(r"\1 is ", text)


def find_statements(sentence: str, speech: Speech) -> list[str]:
    """Return the clauses of a sentence that state something: no question, no hypothesis, no doubt, no reported speech.

    Contractions in them are written out.
    """
    sentence = speech.courtesy.sub("", expand_contractions(sentence))
    if speech.whole_sentence.search(sentence):
        return []
    clauses = _split(sentence, speech)
    if sentence.rstrip(" .\"'").endswith("?"):
        clauses = _drop_question(clauses, speech)
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
        if clause.joined_by == "comma" and before and (not _OWN_CLAUSE.match(before) or _ANNOUNCING.search(before)):
            is_open = False
        is_short = 0 < len(clause.text) <= _MAX_CLAUSE_CHARS
        if is_open and is_short and not speech.question.match(clause.text):
            statements += _distribute(clause.text)
    return statements


def is_announcement(sentence: str, speech: Speech) -> bool:
    """Return whether a sentence announces another person's words, which follow: "Your letter says."."""
    found = [match.end() for match in speech.reported.finditer(expand_contractions(sentence))]
    return bool(found) and len(expand_contractions(sentence)[found[-1] :].split()) <= 1


def _split(sentence: str, speech: Speech) -> list[_Clause]:
    pieces: list[tuple[str, str]] = []
    joined_by, start = "", 0
    for match in _BOUNDARY.finditer(sentence):
        pieces.append((joined_by, sentence[start : match.start()]))
        joined_by, start = match.lastgroup or "", match.end()
    pieces.append((joined_by, sentence[start:]))
    clauses: list[_Clause] = []
    for position, (joiner, piece) in enumerate(pieces):
        text = piece.strip(" ,.!?")
        if text.istitle() and " " not in text and position + 1 < len(pieces) and _AND_I.match(pieces[position + 1][1]):
            pieces[position + 1] = joiner, f"{text} and {pieces[position + 1][1]}"  # "Ann and I have separated"
            continue
        time = find_time_expression(text)
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


def _drop_question(clauses: list[_Clause], speech: Speech) -> list[_Clause]:
    """Return the clauses before the question that ends a sentence; none if it asks whether they are true."""
    last = clauses[-1].text if clauses else ""
    if len(clauses) == 1 or not speech.question.match(last) or speech.tag.fullmatch(last):
        return []
    return clauses[:-1]


def _distribute(clause: str) -> list[str]:
    if joined := _SHARED_SUBJECT.fullmatch(clause):
        return [*_distribute(joined["first"]), *_distribute(f"{joined['who']} {joined['second']}")]
    shared = _SHARED_VERB.fullmatch(clause)
    if not shared:
        return [clause]
    return [f"{shared['verb']}{shared['first']}", *_distribute(f"{shared['verb']}{shared['second']}")]
