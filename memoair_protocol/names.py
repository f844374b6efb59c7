"""The names of those who speak: how they are shown, which look the same, and which would pose as a role.

A name comes from an application, a transcript or the caller, and stands before what was said in the text that a model
reads. One that looks like the agent's would speak for the agent. So names are compared and shown in one cleaned form.
What looks alike is decided by a short table and by mixed alphabets, not by all of Unicode's confusable characters.
"""

import re
import unicodedata
from functools import lru_cache

MAX_NAME_CHARS = 60
_MAX_READ_CHARS = 500
_NOT_IN_NAMES = str.maketrans(dict.fromkeys(':#<>[]{}|"\u2039\u203a\u3008\u3009\u2581', " "))
# What cannot be seen in a name and is no control or format character by its category.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
# At the ends of a name these are no part of it, but a closing parenthesis.
_ENDS = "-*.,;!?/\\_+=~&%$@'`\u00b4\u2018\u2019\u201c\u201d\u2026\u2013\u2014\u00b7\u3002\uff61\u3001 "
# An initial and "Jr." keep their full stop. For the comparison of names it does not count.
_ABBREVIATED_END = re.compile(r"(?:^|[\s.])(?:[^\W\d_]|[JjSs]r)\.$")
_WORDS = re.compile(r"[^\W_]+")
# Letters and digits that look like Latin letters, after case is folded.
_ALIKE = {
    ord(char): plain
    for chars, letters in (
        # Cyrillic
        (
            "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u043a\u043c\u0442\u043d\u0432",
            "aeopcyxijshdqwkmthb",
        ),
        ("\u03bf\u03b1\u03bd\u03c5\u03c1\u03b9\u03ba\u03c4\u03c7\u03b7", "oavupiktxn"),  # Greek
        ("\u0578\u057d\u0585\u057c\u0570", "nuonh"),  # Armenian
        ("\u0131\u0237\u0251\u0261", "ijag"),  # other Latin
        ("0135", "oles"),
    )
    for char, plain in zip(chars, letters, strict=True)
}
# Alphabets whose letters look alike: no word of a name is written in two of them.
_ALPHABETS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC")

# Words that no name of a speaker has: roles with authority, in the languages of the extractors and those that chat
# templates and their translations use.
_ROLE_WORDS = frozenset(
    "system assistant developer tool function instruction instructions admin administrator"
    " sistema asistente assistente assistent systeme systeem asistan sistem systemnachricht entwickler"
    " chatbot ipython система ассистент"
    " النظام المساعد".split()
)
# The same where words have no blanks between them.
_ROLE_PARTS = ("系统 系統 助手 助理 システム アシスタント 시스템 어시스턴트").split()
# Words that are a role only if a name has no others: "Human" and "Ai" are names of people, too.
_WEAK_ROLE_WORDS = frozenset(
    "user users model human humans ai bot gpt llm input output response context prompt observation speaker caller agent"
    " usuario usuaria utilisateur utilisatrice utente benutzer nutzer gebruiker kullanici humano humana humain umano"
    " mensch modelo modele modell modello ia ki"
    " пользователь"
    " человек модель 用户 用戶 人类 人類 模型"
    " ユーザー 人間 モデル 사용자 인간 모델"
    " المستخدم".split()
)
_FILLERS = frozenset("the a an my your our el la le der die das il lo o of and message no nr official".split())
_OWN_NAMES = frozenset(["caller", "agent", "speaker"])
_CALLER_MARK, _AGENT_MARK = " (caller)", " (agent)"


def _key(word: str) -> str:
    """Return how a word looks: its letters and digits without case, accents and look-alike letters."""
    plain = unicodedata.normalize("NFKD", word.casefold().translate(_ALIKE)).casefold()
    return "".join(char for char in plain if char.isalnum()).translate(_ALIKE)


# The words above in the form that they are compared in.
_ROLE_KEYS, _WEAK_ROLE_KEYS = frozenset(map(_key, _ROLE_WORDS)), frozenset(map(_key, _WEAK_ROLE_WORDS))
_ROLE_PART_KEYS = tuple(map(_key, _ROLE_PARTS))


