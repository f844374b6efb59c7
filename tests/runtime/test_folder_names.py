"""Folder names: for any identifier safe, unique, and read back from a real folder."""

import re
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memoair_runtime.storage.folder_names import ID_FILE, folder_name, is_shortened, read_identifier
from memoair_runtime.storage.user_folder import UserFolder

SAFE = re.compile(r"[a-z0-9_%A-F~-]{1,80}")
WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}

TRICKY_IDENTIFIERS = [
    "../../etc",
    "a/b",
    "a\\b",
    "A",
    "a",
    " ",
    "\t \n",
    "x" * 300,
    "X" * 300,
    "ü" * 300,
    "👢",
    "👩\N{ZERO WIDTH JOINER}👧",
    "con",
    "CON",
    "com1",
    "-rf",
    ".",
    "..",
    "%41",
    "%",
    "~",
    "call-1",
    "id.txt",
    "profile.json",
    "\x00",
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{KELVIN SIGN}",
    "k",
    "ß",
    "ss",
]

any_identifier = st.text(min_size=1)
# Identifiers of characters that have a meaning for file systems, shells or the encoding itself, also long ones.
nasty_identifier = st.text("aAbB.%/\\~-_: 4149eE\r\n\t\x00éÉ\u017f\u212a\u0301", min_size=1, max_size=60)
long_identifier = st.builds(lambda text, times: text * times, nasty_identifier, st.integers(2, 20))
identifiers = any_identifier | nasty_identifier | long_identifier

FILE_SYSTEM_FOLDINGS: list[Callable[[str], str]] = [
    str,
    str.casefold,
    str.upper,
    *(lambda name, form=form: unicodedata.normalize(form, name) for form in ("NFC", "NFD", "NFKC", "NFKD")),
]
SIMILAR_IDENTIFIERS: list[Callable[[str], str]] = [
    *FILE_SYSTEM_FOLDINGS,
    str.lower,
    str.swapcase,
    str.strip,
    folder_name,
    lambda text: text + " ",
    lambda text: text + ".",
    lambda text: text[:-1],
    lambda text: text.replace("\r", "\n"),
]


def list_session_ids(folder: UserFolder) -> list[str]:
    return [session_id for session_id, _ in folder.list_session_logs()]


@given(identifiers)
@settings(deadline=None)
def test_a_name_is_safe_on_every_file_system(identifier: str) -> None:
    assert_safe(identifier)


@pytest.mark.parametrize("identifier", [*TRICKY_IDENTIFIERS, *sorted(WINDOWS_DEVICES), "-", "--", "-" * 80, "-" * 300])
def test_the_name_of_a_reserved_identifier_is_safe(identifier: str) -> None:
    assert_safe(identifier)


def assert_safe(identifier: str) -> None:
    name = folder_name(identifier)
    assert SAFE.fullmatch(name)
    assert not name.startswith("-")
    assert name not in WINDOWS_DEVICES


@given(identifiers, identifiers)
@settings(deadline=None)
def test_no_two_identifiers_share_a_name(one: str, other: str) -> None:
    if one != other:
        assert_names_differ(one, other)


@given(identifiers, st.sampled_from(SIMILAR_IDENTIFIERS))
@settings(deadline=None, max_examples=300)
def test_similar_identifiers_have_different_names(identifier: str, change: Callable[[str], str]) -> None:
    other = change(identifier)
    if other and other != identifier:
        assert_names_differ(identifier, other)


def test_tricky_identifiers_have_different_names() -> None:
    for number, one in enumerate(TRICKY_IDENTIFIERS):
        for other in TRICKY_IDENTIFIERS[:number]:
            assert_names_differ(one, other)


def assert_names_differ(one: str, other: str) -> None:
    for same in FILE_SYSTEM_FOLDINGS:
        assert same(folder_name(one)) != same(folder_name(other))


@pytest.mark.parametrize("identifier", ["call-1", "caller_42", "0", "a" * 80])
def test_a_plain_identifier_is_its_own_name(identifier: str) -> None:
    assert folder_name(identifier) == identifier


def test_an_empty_identifier_is_rejected() -> None:
    with pytest.raises(ValueError, match="empty"):
        folder_name("")


@given(identifiers)
@example("\r\n" * 60)
@example("x" * 79 + "\r")
@example("-" * 80)
@settings(deadline=None, max_examples=60)
def test_an_identifier_is_read_back_from_its_folder(identifier: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        assert_round_trip(Path(root), identifier)


@pytest.mark.parametrize("identifier", TRICKY_IDENTIFIERS)
def test_a_tricky_identifier_is_read_back_from_its_folder(identifier: str, tmp_path: Path) -> None:
    assert_round_trip(tmp_path, identifier)


def assert_round_trip(root: Path, identifier: str) -> None:
    folder = UserFolder(root, project_id=identifier, user_id=identifier)
    session = folder.create_session(identifier)
    session.log.touch()

    assert list_session_ids(folder) == [identifier]
    assert read_identifier(folder.path) == identifier
    assert read_identifier(folder.path.parent) == identifier
    assert list(root.rglob("session.jsonl")) == [session.log]
    assert len(session.log.resolve().relative_to(root.resolve()).parts) == 4
    assert read_identifier(session.path) == identifier


def test_all_sessions_of_a_user_are_listed_by_their_ids(tmp_path: Path) -> None:
    folder = UserFolder(tmp_path, "proj", "user")
    for identifier in TRICKY_IDENTIFIERS:
        folder.create_session(identifier).log.touch()

    assert sorted(list_session_ids(folder)) == sorted(TRICKY_IDENTIFIERS)
    assert len(list(folder.path.iterdir())) == len(TRICKY_IDENTIFIERS)


def test_our_own_files_and_foreign_folders_are_not_sessions(tmp_path: Path) -> None:
    folder = UserFolder(tmp_path, "proj", "user")
    folder.create_session("call-1").log.touch()
    folder.create_session("without a log yet")
    folder.profile.write_text("{}")
    folder.lock("profile").touch()
    for name in ("lost+found", "Call-1", "call-1.bak", "%2f", "%zz", "%C3", "~x", f"{'a' * 15}~{'0' * 64}", "%61"):
        (folder.path / name).mkdir()
        (folder.path / name / "session.jsonl").touch()

    assert list_session_ids(folder) == ["call-1"]


def test_a_user_without_a_folder_has_no_sessions(tmp_path: Path) -> None:
    assert list_session_ids(UserFolder(tmp_path / "not there", "proj", "user")) == []


def test_a_folder_whose_id_file_holds_another_id_is_ignored(tmp_path: Path) -> None:
    folder = UserFolder(tmp_path, "proj", "user")
    session = folder.create_session("x" * 300)
    session.log.touch()
    for content in (b"call-1", b"", b"\xff\xfe", b"x" * 301):
        (session.path / ID_FILE).write_bytes(content)
        assert list_session_ids(folder) == []


def test_an_id_file_that_is_missing_after_a_crash_is_written_at_the_next_start(tmp_path: Path) -> None:
    folder = UserFolder(tmp_path, "proj", "user")
    session = folder.create_session("x" * 300)
    assert is_shortened(session.path.name)
    (session.path / ID_FILE).unlink()

    folder.create_session("x" * 300).log.touch()
    assert list_session_ids(folder) == ["x" * 300]
