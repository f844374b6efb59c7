"""Count how plainly the code is written, and list what is not.

    python tools/plain_words.py            # the counts, for the shipped packages
    python tools/plain_words.py --check    # list each refused word and each class name used twice; exit code 1 if any

docs/contributing.md explains the rules. Words are looked for in names, comments, docstrings and messages, in Markdown
and in configuration files. Text that callers speak, and patterns that match it, are left out: see ``SPEECH``.
"""

import argparse
import ast
import io
import re
import shutil
import subprocess
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("memoair_", "integrations/")
ARCHAIC = ("whoever", "whomever", "whom", "anew", "nobody", "somebody", "anybody", "meanwhile", "told")
PRONOUNS = ("he", "his", "him", "himself")
PHRASES = ("lest", "thereof", "hence", "whence", "can't be", "is none of", "is none")
REFUSED = re.compile(rf"(?<![A-Za-z])(?<!--)({'|'.join((*ARCHAIC, *PRONOUNS, *PHRASES))})(?![A-Za-z])", re.IGNORECASE)
# Where string literals are callers' speech or patterns over it. Names, comments and docstrings there are checked.
SPEECH = (
    "benchmarks/",  # questions and answers of test data
    "examples/",  # what callers and agents say in them
    "memoair_cli/demo_script.py",
    "memoair_cloud/consolidation/",  # patterns of sentences, and the facts written from them
    "memoair_index/analysis.py",  # stop words
    "memoair_index/cues.py",
    "memoair_index/dates.py",
    "memoair_redaction/",  # words around numbers
    "memoair_runtime/memory/speaker_names.py",
    "tests/",
    "tools/export_minilm.py",  # sentences that callers may say
    "tools/plain_words.py",  # the words themselves
)
_SUFFIXES = {".py", ".md", ".cfg", ".toml", ".ini", ".yml", ".c", ".html", ".css", ".js", ".sh"}
_VENDORED = "memoair_cloud/assets/vendored/"  # written by others
_QUOTED = re.compile(r'"[^"\n]*"|“[^”\n]*”')
_CODE_SPAN = re.compile(r"`[^`\n]*`")
_WORDS_IN_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NOT_MAX = re.compile(r"_?(MOST|LONGEST|SHORTEST|LEAST|FEWEST|LARGEST)_")
_NO_VERB = re.compile(r"(The|A|An|What|Where|When|How|Which|Who|Whose|Whether|One|All|Each|It|This|That|These)$")
# The two faces of the SDK give their agent the same name; docs/conformance.md documents it.
TWICE = {"MemoAirVoiceAgent"}


class RefusedWord(NamedTuple):
    """A refused word and its place."""

    path: str
    line: int
    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r} in: {self.text.strip()[:100]}"


