"""Load ``foreign_words.yaml``: the gates for languages without rules, and those for all languages."""

import re
from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT = Path(__file__).with_name("foreign_words.yaml").read_text(encoding="utf-8")
_LISTS: dict[str, Any] = yaml.load(_TEXT, Loader=_LOADER)  # noqa: S506 - safe


def _compile(name: str, more: str = "") -> re.Pattern[str]:
    words = "|".join(sorted(map(re.escape, _LISTS[name].split()), key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)|{_LISTS['unspaced'][name]}{more}", re.IGNORECASE)


NEGATION = _compile("negation")
DOUBT = _compile("doubt")
REPORT = _compile("report")
KIN = _compile("kin")
THE_CALLER = _compile("the_caller", r"|\b(?:the|this) (?:caller|user|customer|client|person on the (?:line|phone))\b")
PRIVILEGE, INSTRUCTION = (re.compile("|".join(_LISTS[name]), re.IGNORECASE) for name in ("privilege", "instruction"))
QUESTION = re.compile(
    "[?\N{INVERTED QUESTION MARK}\N{ARABIC QUESTION MARK}\N{FULLWIDTH QUESTION MARK}\N{GREEK QUESTION MARK}]"
    "|\N{HIRAGANA LETTER KA}[\N{IDEOGRAPHIC FULL STOP}.]?$"
)
QUOTATION = re.compile(
    '["\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}'
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    "\N{LEFT CORNER BRACKET}\N{RIGHT CORNER BRACKET}]|:\\s"
)
