"""Check the installation: Python, the packages, the compiled kernel."""

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

from memoair_cli.doctor.findings import DoctorContext, Finding, note, ok, problem

_PACKAGE = "memoair-voice"
_MIN_PYTHON = (3, 10)
# "numpy>=1.24", but not the requirements of extras.
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]*\])?>=([\d.]+)$")


def check_python(_: DoctorContext) -> Iterator[Finding]:
    """Check the version of Python."""
    message = (
        f"Python {platform.python_version()} ({platform.python_implementation()}) on {platform.platform(terse=True)}"
    )
    if sys.version_info < _MIN_PYTHON:
        yield problem("python", message, "install Python 3.10 or newer")
    else:
        yield ok("python", message)


def check_packages(_: DoctorContext) -> Iterator[Finding]:
    """Check that all required packages are installed, and their versions."""
    try:
        installed, requirements = metadata.version(_PACKAGE), metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield problem("packages", f"{_PACKAGE} is not installed; this is a source tree", f"pip install {_PACKAGE}")
        return
    errors = [error for error in map(_requirement_error, requirements) if error is not None]
    if errors:
        yield problem("packages", f"{_PACKAGE} {installed}; {', '.join(errors)}", f"pip install --upgrade {_PACKAGE}")
    else:
        required = sum(_REQUIREMENT.fullmatch(requirement) is not None for requirement in requirements)
        yield ok("packages", f"{_PACKAGE} {installed} and the {required} packages that it requires")


def check_kernel(_: DoctorContext) -> Iterator[Finding]:
    """Check that scores are computed by the compiled kernel."""
    if find_spec("memoair_index.kernel._compiled") is not None:
        yield ok("kernel", "searches use the compiled kernel")
        return
    remedy = f"install a C compiler, then pip install --force-reinstall --no-binary {_PACKAGE} {_PACKAGE}"
    yield note(
        "kernel", "the compiled kernel is not installed; searches use NumPy, which is several times slower", remedy
    )


def _requirement_error(requirement: str) -> str | None:
    """Return what is wrong with a required package, or None."""
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:  # a requirement of an extra
        return None
    name, minimum = match.groups()
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    return (
        f"{name} {installed} is older than {minimum}" if _version_tuple(installed) < _version_tuple(minimum) else None
    )


def _version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
