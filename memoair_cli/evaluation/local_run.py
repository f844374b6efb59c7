"""Run a suite on this machine: documents from files, and the engine of the runtimes, without any server."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import track

from memoair_cli.documents.reading import read_paths
from memoair_cli.options import fail, pluralize
from memoair_documents.reading import ReadOptions
from memoair_evaluation.candidate import RecallSettings
from memoair_evaluation.case import RecallCase
from memoair_evaluation.engine import EngineDocuments, open_engine
from memoair_evaluation.forked_run import open_results
from memoair_evaluation.scoring import CaseResult
from memoair_protocol.identifiers import identifier_problem


def read_documents(sources: Sequence[str], options: ReadOptions, exit_code: int) -> list[dict[str, Any]]:
    """Return the documents of some folders and files, as ``memoair indexes add`` reads them.

    Args:
        sources: Folders and files, each as ``PATH`` or ``INDEX=PATH``.
        options: How to read them.
        exit_code: The exit code of an error.
    """
    documents: dict[tuple[str | None, str], dict[str, Any]] = {}
    paths: dict[tuple[str | None, str], str] = {}
    for source in sources:
        index_name, path = _split_source(source, exit_code)
        for document_id, content in read_paths([path], options, exit_code).documents.items():
            key = index_name, document_id
            if key in documents:
                fail(f"{path}: the id {document_id} is in {paths[key]}, too; name their indexes: INDEX=PATH", exit_code)
            document = msgspec.json.decode(content)
            documents[key] = {
                "indexName": index_name,
                "id": document_id,
                "text": document["text"],
                "metadata": document.get("metadata") or {},
            }
            paths[key] = str(path)
    return list(documents.values())


def run_cases(
    cases: Sequence[RecallCase],
    documents: Sequence[dict[str, Any]],
    settings: RecallSettings,
    process_count: int | None = None,
) -> list[CaseResult]:
    """Run all cases, with a progress bar on a terminal. KeyboardInterrupt passes.

    Args:
        cases: The cases.
        documents: What they search.
        settings: The settings of the searches.
        process_count: In how many processes to run them; None for as many as it is worth.

    Raises:
        CaseProcessError: If one of the processes was killed.
    """
    console = Console(stderr=True)
    is_shown = sys.stderr.isatty()
    message = f"indexing {pluralize(len(documents), 'document')}"
    with ExitStack() as stack:
        with console.status(message) if is_shown and documents else nullcontext():
            engine = stack.enter_context(open_engine(EngineDocuments(documents=documents)))
        # Before the progress bar, which is a thread.
        results: Iterable[CaseResult] = stack.enter_context(open_results(engine, cases, settings, process_count))
        if is_shown:
            results = track(results, "evaluating", total=len(cases), console=console, transient=True)
        return list(results)


def _split_source(source: str, exit_code: int) -> tuple[str | None, Path]:
    """Return the index and the path. A path that has an equals sign itself is taken as a path if it exists."""
    name, equals, path = source.partition("=")
    if not equals or Path(source).exists():
        return None, _check_path(Path(source), exit_code)
    if problem := identifier_problem(name):
        fail(f"--documents: the name of the index {problem}", exit_code)
    return name, _check_path(Path(path), exit_code)


def _check_path(path: Path, exit_code: int) -> Path:
    if not path.exists():
        fail(f"--documents: {path}: no such file or folder", exit_code)
    return path