def clean_name(name: str) -> str:
    """Return a name as it is shown: NFKC, without what cannot be seen, and without signs around it.

    It has at most 60 characters, and is empty if nothing is left.
    """
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", name[:_MAX_READ_CHARS])).translate(_NOT_IN_NAMES)
    seen = "".join(
        " " if category in ("Cc", "Zl", "Zp") and char.isspace() else char
        for char in text
        if (category := unicodedata.category(char))[0] != "C" or (category == "Cc" and char.isspace())
    )
    cut = _strip_signs(" ".join(seen.split()))[:MAX_NAME_CHARS]
    return _strip_signs(cut)


def _strip_signs(name: str) -> str:
    end = "." if _ABBREVIATED_END.search(name) else ""
    name = name.lstrip(_ENDS + ")").rstrip(_ENDS + "(")
    return (name.rstrip(_ENDS + ")") if "(" not in name else name) + end


def name_key(name: str) -> str:
    """Return what is compared of a name: two names with one key look the same."""
    return _key(clean_name(name))


def is_role_name(name: str) -> bool:
    """Return whether a name would pose as a role: "system", "AI", "s.y.s.t.e.m", or with letters of two alphabets."""
    words = _words_of(name)
    if not words:
        return False
    keys = [_key(word) for word in words]
    joined = "".join(keys)
    if joined in _ROLE_KEYS or not _ROLE_KEYS.isdisjoint(keys) or any(part in joined for part in _ROLE_PART_KEYS):
        return True
    if any(_mixes_alphabets(word) for word in words):
        return True
    roles = [key for key in keys if key in _WEAK_ROLE_KEYS]
    if len(roles) == 1 and len(keys) == 1 and keys[0] in _OWN_NAMES:
        return False  # what we call those who have no name
    is_only_roles = all(
        key in _WEAK_ROLE_KEYS or key in _FILLERS or word.isdigit() or len(key) == 1
        for key, word in zip(keys, words, strict=True)
    )
    return (bool(roles) and is_only_roles) or joined in _WEAK_ROLE_KEYS - _OWN_NAMES


def name_sides(caller_name: str | None, agent_name: str | None) -> tuple[str, str]:
    """Return the names under which the caller and the agent of a call are shown.

    A caller never appears to speak as the agent: not under a name that looks like the agent's, and not as "Agent".
    """
    return _name_sides((caller_name or "")[:_MAX_READ_CHARS], (agent_name or "")[:_MAX_READ_CHARS])


@lru_cache(maxsize=256)
def _name_sides(caller_name: str, agent_name: str) -> tuple[str, str]:
    if caller_name.endswith(_CALLER_MARK) and agent_name.endswith(_AGENT_MARK):
        return caller_name, agent_name  # marked already, and kept so
    caller, agent = _shown(caller_name, "Caller"), _shown(agent_name, "Agent")
    if "agent" in map(_key, _words_of(caller)):
        caller = "Caller"
    if name_key(caller) == name_key(agent) or _core(caller) == _core(agent):
        return f"{caller}{_CALLER_MARK}", f"{agent}{_AGENT_MARK}"
    return caller, agent


def _shown(name: str, fallback: str) -> str:
    cleaned = clean_name(name)
    return fallback if not cleaned or is_role_name(cleaned) else cleaned


def _core(name: str) -> tuple[str, ...]:
    """Return a name without words that say what its bearer is: "Juno", of "Juno AI" and "the Juno bot"."""
    keys = [_key(word) for word in _words_of(name)]
    return tuple(key for key in keys if key not in _WEAK_ROLE_KEYS and key not in _FILLERS) or tuple(keys)


def _words_of(name: str) -> list[str]:
    """Return the words of a name; letters that stand alone one after another are a word: "s.y.s.t.e.m"."""
    words: list[str] = []
    is_spelled = False
    for word in _WORDS.findall(clean_name(name)):
        if is_spelled and len(word) == 1:
            words[-1] += word
        else:
            words.append(word)
        is_spelled = len(word) == 1
    return words


def _mixes_alphabets(word: str) -> bool:
    if word.isascii():
        return False
    names = {unicodedata.name(char, "").partition(" ")[0] for char in word}
    return sum(alphabet in names for alphabet in _ALPHABETS) > 1