def tracked_files() -> list[str]:
    """Return the text files that are checked, as paths relative to the repository."""
    git = shutil.which("git") or "git"
    listed = subprocess.run(  # noqa: S603 - git itself
        [git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    own_paths = (path for path in listed.splitlines() if not path.startswith(_VENDORED))
    return [path for path in own_paths if Path(path).suffix in _SUFFIXES and (ROOT / path).is_file()]


def find_words(path: str) -> Iterator[RefusedWord]:
    """Yield every refused word in one file."""
    text = (ROOT / path).read_text(encoding="utf-8")
    pieces = _python_pieces(path, text) if path.endswith(".py") else _plain_pieces(path, text)
    for line, piece in pieces:
        for match in REFUSED.finditer(piece):
            at = line + piece.count("\n", 0, match.start())
            yield RefusedWord(path, at, match[0].lower(), _line_at(piece, match))


def _line_at(piece: str, match: re.Match[str]) -> str:
    begin = piece.rfind("\n", 0, match.start()) + 1
    end = piece.find("\n", match.end())
    return piece[begin : end if end >= 0 else None]


def _plain_pieces(path: str, text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if path.endswith((".md", ".c")):  # code and quotations in Markdown; string literals in C
            line = _CODE_SPAN.sub("", _QUOTED.sub("", line))
        yield number, line


def _python_pieces(path: str, text: str) -> Iterator[tuple[int, str]]:
    docstrings = _docstring_lines(ast.parse(text))
    is_speech = path.startswith(SPEECH)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], _QUOTED.sub("", token.string)
        elif token.type == tokenize.NAME:
            yield token.start[0], " ".join(_WORDS_IN_NAME.findall(token.string)).lower()
        elif token.type == tokenize.STRING and token.start[0] in docstrings:
            yield token.start[0], _unquoted(token.string)
        elif token.type == tokenize.STRING and not is_speech:
            yield token.start[0], token.string


def _unquoted(docstring: str) -> str:
    """Return a docstring without its quotes and without the quotations in it, on the same lines."""
    inner = docstring.lstrip("rRbBuUfF").removeprefix('"""').removesuffix('"""')
    return _QUOTED.sub("", inner)


def _docstring_lines(tree: ast.Module) -> set[int]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.body[0].lineno
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None
    }


def shipped_modules() -> dict[str, ast.Module]:
    """Return the parsed modules of the shipped packages by path."""
    paths = [path for path in tracked_files() if path.endswith(".py") and path.startswith(SHIPPED)]
    return {path: ast.parse((ROOT / path).read_text(encoding="utf-8")) for path in paths}


def duplicate_classes(modules: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Return the class names that are defined more than once, with the files that define them."""
    places = defaultdict(list)
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    return {name: paths for name, paths in sorted(places.items()) if len(paths) > 1}


def count() -> dict[str, object]:
    """Return the counts of the shipped code."""
    modules = shipped_modules()
    names = Counter(name for tree in modules.values() for name in _names(tree))
    words = [finding for path in modules for finding in find_words(path)]
    docstrings = [doc for tree in modules.values() for doc in _function_docstrings(tree)]
    imperative = sum(not _NO_VERB.match(doc.split()[0]) for doc in docstrings)
    return {
        "lines of shipped Python": sum((ROOT / path).read_text(encoding="utf-8").count("\n") for path in modules),
        f"lines with {', '.join(ARCHAIC)}": len({(f.path, f.line) for f in words if f.word in ARCHAIC}),
        f"lines with {', '.join(PRONOUNS)}": len({(f.path, f.line) for f in words if f.word in PRONOUNS}),
        f"lines with {', '.join(PHRASES)}": len({(f.path, f.line) for f in words if f.word in PHRASES}),
        "names that hold 'told'": sum(number for name, number in names.items() if "told" in name.lower().split("_")),
        "constants named MOST_, LONGEST_, LEAST_ ...": sum(1 for name in names if _NOT_MAX.match(name)),
        "class names used twice": len(set(duplicate_classes(modules)) - TWICE),
        "function docstrings that begin with a verb": f"{100 * imperative // max(1, len(docstrings))} %",
    }


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name


def _function_docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        is_property = any(ast.unparse(each).endswith(("property", "setter")) for each in node.decorator_list)
        if not is_property and (doc := ast.get_docstring(node)):
            yield doc


def main() -> int:
    """Print the counts, or with ``--check`` what must be mended."""
    parser = argparse.ArgumentParser(description="Count how plainly the code is written, and list what is not.")
    parser.add_argument("--check", action="store_true", help="list what must be mended; exit code 1 if there is any")
    parser.add_argument("paths", nargs="*", help="check only files whose path starts with one of these")
    arguments = parser.parse_args()
    if not arguments.check:
        for name, value in count().items():
            print(f"{value!s:>8}  {name}")
        return 0
    paths = [path for path in tracked_files() if path.startswith(tuple(arguments.paths) or "")]
    findings = [finding for path in paths for finding in find_words(path)]
    for finding in findings:
        print(finding)
    twice = {name: paths for name, paths in duplicate_classes(shipped_modules()).items() if name not in TWICE}
    for name, places in twice.items():
        print(f"class {name} is defined {len(places)} times: {', '.join(places)}")
    return 1 if findings or twice else 0


if __name__ == "__main__":
    sys.exit(main())
