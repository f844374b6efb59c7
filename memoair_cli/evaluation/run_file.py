"""Runs in files: what ``--save`` and ``--history`` write, and ``--against`` reads."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import msgspec
import platformdirs

from memoair_evaluation.comparison import ScoredCase, compare
from memoair_evaluation.scoring import CaseScores, RunScores
from memoair_protocol.durable import write_file
from memoair_protocol.input_files import read_regular_file
from memoair_protocol.timestamps import format_utc

FORMAT = "memoair evaluation run"
_VERSION = 1
_MAX_BYTES = 1 << 30


class InvalidRunFileError(ValueError):
    """The file is not a run; the message says why."""


@attrs.frozen
class RunRecord:
    """A run, as it is kept.

    Attributes:
        suite: The name of the suite.
        created_at: When it ended.
        engine_version: The version of the engine.
        candidate: What it ran with, in JSON.
        document_count: The number of documents that it searched.
        scores: What all cases score together.
        cases: The cases in the order of the suite, each with its hash and its scores.
        details: Of each case, by id, what else is kept: ``trace``, ``context`` and ``halfContext``.
    """

    suite: str
    created_at: datetime
    engine_version: str
    candidate: Mapping[str, Any]
    document_count: int
    scores: RunScores
    cases: Sequence[ScoredCase]
    details: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, repr=False)

    def to_wire(self, *, with_details: bool) -> dict[str, Any]:
        """Return the run in JSON.

        Args:
            with_details: Whether to have the traces and contexts, which have the words of callers and documents.
        """
        return {
            "format": FORMAT,
            "version": _VERSION,
            "suite": self.suite,
            "createdAt": format_utc(self.created_at),
            "engineVersion": self.engine_version,
            "candidate": dict(self.candidate),
            "documents": self.document_count,
            "scores": self.scores.to_wire(),
            "cases": [
                {
                    "caseId": case.case_id,
                    "caseSha256": case.case_sha256,
                    "scores": case.scores.to_wire(),
                    **(self.details.get(case.case_id, {}) if with_details else {}),
                }
                for case in self.cases
            ],
        }


def default_history_file(suite: Path, candidate: Mapping[str, Any]) -> Path:
    """Return where the last run of a suite is kept: a file in the folder for user data.

    Args:
        suite: The suite; each path has a file of its own.
        candidate: What the run is made with, in JSON. Other settings have a file of their own, too, so that an
            experiment does not take the place of the present state.
    """
    text = str(suite.resolve())
    if candidate:
        text += "\0" + json.dumps(candidate, sort_keys=True)
    key = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
    return platformdirs.user_data_path("memoair", appauthor=False) / "evaluations" / f"{key}.json"


def write_run(path: Path, run: RunRecord, *, with_details: bool) -> None:
    """Write a run to a file. A reader sees the old one or the new one; of two writers, the later one counts.

    Raises:
        OSError: If it cannot be written.
    """
    content = json.dumps(run.to_wire(with_details=with_details), ensure_ascii=False, indent=1).encode() + b"\n"
    write_file(path, content, durable=False, is_private=False)


def read_run(path: Path) -> list[ScoredCase]:
    """Return the cases of a run that was written to a file, by ``--save`` or from the output of ``--json``.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        InvalidRunFileError: If it is not a run.
    """
    content = read_regular_file(path, _MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InvalidRunFileError(f"larger than {_MAX_BYTES >> 20} MB")
    try:
        run = msgspec.json.decode(content)
        if not isinstance(run, dict) or run.get("format") != FORMAT:
            raise InvalidRunFileError("not a run of an evaluation")
        if run["version"] != _VERSION:
            raise InvalidRunFileError("written by a later version of this program")
        cases = [
            ScoredCase(case["caseId"], case["caseSha256"], CaseScores.from_wire(case["scores"]))
            for case in run["cases"]
        ]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidRunFileError("not JSON, or incomplete") from None
    except (KeyError, TypeError, AttributeError):
        raise InvalidRunFileError("a case of the run is invalid") from None
    try:
        compare(cases, cases).to_wire()  # before a run is made that cannot be compared with it
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError):
        raise InvalidRunFileError("a case of the run is invalid") from None
    return cases
