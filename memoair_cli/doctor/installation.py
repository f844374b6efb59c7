"""What is installed: Python, the packages, the compiled kernel."""

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

from memoair_cli.doctor.findings import DoctorContext, Finding, note, ok, problem

_OURS = "memoair-voice"
_OLDEST = (3, 10)
# "numpy>=1.24", without the requirements of extras.
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]*\])?>=([\d.]+)$")


def check_python(_: DoctorContext) -> Iterator[Finding]:
    """Whether Python is new enough."""
    told = f"Python {platform.python_version()} ({platform.python_implementation()}) on {platform.platform(terse=True)}"
    if sys.version_info < _OLDEST:
        yield problem("python", told, "install Python 3.10 or newer")
    else:
        yield ok("python", told)


def check_packages(_: DoctorContext) -> Iterator[Finding]:
    """Whether everything is there that we build on, and new enough."""
    try:
        ours, requirements = metadata.version(_OURS), metadata.requires(_OURS) or []
    except metadata.PackageNotFoundError:
        yield problem("packages", f"{_OURS} is not installed, it only lies here", f"pip install {_OURS}")
        return
    amiss = [each for each in map(_amiss, requirements) if each is not None]
    if amiss:
        yield problem("packages", f"{_OURS} {ours}; {', '.join(amiss)}", f"pip install --upgrade {_OURS}")
    else:
        wanted = sum(_REQUIREMENT.fullmatch(each) is not None for each in requirements)
        yield ok("packages", f"{_OURS} {ours}, and the {wanted} packages that it builds on")


def check_kernel(_: DoctorContext) -> Iterator[Finding]:
    """Whether scores are computed by the compiled kernel."""
    if find_spec("memoair_index.kernel._compiled") is not None:
        yield ok("kernel", "recall runs on the compiled kernel")
        return
    remedy = f"install a C compiler, then pip install --force-reinstall --no-binary {_OURS} {_OURS}"
    yield note("kernel", "no compiled kernel is installed; recall runs on NumPy, some times slower", remedy)


def _amiss(requirement: str) -> str | None:
    """What is wrong with a package that we need, if anything."""
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:  # of an extra
        return None
    name, floor = match.groups()
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    return f"{name} {found} is older than {floor}" if _numbers(found) < _numbers(floor) else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
