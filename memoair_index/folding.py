"""Folding: the forms of a text in which words are compared."""

import re
import unicodedata

# Accents of Latin, Greek and Cyrillic are removed, because people often leave them out.
_ACCENTS = re.compile("[\u0300-\u036f]")
_APOSTROPHES = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{MODIFIER LETTER APOSTROPHE}": "'"})


def fold(text: str) -> str:
    """Return a text in the form in which words are compared: lower case, no accents, one form for each character."""
    if text.isascii():
        return text.lower()
    # Normalized twice, because decomposing can change the case of a character, and folding can make it decomposable.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", folded)).translate(_APOSTROPHES)


def soft_fold(text: str) -> str:
    """Return a text as `fold` does, but with its accents: stemmers of other languages need them."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded.replace("i\u0307", "i").translate(_APOSTROPHES)
