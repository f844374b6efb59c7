"""The code and the documentation use plain words, and each class name once."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_file_contains_a_refused_word_and_no_class_name_is_used_twice() -> None:
    command = [sys.executable, ROOT / "tools" / "plain_words.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), f"mend these:\n{done.stdout}{done.stderr}"
