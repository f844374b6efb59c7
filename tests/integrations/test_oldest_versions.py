"""The oldest supported version of each framework, in a folder of its own: a few tests of the newest pass with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
_TESTS = Path("tests") / "integrations"

# The packages that the oldest version needs in addition to those of the newest, and the tests that it passes.
_OLDEST = {
    "livekit": (
        ["livekit-agents==1.0.0"],
        [
            "test_calls.py::test_a_call_is_named_by_room_and_job_and_ends_with_the_session",
            "test_calls.py::test_sessions_without_a_job_are_calls_of_their_own",
            "test_prompts.py::test_a_typed_turn_during_the_fetch_has_the_prompt",
            "test_prompts.py::test_each_agent_of_a_call_has_its_own_prompt",
            "test_recall.py::test_recall_from_an_earlier_call_is_inserted_before_the_message",
            "test_recall.py::test_recall_may_have_the_role_of_the_user",
            "test_recall.py::test_what_the_context_holds_of_the_call_is_not_recalled",
            "test_saved_turns.py::test_both_sides_are_saved_without_wiring",
            "test_saved_turns.py::test_hanging_up_before_an_answer_saves_the_turn",
            "test_saved_turns.py::test_turns_of_another_agent_are_not_saved",
            "test_saved_turns.py::test_two_agents_with_memory_save_each_turn_once",
            "test_speech_models.py::test_a_realtime_model_is_briefed_and_gets_the_tool",
        ],
    ),
    "pipecat": (
        ["pipecat-ai==1.4.0", "nltk>=3.9", "regex", "joblib", "tqdm", "click", "pyloudnorm>=0.2"],
        [
            "test_calls.py::test_a_call_ends_with_its_pipeline",
            "test_pipeline.py::test_a_caller_is_remembered_in_the_next_call",
            "test_pipeline.py::test_an_interrupted_answer_is_saved_as_far_as_it_was_heard",
            "test_pipeline.py::test_the_answer_after_a_tool_call_has_the_same_recall",
            "test_prompts.py::test_the_model_gets_the_prompt_and_the_call_its_version",
            "test_summaries.py::test_a_summary_is_neither_searched_nor_saved_and_loses_no_turn[pipeline-0]",
            "test_turn_markers.py::test_both_halves_of_a_sentence_are_searched_and_saved[short]",
        ],
    ),
}


@pytest.mark.parametrize("framework", sorted(_OLDEST))
def test_the_oldest_version_is_the_one_that_the_package_declares(framework: str) -> None:
    project = (ROOT / "integrations" / framework / "pyproject.toml").read_text(encoding="utf-8")
    oldest = Requirement(_OLDEST[framework][0][0])
    [line] = [line for line in project.splitlines() if line.startswith("dependencies = ")]
    declared = {item.name: item for item in map(Requirement, _strings_in(line))}[oldest.name]
    version = str(oldest.specifier).removeprefix("==")
    assert str(declared.specifier) == f">={version.removesuffix('.0')}"


@pytest.mark.timeout(900)  # it installs packages, and runs tests in another process
@pytest.mark.extended
@pytest.mark.parametrize("framework", sorted(_OLDEST))
def test_the_oldest_version_works(framework: str, tmp_path: Path) -> None:
    if framework == "pipecat" and sys.version_info < (3, 11):
        pytest.skip("Pipecat needs a newer Python")
    packages, tests = _OLDEST[framework]
    # All else that it needs is that of the newest version.
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"]
    install += ["--target", str(tmp_path / "old"), *packages]
    _run(install, tmp_path)
    name, _, version = packages[0].partition("==")
    assert _run([sys.executable, "-c", f"import importlib.metadata as m; print(m.version({name!r}))"], tmp_path) == (
        f"{version}\n"
    )
    nodes = [str(_TESTS / framework / test) for test in tests]
    output = _run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", *nodes], tmp_path)
    assert "failed" not in output
    assert "passed" in output


def _run(command: list[object], tmp_path: Path) -> str:
    # The folder with the oldest version comes before the installed packages.
    path = [str(tmp_path / "old"), *(str(ROOT / "integrations" / name) for name in _OLDEST)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "HOME": str(tmp_path)}
    process = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environ, capture_output=True, text=True, timeout=800, check=False
    )
    assert process.returncode == 0, process.stdout[-8_000:] + process.stderr[-2_000:]
    return process.stdout


def _strings_in(line: str) -> list[str]:
    return [part for index, part in enumerate(line.split('"')) if index % 2]
