"""Security codes of cards: three or four digits that are named so, or that follow a card number."""

import re
from collections.abc import Iterator

from memoair_redaction.spoken_text import Span

CARD_MASK = "\x01"  # what stands in the text for a card number that was found

_CODE = r"\d(?:[ ,.-]{0,2}\d){2,3}(?![ .,-]{0,2}\d|\w)"
_CUE = (
    r"(?:(?:card )?security (?:code|number)|cvv2?|cvc2?|csc|cvn|cid|(?:three|four|3|4)[- ]digit code"
    r"|card verification (?:code|number|value)"
    r"|verification value"
    r"|(?:three|four|drei|vier|tres|cuatro|3|4)[- ](?:digits?|numbers?|ziffern|zahlen|n[úu]meros|d[íi]gitos|cifras)"
    r"(?: (?!need|have|want)[^\W\d]{1,12}){0,6}? (?:back|front|r[üu]ckseite|hinten|atr[áa]s|detr[áa]s|reverso)"
    r"|(?:code|c[óo]digo|n[úu]mero)(?: (?:on|from|at|de|por|the|la|parte))+ (?:back|front|atr[áa]s|detr[áa]s)"
    r"(?: of (?:it|the card|my card))?"
    r"|sicherheitscode|sicherheitsnummer|pr[üu]fziffer|(?:karten)?pr[üu]fnummer|kartenpr[üu]fziffer"
    r"|c[óo]digo de seguridad|n[úu]mero de seguridad"
    r"|cryptogramme|code de s[ée]curit[ée]|codice di sicurezza)(?:'s)?"
)
_LINKS = (
    r"(?:\W{0,3}(?:is|are|it's|was|number|code|the|my|on|for|card|ist|lautet|sind|es|son|el|la|est|und"
    r"|and)(?![^\W_])){0,5}"
)
_NAMED = re.compile(rf"(?<![^\W_]){_CUE}{_LINKS}\W{{0,4}}(?P<code>{_CODE})", re.IGNORECASE)
_EXPIRY = (
    r"(?:\W{0,3}(?:exp(?:ires?|iry|iration)?(?: date)?|valid (?:until|thru|through|till)|good (?:thru|through|until)"
    r"|until"
    r"|g[üu]ltig bis|l[äa]uft ab|caduca|vence|v[áa]lida hasta|and|on|end)(?![^\W_])){0,3}"
    r"\W{0,3}(?:(?:0?[1-9]|1[0-2]) ?[/.-]? ?(?:20)?[2-5]\d|[a-zäé]{3,10}\.? (?:20)?[2-5]\d)(?!\d)"
)
_AFTER_CARD = re.compile(
    rf"{CARD_MASK}\0*(?:{_EXPIRY})?(?:\W{{0,3}}(?:and|then|und|y|code|is|con|mit|with"
    rf"|the)(?![^\W_])){{0,3}}[^\w{CARD_MASK}]{{0,3}}"
    rf"(?!20[2-4]\d)(?P<code>{_CODE})(?=\s*(?:$|[.,;!?)\n]|(?:thanks|thank|please|ok|bitte|danke|gracias|por|all)\b))",
    re.IGNORECASE,
)


def find_security_codes(text: str) -> Iterator[Span]:
    """Yield the spans of security codes.

    Args:
        text: The text with number words as digits, and with other findings masked; card numbers by `CARD_MASK`.
    """
    for pattern in (_NAMED, _AFTER_CARD):
        for match in pattern.finditer(text):
            yield match.span("code")
