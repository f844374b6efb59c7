"""The architecture: which package may import which, no circular imports, no module that is too large."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The other packages that each package may import.
ALLOWED_IMPORTS = {
    "memoair_protocol": set[str](),
    "memoair_index": {"memoair_protocol"},
    "memoair_redaction": set[str](),
    "memoair_documents": {"memoair_protocol", "memoair_index"},
    "memoair_transcripts": {"memoair_protocol"},
    "memoair_runtime_store": {"memoair_protocol"},
    "memoair_runtime": {"memoair_protocol", "memoair_index"},
    # The runtime only to preview a search, as the cloud.
    "memoair_evaluation": {"memoair_protocol", "memoair_index", "memoair_redaction", "memoair_runtime"},
    # The runtime only to preview a search; see `test_the_cloud_uses_the_runtime_only_to_preview_a_search`.
    "memoair_cloud": {
        *("memoair_protocol", "memoair_index", "memoair_redaction", "memoair_documents", "memoair_runtime"),
        "memoair_evaluation",
    },
    # The readers only for their former place, which goes in the next release.
    "memoair_voice_sync": {"memoair_protocol", "memoair_redaction", "memoair_runtime_store", "memoair_transcripts"},
    "memoair_voice": {"memoair_protocol", "memoair_voice_sync"},
}
# The other rooms of the runtime that each of its rooms may import. `service` and `cloud_sync` put the rooms together.
ALLOWED_ROOMS = {
    "storage": set[str](),
    "memory": {"storage"},
    "recall": {"memory"},
    "sync": {"memory", "storage"},
    "org": {"recall", "sync", "storage"},
    "http": {"service"},
}
# The one module that starts threads: see `test_threads_are_started_in_one_place`.
THREAD_CLASSES = {"Thread", "Timer", "ThreadPoolExecutor"}
STARTS_THREADS = {"memoair_protocol.threads"}
# The command line may import all others.
PACKAGES = ("memoair_cli", *ALLOWED_IMPORTS)
ALLOWED_IMPORTS["memoair_cli"] = set(ALLOWED_IMPORTS)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def find_imports(module: str) -> set[str]:
    """Return our own modules that a module imports, anywhere in its code."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name in MODULES} - {module}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_lower_packages(package: str) -> None:
    used = {
        name.partition(".")[0]
        for module in MODULES
        if module.partition(".")[0] == package
        for name in find_imports(module)
    }
    assert used - {package} <= ALLOWED_IMPORTS[package]


@pytest.mark.parametrize("room", ALLOWED_ROOMS)
def test_a_room_of_the_runtime_imports_only_the_rooms_below_it(room: str) -> None:
    used = {
        name.split(".")[1]
        for module in MODULES
        if module.startswith(f"memoair_runtime.{room}.")
        for name in find_imports(module)
        if name.startswith("memoair_runtime.")
    }
    assert used & {*ALLOWED_ROOMS, "service", "cloud_sync"} - {room} <= ALLOWED_ROOMS[room]


@pytest.mark.parametrize("package", ["memoair_cloud", "memoair_evaluation"])
def test_the_runtime_is_used_only_to_preview_a_search(package: str) -> None:
    used = {
        name
        for module in MODULES
        if module.partition(".")[0] == package
        for name in find_imports(module)
        if name.partition(".")[0] == "memoair_runtime"
    }
    assert used <= {"memoair_runtime.preview"}


def test_imports_are_not_circular() -> None:
    # A package's __init__ imports its modules. A module that names its package to import a sibling is not circular.
    graph = {
        module: {
            name
            for name in find_imports(module)
            if not (module.startswith(f"{name}.") and MODULES[name].name == "__init__.py")
        }
        for module in MODULES
    }
    TopologicalSorter(graph).prepare()


def test_no_module_is_over_400_lines() -> None:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert not {module: length for module, length in lengths.items() if length > 400}


def test_threads_are_started_in_one_place() -> None:
    """A thread may be refused at any moment, and what has been changed before its start must be taken back then.

    `memoair_protocol.threads` says so to its callers, and nothing in the standard library does.
    """
    starts = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in THREAD_CLASSES
    }
    assert starts == STARTS_THREADS


@pytest.mark.parametrize("module", ["memoair_cli.app", "memoair_runtime.main", "memoair_runtime.fork_server"])
def test_the_http_client_of_the_cloud_is_imported_only_for_a_request(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert "memoair_protocol.cloud_http" not in loaded


def test_the_sdk_is_imported_without_numpy_and_without_the_runtime() -> None:
    code = "import sys, memoair_voice_sync; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "memoair_voice_sync" in loaded
    assert not {"numpy", "memoair_runtime", "memoair_index", "requests", "anyio", "asyncio"} & set(loaded)
    assert "memoair_redaction" not in loaded, "its patterns are compiled for those who use them"


def test_redaction_is_imported_without_the_numbering_plans() -> None:
    code = "import sys; from memoair_voice_sync.redaction import redact; redact('hi'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "memoair_redaction" in loaded
    assert "phonenumbers" not in loaded


def test_only_integrations_import_what_integrations_share() -> None:
    core = "memoair_voice.integration"
    users = {module for module in MODULES if any(f"{name}.".startswith(f"{core}.") for name in find_imports(module))}
    assert {module for module in users if not module.startswith(core)} == set()
    assert f"{core}.turn_writer" in users


def test_tests_that_run_alone_are_where_the_test_command_looks_for_them() -> None:
    marked = {path.relative_to(ROOT).parts[1] for path in (ROOT / "tests").rglob("test_*.py") if _is_alone(path)}
    assert marked == {"chaos", "e2e"}


def _is_alone(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.alone"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )
