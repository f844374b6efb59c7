"""``memoair outcomes``: tables of outcomes, with columns guessed or named, and every row accounted for."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli.imports import cloud_environment
from support.clouds import Client, turn
from support.commands import memoair

from memoair_documents.outcome_tables import OutcomeColumns, UnknownColumnError, guess_columns, read_outcomes
from memoair_documents.tables import CsvTable


def read(text: str, **columns: str) -> list[tuple[int, Any]]:
    table = CsvTable(text)
    rows = read_outcomes(table, guess_columns(table.columns, OutcomeColumns(**columns)))
    return [(row.line, row.problem or row.content) for row in rows]


def test_columns_are_guessed_by_their_names() -> None:
    guessed = guess_columns(["Caller ID", "Call-ID", "Disposition", "CSAT", "Date", "notes"])
    assert guessed == OutcomeColumns("Call-ID", "Disposition", "CSAT", "Caller ID", "Date")
    assert guess_columns(["session_id", "status", "result"]).outcome == "result"
    assert guess_columns(["a", "b"]) == OutcomeColumns()
    given = OutcomeColumns(session="status", fixed_outcome="csat")
    assert guess_columns(["status", "result", "stars"], given) == OutcomeColumns(
        "status", None, "stars", fixed_outcome="csat"
    )
    without = OutcomeColumns(score="", user="", time="")
    assert guess_columns(["call_id", "status", "score", "caller", "date"], without) == OutcomeColumns(
        "call_id", "status"
    )
    for columns in (OutcomeColumns("x", "b"), OutcomeColumns("a"), OutcomeColumns(None, "b")):
        with pytest.raises(UnknownColumnError, match="a, b"):
            columns.check(["a", "b"])


def test_each_row_is_read_or_rejected_with_its_line() -> None:
    text = 'session;outcome;score;time\nc-1;Not Resolved;4,5;2026-03-02\n\nc-2;"two\nlines";;\nc-3;ok;five;\n'
    text += f";ok;;\nc-4;;;\nc-5;ok;;monday\nc-6;ok;1;;;more\n{'x' * 600};ok;;\nc-7;ok;1e300;\n"
    found = read(text)
    assert found[0] == (
        2,
        {"sessionId": "c-1", "outcome": "not-resolved", "score": 4.5, "occurredAt": "2026-03-02T00:00:00Z"},
    )
    assert found[1] == (5, {"sessionId": "c-2", "outcome": "two-lines"})
    problems = dict(found[2:])
    assert problems[6] == "score: not a number"
    assert problems[7] == "session: empty"
    assert problems[8] == "outcome: empty"
    assert problems[9].startswith("time: use ISO 8601")
    assert problems[10] == "6 columns; the first row names 4"
    assert problems[11].startswith("session: ")
    assert problems[12] == "score: not a number"
    assert "monday" not in str(found)
    assert read("call,stars\nc-1,5\n", fixed_outcome="csat") == [
        (2, {"sessionId": "c-1", "outcome": "csat", "score": 5.0})
    ]


def test_a_table_is_imported_and_the_outcomes_are_listed(client: Client, tmp_path: Path) -> None:
    environ = cloud_environment(client)
    client.send(turn("said"))
    file = tmp_path / "march.csv"
    file.write_bytes(
        "Anruf;Ergebnis;Note\ncall-1;Gelöst;1,5\ncall-2;resolved;2\ncall-3;resolved;gut\n".encode("cp1252")
    )
    named = ("--session-column", "Anruf", "--outcome-column", "Ergebnis", "--score-column", "Note")
    refused = memoair("outcomes", "import", str(file), code=2, **environ)
    assert "name the column with the session ids; the columns are Anruf, Ergebnis, Note" in refused.err
    for arguments, wanted in (((), "outcome"), (("--outcome", "Geklärt"), "the outcome: use letters a to z")):
        command = ("outcomes", "import", str(file), "--session-column", "Anruf", *arguments)
        assert wanted in memoair(*command, code=2, **environ).err

    dry = memoair("outcomes", "import", str(file), *named, "--dry-run", code=1, **environ)
    assert f"{file}:2: Ergebnis: use letters a to z" in dry.err
    assert f"{file}:4: Note: not a number" in dry.err
    assert dry.out == "1 outcome would be saved: 0 of known calls, 1 of calls that have not arrived; 2 rejected\n"
    assert memoair("outcomes", "list", **environ).err == "no outcomes were found\n"

    file.write_text("call_id,result,csat\ncall-1,resolved,5\ncall-2,escalated,\n")
    done = memoair("outcomes", "import", str(file), **environ)
    assert done.err == "columns: session = call_id, outcome = result, score = csat\n"
    assert done.out == "2 outcomes saved: 1 of known calls, 1 of calls that have not arrived; 0 rejected\n"
    unscored = memoair("outcomes", "import", str(file), "--score-column", "", "--dry-run", **environ)
    assert unscored.err == "columns: session = call_id, outcome = result\n"
    as_json = json.loads(memoair("outcomes", "import", str(file), "--json", **environ).out)
    assert as_json == {"accepted": 2, "unknownSessions": 1, "rejected": [], "dryRun": False}
    rows = json.loads(memoair("outcomes", "list", "--json", **environ).out)
    assert sorted((row["sessionId"], row["outcome"], row["score"]) for row in rows) == [
        ("call-1", "resolved", 5.0),
        ("call-2", "escalated", None),
    ]
    listed = memoair("outcomes", "list", "--outcome", "resolved", **environ).out
    assert "0xab12" in listed
    assert "call-2" not in listed
    assert "(not arrived)" in memoair("outcomes", "list", "--unknown", **environ).out
    assert memoair("outcomes", "report", "call-1", "Escalated", "--score", "2", **environ).out == "saved\n"
    assert "has not arrived" in memoair("outcomes", "report", "call-9", "resolved", **environ).out


def test_files_that_are_no_tables_are_refused(client: Client, tmp_path: Path) -> None:
    environ = cloud_environment(client)
    for content, wanted in (
        (b"", "the file is empty"),
        (b"session,outcome\n", "the table has no rows"),
        (b"\x00\x01\x02PK", "a binary file"),
    ):
        file = tmp_path / "file.csv"
        file.write_bytes(content)
        assert wanted in memoair("outcomes", "import", str(file), code=1, **environ).err
    file.write_bytes("session,outcome\nc,gelöst".encode("cp1252"))
    refused = memoair("outcomes", "import", str(file), "--encoding", "utf-8", code=1, **environ)
    assert "not in the encoding utf-8" in refused.err
    assert "unknown encoding" in memoair("outcomes", "import", str(file), "--encoding", "xx", code=2, **environ).err
    assert "directory" in memoair("outcomes", "import", str(tmp_path), code=1, **environ).err
    missing = memoair("outcomes", "import", str(tmp_path / "missing.csv"), code=1, **environ)
    assert "No such file" in missing.err


def test_a_table_of_several_batches_is_imported(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "many.csv"
    file.write_text("session,outcome\n" + "".join(f"call-{number},resolved\n" for number in range(2_500)) + ",x\n")
    done = memoair("outcomes", "import", str(file), code=1, **cloud_environment(client))
    assert "2,500 outcomes saved: 0 of known calls, 2,500 of calls that have not arrived; 1 rejected" in done.out
    assert f"{file}:2502: session: empty" in done.err
