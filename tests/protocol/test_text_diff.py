"""Differences of texts: they are what `patch` expects, exact to the last byte, and take bounded time."""

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from memoair_protocol.text_diff import diff_texts, split_lines


def apply_patch(before: str, diff: str, folder: Path) -> str:
    file = folder / "text"
    file.write_bytes(before.encode())
    patch = shutil.which("patch")
    assert patch
    subprocess.run([patch, "--binary", "-s", str(file)], input=diff.encode(), check=True, timeout=60)
    return file.read_bytes().decode() if file.exists() else ""


def test_the_same_text_has_no_difference() -> None:
    assert diff_texts("a\nb", "a\nb", "x", "y") == ""
    assert diff_texts("", "", "x", "y") == ""


def test_a_difference_is_a_unified_diff() -> None:
    before = "".join(f"{number}\n" for number in range(20))
    after = before.replace("10\n", "ten\n")
    assert diff_texts(before, after, "version 1", "version 2", context_lines=1) == (
        "--- version 1\n+++ version 2\n@@ -10,3 +10,3 @@\n 9\n-10\n+ten\n 11\n"
    )


def test_a_last_line_without_a_line_feed_is_marked() -> None:
    assert diff_texts("a", "a\n", "x", "y") == ("--- x\n+++ y\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n")


def test_only_line_feeds_separate_lines() -> None:
    assert split_lines("a\r\nb\u2028c\x0bd\n\ne") == ["a\r\n", "b\u2028c\x0bd\n", "\n", "e"]
    assert split_lines("") == []


@pytest.mark.skipif(shutil.which("patch") is None, reason="there is no patch here")
def test_patch_makes_one_text_of_the_other(tmp_path: Path) -> None:
    chance = random.Random(7)
    lines = ["a\n", "b\n", "\n", "c d\n", "é\n", "last"]
    for _ in range(30):
        before, after = ("".join(chance.choices(lines, k=chance.randrange(12))) for _ in range(2))
        if before == after or not before or not after:
            continue
        assert apply_patch(before, diff_texts(before, after, "text", "text"), tmp_path) == after


@pytest.mark.skipif(shutil.which("patch") is None, reason="there is no patch here")
def test_hostile_texts_take_bounded_time_and_are_compared_by_their_ends(tmp_path: Path) -> None:
    chance = random.Random(7)
    often = [f"{number}\n" for number in range(110) for _ in range(250)]  # each a little too rare to be ignored
    distinct = [f"{number}\n" for number in range(9_000)]
    for lines, other_lines in (
        (chance.sample(often, len(often)), chance.sample(often, len(often))),
        (distinct, [part for line in distinct for part in (line, f"x{line}")]),
    ):
        before, after = ("".join(["head\n", *part, "tail\n"]) for part in (lines, other_lines))
        started = time.process_time()
        diff = diff_texts(before, after, "text", "text")
        assert time.process_time() - started < 5
        assert diff.splitlines()[3] == " head"
        assert apply_patch(before, diff, tmp_path) == after
