"""What is to be tried instead of the present state: from options and from a file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memoair_cli.options import fail
from memoair_protocol.enums import LaneName
from memoair_protocol.input_files import read_regular_file
from memoair_protocol.limits import MAX_TOP_K

_MAX_FILE_BYTES = 1 << 20


def make_candidate(path: Path | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a candidate as it is on the wire; exit with 2 if it is invalid.

    Args:
        path: A file with a candidate as JSON; None for none.
        settings: Settings of recall by their names on the wire, which count more than the file. Those that are None are
            left out; ``topK`` is what was typed.
    """
    candidate = {} if path is None else _read_file(path)
    given = {name: value for name, value in settings.items() if value is not None and name != "topK"}
    if settings.get("topK"):
        given["topK"] = parse_top_k(settings["topK"])
    recall = {**(candidate.get("recall") or {}), **given}
    return {**candidate, "recall": recall} if recall else candidate


def parse_top_k(texts: Sequence[str]) -> dict[str, int]:
    """Return the maximum numbers of hits by lane: ``5`` is for each lane, ``org=5`` for one; exit with 2 if invalid."""
    by_lane: dict[str, int] = {}
    lanes = [lane.value for lane in LaneName]
    for text in sorted(texts, key=lambda text: "=" in text):  # one lane counts more than each
        name, _, number = text.rpartition("=")
        if (name and name not in lanes) or not number.isdecimal() or not 0 <= int(number) <= MAX_TOP_K:
            fail(f"--top-k {text}: write a number up to {MAX_TOP_K}, or LANE=NUMBER with one of {', '.join(lanes)}", 2)
        by_lane |= dict.fromkeys([name] if name else lanes, int(number))
    return by_lane


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular_file(path, _MAX_FILE_BYTES))
    except OSError as error:
        fail(f"{path}: {error.strerror}", 2)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        fail(f"{path}: not a JSON object", 2)
    return content
