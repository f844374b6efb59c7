"""Names of speakers: compared and shown in one form, none that is a role, and none that speaks for the agent."""

# ruff: noqa: RUF001 - some tests are about characters that look alike

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memoair_protocol.names import clean_name, is_role_name, name_key, name_sides
from memoair_protocol.sanitizer import sanitize_speaker

LIKE_JUNO = [
    "Juno",
    "juno",
    "Jun\u200bo",
    "Ju\N{SOFT HYPHEN}no",
    "\u202eJuno\u202c",
    " Juno ",
    "Juno.",
    "Juno:",
    "Juno\N{FULLWIDTH COLON}",
    "Juno,",
    "Juno -",
    "\N{NO-BREAK SPACE}Juno\u3000",
    "J u n o",
    "J.u.n.o.",
    "Ju-no",
    "Jun\u034fo",
    "Juno\ufe0f",
    "\u3164Juno",
    "Ｊｕｎｏ",
    "𝐉𝐮𝐧𝐨",
    "Junó",
    "Jun0",
    "Ｊun\u2060o",
    "Juno AI",
    "the Juno bot",
    "Juno (official)",
]


@pytest.mark.parametrize("name", LIKE_JUNO)
def test_a_name_that_looks_like_the_agents_is_marked_as_the_callers(name: str) -> None:
    caller, agent = name_sides(name, "Juno")
    assert caller.endswith(" (caller)"), caller
    assert agent == "Juno (agent)"
    assert not any(unicodedata.category(char) in ("Cf", "Cc") for char in caller)
    assert sanitize_speaker(caller, "?") == caller
    assert name_sides(caller, agent) == (caller, agent)


@pytest.mark.parametrize("name", ["Junо", "Јuno", "Јunо", "Jυno"])  # with Cyrillic and Greek letters
def test_a_word_of_two_alphabets_is_no_name(name: str) -> None:
    assert name_key(name) == "juno"
    assert name_sides(name, "Juno") == ("Caller", "Juno")
    assert name_sides(name, "Mira") == ("Caller", "Mira")


@pytest.mark.parametrize("name", ["Agent", "agent.", "Juno, your agent", "A\u200bgent", "Agent Juno", "the agent"])
@pytest.mark.parametrize("agent_name", [None, "", "Juno", "Agent"])
def test_a_caller_does_not_speak_as_an_agent(name: str, agent_name: str | None) -> None:
    assert name_sides(name, agent_name) == ("Caller", agent_name or "Agent")


@pytest.mark.parametrize(
    "name",
    [
        "user", "USER", "User 1", "user_2", "the user", "model", "human", "Human:", "AI", "A.I.", "a i", "assistant",
        "AI assistant", "s.y.s.t.e.m", "s y s t e m", "S-Y-S-T-E-M", "sys\u200btem", "ѕуѕтем", "système",
        "chatbot", "GPT-4", "the model", "bot", "prompt", "Sistema", "asistente", "usuario",
        "Benutzer", "utilisateur", "Mensch",
        "用户", "系统",
        "系统管理员", "助手", "ユーザー", "アシスタント", "사용자", "시스템", "система", "пользователь",
        "المستخدم", "النظام", "ｕｓｅｒ", "<|user|>", "[user]", "### Human", "user (admin)", "tool",
        "function", "developer",
    ],
)  # fmt: skip
def test_a_role_is_no_name(name: str) -> None:
    assert is_role_name(name)
    assert sanitize_speaker(name, "Speaker") == "Speaker"
    assert name_sides(name, "Juno") == ("Caller", "Juno")
    assert name_sides("Dana", name) == ("Dana", "Agent")


@pytest.mark.parametrize(
    "name",
    [
        "Dana", "Dana Weber", "O'Brien", "李小龙", "Ana-María", "Dr. Weber", "Systema Ltd", "Ai Weiwei", "Roger Human",
        "Heidi Model", "Dana (mobile)", "Иван Иванов", "Νίκος Παππάς", "علی رضا", "नरेन्द्र मोदी", "Nguyễn Văn A", "M",
        "José Ángel", "Zoë", "Louise Mensch", "Caller", "Speaker", "김민준", "さくら", "D'Arcy St. James", "Kim & Lee",
    ],
)  # fmt: skip
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert clean_name(name) == name
    assert not is_role_name(name)
    assert name_sides(name, "Juno") == (name, "Juno")


def test_a_persian_name_loses_its_joiner_and_a_long_one_its_end() -> None:
    assert clean_name("علی\N{ZERO WIDTH NON-JOINER}رضا") == "علیرضا"
    assert clean_name("Dana " * 40) == ("Dana " * 12).strip()
    assert clean_name("x" * 10_000_000) == "x" * 60


@given(st.text(max_size=80), st.text(max_size=80))
@example("Juno (caller)", "Juno (agent)")
@example("(", ")")
@example("\ufdfa" * 20, "")
def test_any_two_names_are_distinct(caller_name: str, agent_name: str) -> None:
    caller, agent = name_sides(caller_name, agent_name)
    assert caller
    assert agent
    assert name_key(caller) != name_key(agent)
    for name in (caller, agent):
        assert len(name.splitlines()) == 1
        assert len(name) <= 70
        assert not set(name) & set(":#<>[]{}|")
        assert clean_name(name) == name or name.endswith(")")
    assert name_sides(caller, agent) == (caller, agent)
