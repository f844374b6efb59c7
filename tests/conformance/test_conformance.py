"""Each name of the reference and the contract exists as documented; ``docs/conformance.md`` is generated from this.

``python tests/conformance/test_conformance.py`` writes the page.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conformance.md"

# Where our signatures differ from the documented ones, and why that breaks no code.
EXPLAINED = {
    "user": "is optional if its alternative `user_id`, or the client's own `user`, names the user, and in calls with "
    "`org_only`; else ValueError",
}
_INTRO = """# Conformance

Each name of the SDK reference and the contract: its documented signature, further parameters of ours, what it does,
and the test that shows it. `tests/conformance` generates this page from the code and fails if the two differ. Our
further parameters are always optional. Our annotations may be wider (a `Mapping` where a `dict` is documented, a
`float` where an `int` is).

"""


class Documented(NamedTuple):
    """A documented name."""

    owner: str
    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign | ast.ClassDef
    package: str

    @property
    def is_function(self) -> bool:
        return isinstance(self.node, ast.FunctionDef | ast.AsyncFunctionDef)

    @property
    def found(self) -> Any:
        owner = getattr(import_module(self.package), self.owner)
        return owner if self.name == "" else inspect.getattr_static(owner, self.name)


def documented() -> list[Documented]:
    """Return all names, in the order of the reference."""
    tree = ast.parse((Path(__file__).parent / "documented.txt").read_text(encoding="utf-8"))
    return [each for node in tree.body if isinstance(node, ast.ClassDef) for each in _of_class(node)]


def _of_class(node: ast.ClassDef) -> Iterator[Documented]:
    package = str(ast.get_docstring(node))
    yield Documented(node.name, "", node, package)
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Documented(node.name, each.name, each, package)
        elif isinstance(each, ast.AnnAssign):
            yield Documented(node.name, ast.unparse(each.target), each, package)


ALL = documented()
FUNCTIONS = [pytest.param(each, id=f"{each.owner}.{each.name}") for each in ALL if each.is_function]


def _parameters(node: Any) -> dict[str, tuple[str, str | None]]:
    """Return the kind of each documented parameter and the source of its default."""
    given = [(argument.arg, "POSITIONAL_OR_KEYWORD") for argument in node.args.args[1:]]
    defaults = [None] * (len(given) - len(node.args.defaults)) + node.args.defaults
    pairs = list(zip(given, defaults, strict=True))
    pairs += [
        ((argument.arg, "KEYWORD_ONLY"), default)
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    ]
    return {name: (kind, None if default is None else ast.unparse(default)) for (name, kind), default in pairs}


def _signature(each: Documented) -> inspect.Signature:
    owner = getattr(import_module(each.package), each.owner)
    return inspect.signature(getattr(owner, each.name) if each.name != "__init__" else owner.__init__)


def _found_parameters(each: Documented) -> dict[str, inspect.Parameter]:
    parameters = dict(_signature(each).parameters)
    parameters.pop("self", None)
    return parameters


@pytest.mark.parametrize("each", [pytest.param(each, id=f"{each.owner}.{each.name}") for each in ALL])
def test_every_documented_name_exists(each: Documented) -> None:
    owner = getattr(import_module(each.package), each.owner)
    if isinstance(each.node, ast.AnnAssign):
        announced = {name for kind in owner.__mro__ for name in getattr(kind, "__annotations__", {})}
        assert each.name in announced or hasattr(owner, each.name)
    else:
        assert inspect.getdoc(each.found if each.name != "__init__" else owner)


@pytest.mark.parametrize("each", FUNCTIONS)
def test_signatures_accept_the_documented_parameters(each: Documented) -> None:
    theirs, ours = _parameters(each.node), _found_parameters(each)
    for name, (kind, default) in theirs.items():
        assert name in ours, f"{name} is missing"
        assert ours[name].kind.name == kind or ours[name].kind.name == "POSITIONAL_OR_KEYWORD"
        found = None if ours[name].default is inspect.Parameter.empty else repr(ours[name].default)
        wanted = None if default is None else repr(ast.literal_eval(default))
        assert found == wanted or (default is None and found == "None" and name in EXPLAINED), name
    positional = [name for name, (kind, _) in theirs.items() if kind == "POSITIONAL_OR_KEYWORD"]
    assert list(ours)[: len(positional)] == positional, "they can be passed by position"
    for name in set(ours) - set(theirs):
        is_variable = ours[name].kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        assert is_variable or ours[name].default is not inspect.Parameter.empty, (
            f"{name}: our parameters must be optional"
        )


@pytest.mark.parametrize("each", FUNCTIONS)
def test_coroutines_of_the_reference_are_coroutines(each: Documented) -> None:
    found = each.found
    found = found.__func__ if isinstance(found, classmethod) else found
    assert inspect.iscoroutinefunction(found) == isinstance(each.node, ast.AsyncFunctionDef)


@pytest.mark.parametrize("each", FUNCTIONS)
def test_the_test_named_for_each_function_exists(each: Documented) -> None:
    path, _, name = _shown_by(each).partition("::")
    functions = {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in functions


def test_the_conformance_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/conformance/test_conformance.py"


def _shown_by(each: Documented) -> str:
    assert isinstance(each.node, ast.FunctionDef | ast.AsyncFunctionDef)
    return str(ast.get_docstring(each.node))


def page() -> str:
    """Return the page as Markdown."""
    parts = [_INTRO]
    for owner in [each for each in ALL if each.name == ""]:
        members = [each for each in ALL if each.owner == owner.owner and each.name]
        parts.append(f"## `{owner.package}.{owner.owner}`\n\n{_summary(owner.found)}\n\n")
        fields = [each for each in members if isinstance(each.node, ast.AnnAssign)]
        if fields:
            parts.append("Fields: " + ", ".join(f"`{ast.unparse(each.node)}`" for each in fields) + "\n\n")
        if functions := [each for each in members if each.is_function]:
            parts.append("| documented | further parameters | what it does | shown by |\n|---|---|---|---|\n")
            parts += [_row(each) for each in functions]
            parts.append("\n")
    parts.append("Differences: " + "; ".join(f"`{name}` {why}" for name, why in EXPLAINED.items()) + ".\n")
    return "".join(parts)


def _row(each: Documented) -> str:
    node = each.node
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    arguments = ast.unparse(node.args).removeprefix("self").removeprefix("cls").removeprefix(", ")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and each.name != "__init__" else ""
    ours = [name for name in _found_parameters(each) if name not in _parameters(node)]
    does = "creates it" if each.name == "__init__" else _summary(each.found)
    cells = [f"`{prefix}{each.name}({arguments}){returns}`", ", ".join(f"`{name}`" for name in ours), does]
    path, _, test = _shown_by(each).partition("::")
    cells.append(f"`{Path(path).name}`: {test.removeprefix('test_').replace('_', ' ')}")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _summary(found: Any) -> str:
    return (inspect.getdoc(found) or "").split("\n\n")[0].replace("\n", " ").removesuffix(".")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE} is written\n")
