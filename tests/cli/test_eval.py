"""``memoair eval``: what it prints and keeps, when it exits with which code, and that it leaves nothing half done."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.imports import NewFile
from support.commands import MEMOAIR, CommandResult, environment, memoair, start_process

from memoair_cli.evaluation.command import _show_rate

Evaluate = Callable[..., CommandResult]

RETURNS = {
    "id": "returns-1",
    "question": "Can I still send the boots back?",
    "must": [{"document": "returns.md"}, {"text": "thirty days"}],
    "tags": ["returns"],
}
NUTS = {
    "id": "nuts-1",
    "question": "What am I allergic to?",
    "given": {"facts": ["The caller is allergic to nuts."]},
    "must": [{"fact": "allergic to nuts"}],
    "mustNot": [{"document": "returns.md"}],
    "tags": ["health"],
}
BROKEN = {"id": "broken-1", "question": "What am I allergic to?", "must": [{"document": "gone.md", "index": "shop"}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of documents, as ``memoair indexes add`` takes it."""
    documents = tmp_path / "help"
    documents.mkdir()
    (documents / "returns.md").write_text(
        "---\ntitle: Returns\n---\n\n## Boots\n\nBoots come back within thirty days.\n"
    )
    (documents / "faq.jsonl").write_text('{"id": "hours", "text": "We open at nine."}\n')
    return documents


@pytest.fixture
def suite(new_file: NewFile) -> Path:
    """A suite of two cases that pass."""
    return new_file(RETURNS, NUTS, name="suite.jsonl")


@pytest.fixture
def evaluate(suite: Path, folder: Path, tmp_path: Path) -> Evaluate:
    """A function that runs the suite with its documents, with a history of its own."""

    def run(*arguments: Any, path: Path = suite, **more: Any) -> CommandResult:
        history = () if "--history" in arguments else ("--history", tmp_path / "last.json")
        return memoair("eval", path, "--documents", folder, *history, *arguments, **more)

    return run


def test_a_suite_that_passes_shows_its_figures(evaluate: Evaluate) -> None:
    done = evaluate()
    lines = done.out.splitlines()
    assert lines[0] == "suite.jsonl: 2 cases, 2 passed (100.0%)"
    figures = dict(line.rsplit("  ", 1) for line in lines[1:] if line)
    assert {name.strip(): value.strip() for name, value in figures.items()}["recalled of what must be"] == "1.000"
    assert "failed" not in done.out
    assert done.err == ""


def test_cases_that_fail_are_listed_with_what_is_missing(evaluate: Evaluate, new_file: NewFile) -> None:
    unwanted = {**RETURNS, "id": "unwanted-1", "mustNot": [{"text": "thirty days"}]}
    done = evaluate(path=new_file(RETURNS, BROKEN, unwanted, name="suite.jsonl"))
    _, failed = done.out.split("failed\n")
    assert failed.splitlines() == [
        "  broken-1",
        "    missing   document gone.md of the index shop",
        "  unwanted-1",
        '    unwanted  text "thirty days"',
    ]


def test_an_output_without_all_characters_is_no_error(
    new_file: NewFile, folder: Path, tmp_path: Path, home: Path
) -> None:
    case = {**BROKEN, "id": "\u9000\u8ca8-1", "must": [{"text": "\u2192 never"}]}
    path = new_file(NUTS, case, name="suite.jsonl")
    for more in ((), ("--json",)):
        arguments = map(str, ("eval", path, "--documents", folder, "--history", tmp_path / "last.json", *more))
        environ = environment(home, PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
        done = subprocess.run([*MEMOAIR, *arguments], env=environ, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b""), done
    assert json.loads(done.stdout)["cases"][1]["caseId"] == case["id"]


def test_what_the_suite_says_cannot_control_the_terminal(evaluate: Evaluate, new_file: NewFile) -> None:
    case = {**BROKEN, "id": "[bold]x[/bold]", "must": [{"text": "\x1b[2J never"}]}
    done = evaluate(path=new_file(case, name="suite.jsonl"))
    assert "\x1b" not in done.out
    assert "  [bold]x[/bold]\n" in done.out


def test_the_run_is_printed_as_json_and_saved_with_its_traces(evaluate: Evaluate, tmp_path: Path) -> None:
    done = evaluate("--json", "--save", tmp_path / "run.json", "--top-k", "org=1", "--context-chars", "2000")
    printed, saved = json.loads(done.out), json.loads((tmp_path / "run.json").read_text())
    assert printed["scores"]["passed"] == 2
    assert printed["candidate"] == {"recall": {"topK": {"org": 1}, "contextChars": 2000}}
    assert printed["documents"] == 2
    assert "trace" not in printed["cases"][0]
    assert "thirty days" in saved["cases"][0]["context"]
    assert saved["cases"][0]["trace"]["lanes"]["org"]["items"][0]["documentId"] == "returns.md"
    assert saved["cases"][0]["scores"] == printed["cases"][0]["scores"]


def test_the_exit_code_says_whether_too_few_cases_pass(evaluate: Evaluate, new_file: NewFile) -> None:
    path = new_file(RETURNS, BROKEN, name="suite.jsonl")
    evaluate("--fail-under", "0.5", path=path)
    done = evaluate("--fail-under", ".9", path=path, code=1)
    assert done.err.splitlines()[-1] == "50.0% of the cases passed, which is below --fail-under 0.9"


def test_a_share_is_shown_with_the_digits_that_tell_it_from_the_limit() -> None:
    assert _show_rate(0.8996, 0.9) == "89.96%"
    assert _show_rate(0.5, 0.9) == "50.0%"


def test_the_last_run_is_compared_with_and_replaced_only_by_one_that_is_not_worse(evaluate: Evaluate) -> None:
    first = evaluate("--against", "last")
    assert first.err == "there is no earlier run of this suite to compare with\n"
    assert "compared with the earlier run: not worse (2 same)" in evaluate("--against", "last").out
    for _ in range(2):  # it stays worse when it is repeated
        worse = evaluate("--against", "last", "--top-k", "org=0", code=1)
        assert "compared with the earlier run: worse (1 worse, 1 same)" in worse.out
        assert "  worse   returns-1: passed yes -> no" in worse.out
        assert "--accept keeps it" in worse.err
    evaluate("--against", "last", "--top-k", "org=0", "--accept", code=1)
    assert "not worse (2 same)" in evaluate("--against", "last", "--top-k", "org=0").out
    assert "better  returns-1: passed no -> yes" in evaluate("--against", "last").out


def test_a_worse_run_and_an_experiment_never_become_the_last_run(suite: Path, folder: Path, home: Path) -> None:
    arguments = ("eval", suite, "--documents", folder)
    memoair(*arguments)
    memoair(*arguments, "--top-k", "org=0")
    assert "not worse (2 same)" in memoair(*arguments, "--against", "last").out, "an experiment is kept apart"
    assert "not worse (2 same)" in memoair(*arguments, "--against", "last", "--top-k", "org=0").out

    (folder / "returns.md").write_text("Nothing.")
    assert "the run was not kept as the last one" in memoair(*arguments).err
    assert "worse (1 worse, 1 same)" in memoair(*arguments, "--against", "last", code=1).out
    memoair(*arguments, "--accept")
    assert "not worse (2 same)" in memoair(*arguments, "--against", "last").out


def test_a_run_is_compared_with_a_file_whether_it_was_saved_or_printed(evaluate: Evaluate, tmp_path: Path) -> None:
    saved, printed = tmp_path / "saved.json", tmp_path / "printed.json"
    printed.write_text(evaluate("--json", "--save", saved).out)
    for path in (saved, printed):
        done = evaluate("--against", path, "--lane", "org", "--json", code=1)
        comparison = json.loads(done.out)["comparison"]
        assert comparison["counts"]["worse"] == 1
        assert [case["caseId"] for case in comparison["cases"]] == ["nuts-1"]


def test_runs_without_a_case_in_common_are_not_compared(evaluate: Evaluate, new_file: NewFile, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    evaluate("--save", saved)
    other = new_file({**NUTS, "id": "other-1"}, name="other.jsonl")
    assert "no unchanged case in common" in evaluate("--against", saved, path=other, code=2).err
    assert "no unchanged case in common" in evaluate("--against", "last", path=other).err


def test_only_some_cases_can_be_run_and_they_do_not_become_the_last_run(evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate()
    kept = (tmp_path / "last.json").read_bytes()
    assert "1 case, 1 passed" in evaluate("--tag", "health", "--against", "last").out
    assert "(1 same)" in evaluate("--case", "nuts-1", "--against", "last").out
    assert (tmp_path / "last.json").read_bytes() == kept
    assert evaluate("--case", "nuts-9", code=2).err.endswith("suite.jsonl: no case has the id nuts-9\n")
    assert evaluate("--tag", "x", code=2).err.endswith("suite.jsonl: no case has the tag x\n")


def test_the_last_run_is_kept_by_suite_without_words_of_callers(suite: Path, folder: Path, home: Path) -> None:
    memoair("eval", suite, "--documents", folder)
    [kept] = (home / ".local/share/memoair/evaluations").iterdir()
    assert "thirty" not in kept.read_text()
    assert "allergic" not in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    other = suite.with_name("other.jsonl")
    other.write_bytes(suite.read_bytes())
    memoair("eval", other, "--documents", folder)
    assert len(list(kept.parent.iterdir())) == 2


def test_a_folder_that_cannot_be_written_fails_only_if_it_was_named(evaluate: Evaluate, tmp_path: Path) -> None:
    done = evaluate("--history", tmp_path / "none/last.json", code=2)
    assert "the run cannot be kept" in done.err
    done = evaluate("--save", tmp_path / "none/run.json", code=2)
    assert "the run cannot be written" in done.err


def test_documents_can_be_of_several_indexes(suite: Path, folder: Path, new_file: NewFile) -> None:
    case = {**RETURNS, "must": [{"document": "returns.md", "index": "shop"}]}
    path = new_file(case, name="suite.jsonl")
    memoair("eval", path, "--documents", f"shop={folder}", "--fail-under", "1")
    memoair("eval", path, "--documents", folder, "--fail-under", "1")  # it may be any index
    memoair("eval", path, "--documents", f"news={folder}", "--fail-under", "1", code=1)
    memoair("eval", path, "--documents", f"news={folder}", "--documents", f"shop={folder}", "--fail-under", "1")
    twice = memoair("eval", path, "--documents", folder, "--documents", folder / "returns.md", code=2)
    assert "the id returns.md is in" in twice.err
    assert "INDEX=PATH" in twice.err


def test_settings_come_from_a_file_and_options_come_before_it(evaluate: Evaluate, new_file: NewFile) -> None:
    content = {"recall": {"topK": {"org": 0, "working": 1}, "minConfidence": 0.1}}
    candidate = new_file(content, name="candidate.json")
    done = evaluate("--candidate", candidate, "--top-k", "org=2", "--json")
    expected = {"topK": {"org": 2, "working": 1}, "minConfidence": 0.1}
    assert json.loads(done.out)["candidate"]["recall"] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-k", "many"], "--top-k: N or LANE=N is required, with a lane of profile, working, permanent, org"),
        (["--top-k", "all=1"], "--top-k: N or LANE=N is required, with a lane of profile, working, permanent, org"),
        (["--top-k", "9999"], "recall.topK.profile: expected `int` <= 1000"),
        (["--documents", "nowhere"], "--documents: nowhere: no such file or folder"),
        (["--candidate", "nowhere"], "nowhere: No such file or directory"),
        (["--against", "nowhere"], "--against: nowhere: no such file"),
        (["--encoding", "klingon"], "unknown encoding: klingon"),
    ],
)
def test_an_invalid_option_is_a_usage_error(evaluate: Evaluate, arguments: list[str], message: str) -> None:
    assert evaluate(*arguments, code=2).err.splitlines()[-1] == message


def test_errors_of_files_name_the_file_the_line_and_the_field(new_file: NewFile, tmp_path: Path) -> None:
    path = new_file(RETURNS, "", {"id": "b", "question": "?", "must": [{"text": 1}]}, "{", name="suite.jsonl")
    assert memoair("eval", path, code=2).err.splitlines() == [
        f"{path}: line 3: must[0].text: expected `str | null`, got `int`",
        f"{path}: line 4: not valid JSON",
    ]
    empty = new_file(name="empty.jsonl")
    assert memoair("eval", empty, code=2).err == f"{empty}: the suite has no cases\n"
    assert memoair("eval", tmp_path / "none", code=2).err == f"{tmp_path / 'none'}: No such file or directory\n"
    assert memoair("eval", tmp_path, code=2).err == f"{tmp_path}: Is a directory\n"
    good = new_file(NUTS, name="good.jsonl")
    for content, problem in (
        ("not JSON", "not JSON, or incomplete"),
        ("[]", "not a run of an evaluation"),
        ('{"format": "memoair evaluation run", "version": 2}', "written by a later version of this program"),
        ('{"format": "memoair evaluation run", "version": 1, "cases": [{}]}', "a case of the run is invalid"),
        ('{"format": "memoair evaluation run", "version": 1, "cases": 7}', "a case of the run is invalid"),
    ):
        other = new_file(content, name="other.json")
        assert memoair("eval", good, "--against", other, code=2).err == f"--against: {other}: {problem}\n"
    for content, problem in (
        ({"recall": {"topk": {}}}, "recall.topk: unknown field"),
        ({"prompt": {"version": 1}}, "prompt: only a run on a server with --judge uses it"),
        ({"documents": {"setId": "x"}}, "documents: a document set is on a server; pass --documents"),
    ):
        candidate = new_file(content, name="candidate.json")
        assert memoair("eval", good, "--candidate", candidate, code=2).err == f"{candidate}: {problem}\n"


def test_a_run_file_whose_scores_are_no_numbers_is_refused_before_the_run(evaluate: Evaluate, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    evaluate("--save", saved)
    for name, value in (("recalled", "much"), ("unwanted", None), ("rank", "x"), ("answer", 7)):
        run = json.loads(saved.read_text())
        run["cases"][0]["scores"][name] = value
        other = tmp_path / "other.json"
        other.write_text(json.dumps(run))
        assert evaluate("--against", other, code=2).err == f"--against: {other}: a case of the run is invalid\n", name


def test_a_pipe_is_never_waited_for(new_file: NewFile, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert memoair("eval", pipe, code=2).err == f"{pipe}: not a regular file\n"
    suite = new_file(NUTS, name="suite.jsonl")
    for option in ("--candidate", "--against"):
        assert "not a regular file" in memoair("eval", suite, option, pipe, code=2).err


def test_a_suite_that_says_less_than_it_seems_to_is_pointed_out(new_file: NewFile) -> None:
    done = memoair("eval", new_file(RETURNS, {"id": "b", "question": "Hello?"}, name="suite.jsonl"))
    assert done.err.splitlines() == [
        "1 case of 2 expect nothing, and so always pass",
        "the suite expects documents, and there are none: pass --documents",
    ]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_ends_a_run_and_keeps_nothing(
    suite: Path, folder: Path, tmp_path: Path, home: Path, processes: str
) -> None:
    history = tmp_path / "last.json"
    endless_cases = """
import os, time
from memoair_cli.app import main
from memoair_evaluation.engine import Engine

def run_case(*_):
    os.write(2, b"a case is run\\n")
    time.sleep(60)

Engine.run_case = run_case
main()
"""
    arguments = ("eval", suite, "--documents", folder, "--history", history, "--processes", processes)
    with start_process(*arguments, home=home, code=endless_cases) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "a case is run\n"
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=60)  # until no process is left that could write there
    assert process.returncode == 130, message
    assert message.replace("a case is run\n", "") == "interrupted; the run was not kept\n"
    assert not history.exists()
    assert not list(tmp_path.glob(".*.tmp"))


def test_two_runs_at_once_keep_one_whole_run(suite: Path, folder: Path, tmp_path: Path, home: Path) -> None:
    history = tmp_path / "last.json"
    arguments = ["eval", str(suite), "--documents", str(folder), "--history", str(history), "--json"]
    outputs: list[subprocess.CompletedProcess[str]] = []

    def run() -> None:
        outputs.append(
            subprocess.run([*MEMOAIR, *arguments], env=environment(home), capture_output=True, text=True, check=False)
        )

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [output.returncode for output in outputs] == [0, 0], outputs
    kept = json.loads(history.read_text())
    scores = [[case["scores"]["recalled"] for case in json.loads(output.stdout)["cases"]] for output in outputs]
    assert scores[0] == scores[1] == [case["scores"]["recalled"] for case in kept["cases"]]
