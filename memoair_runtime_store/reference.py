"""References that name a runtime: an artifact in a registry, or the URL of a release."""

import hashlib
import platform
import re
import sys
from urllib.parse import urlsplit

import attrs

from memoair_protocol.addresses import is_loopback

DEFAULT_REPO = "ghcr.io/memoair/memoair-runtime"

# The grammar of the OCI distribution specification. The registry is required: no default suits everyone.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:\[[0-9a-f:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?", re.ASCII)
_MAX_CHARS = 2_048
_ARCHITECTURES = {
    "x86_64": ("amd64", None), "amd64": ("amd64", None),
    "aarch64": ("arm64", None), "arm64": ("arm64", None),
    "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6"),
    "i386": ("386", None), "i686": ("386", None), "x86": ("386", None),
}  # fmt: skip
_OPERATING_SYSTEMS = {"win32": "windows", "cygwin": "windows"}


@attrs.frozen
class Platform:
    """The platform a runtime is built for, in the terms of registries.

    Attributes:
        os: The operating system, such as ``linux``.
        architecture: The architecture, such as ``amd64``.
        variant: The variant of the architecture, such as ``v7``.
    """

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def current_platform() -> Platform:
    """Return the platform of this machine."""
    machine = platform.machine().lower()
    architecture, variant = _ARCHITECTURES.get(machine, (machine or "unknown", None))
    return Platform(_OPERATING_SYSTEMS.get(sys.platform, sys.platform), architecture, variant)


@attrs.frozen
class OciReference:
    """An artifact in a registry, such as ``ghcr.io/memoair/memoair-runtime:0.5.0``. A digest (``@sha256:...``) pins it.

    Attributes:
        registry: The host of the registry, with its port if it has one.
        repository: The repository in the registry.
        tag: The tag, None if only a digest is given.
        digest: The digest that pins the content.
    """

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"

    @property
    def display_name(self) -> str:
        """The reference as errors and logs show it."""
        return str(self)

    @property
    def is_pinned(self) -> bool:
        """Whether the reference has a digest of the content."""
        return self.digest is not None

    @property
    def version(self) -> str | None:
        """The version that the reference names, if it names one."""
        return self.tag


@attrs.frozen
class ReleaseUrl:
    """The URL of a release file: an archive or a program.

    Attributes:
        url: The URL without its fragment.
        sha256: The SHA-256 from the fragment, None without one.
        version: The version that was filled in, if there is one.
    """

    url: str = attrs.field(repr=False)
    sha256: str | None
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.url}#sha256={self.sha256}" if self.sha256 else self.url

    @property
    def display_name(self) -> str:
        """The URL as errors and logs show it: without the query, which may contain a signature."""
        return self.url.partition("?")[0]

    @property
    def is_pinned(self) -> bool:
        """Whether the reference has a checksum of the content."""
        return self.sha256 is not None


Reference = OciReference | ReleaseUrl


def cache_key(reference: Reference, target: Platform) -> str:
    """Return the key of a reference in the cache: readable, and unique.

    It reveals nothing of a URL's query, which may contain a signature.
    """
    readable = (
        re.sub(r"[^a-z0-9.]+", "-", reference.display_name.lower().partition("@")[0]).strip("-.")[-60:].strip("-.")
    )
    return f"{readable}-{hashlib.sha256(f'{reference} {target}'.encode()).hexdigest()[:32]}"


def parse_reference(
    repo: str | None,
    version: str | None,
    own_version: str | None,
    names: tuple[str, str] = ("runtime_repo", "runtime_version"),
) -> Reference:
    """Parse the reference of a runtime.

    Args:
        repo: A repository with its registry, or the URL of a release. None is the default repository.
        version: A version or a digest. None is ``own_version``.
        own_version: The version of this package, whose runtime speaks the protocol that the client expects. None if
            the package is not installed.
        names: What error messages call ``repo`` and ``version``.

    Returns:
        The parsed reference.

    Raises:
        ValueError: The reference is invalid.
    """
    repo_name, version_name = names
    for name, value in zip(names, (repo, version), strict=True):
        if value is not None and not (0 < len(value) <= _MAX_CHARS and value.isascii() and value.isprintable()):
            raise ValueError(f"{name} is empty, too long, or has an invalid character")
        if value is not None and " " in value:
            raise ValueError(f"{name} contains a space: {value!r}")
    if repo is not None and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", repo):
        return _parse_release(repo, version, repo_name, version_name)
    return _parse_artifact(repo or DEFAULT_REPO, version, own_version, repo_name, version_name)


def _parse_artifact(
    repo: str, version: str | None, own_version: str | None, repo_name: str, version_name: str
) -> OciReference:
    path, _, digest = repo.partition("@")
    registry, slash, rest = path.partition("/")
    if not slash or not (registry == "localhost" or set(registry) & set(".:")):
        raise ValueError(f"{repo_name} must begin with a registry, as in {DEFAULT_REPO}, not {repo!r}")
    if not _HOST.fullmatch(registry):
        raise ValueError(f"{repo_name} has an invalid registry: {registry!r}")
    repository, colon, tag = rest.partition(":")
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"{repo_name} must have a lower-case repository after the registry, not {repo!r}")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(f"{repo_name} has an invalid tag: {tag!r}")
    if "@" in repo and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{repo_name} has an invalid digest: expected sha256: and 64 hexadecimal digits")
    if version is not None and version.startswith("sha256:"):
        if not _DIGEST.fullmatch(version):
            raise ValueError(f"{version_name} is an invalid digest: expected sha256: and 64 hexadecimal digits")
        if digest not in ("", version):
            raise ValueError(f"{repo_name} and {version_name} have different digests")
        digest, version = version, None
    if version is not None and not _TAG.fullmatch(version):
        raise ValueError(f"{version_name} must be a version such as 0.5.0 or a digest, not {version!r}")
    if version is not None and tag not in ("", version):
        raise ValueError(f"{repo_name} has the version {tag} and {version_name} is {version}; set only one")
    tag = tag or version or ("" if digest else own_version or "")
    if not tag and not digest:
        raise ValueError(f"{repo_name} needs a version: this package is not installed, so there is no default")
    return OciReference(registry.lower(), repository, tag or None, digest or None)


def _parse_release(url: str, version: str | None, repo_name: str, version_name: str) -> ReleaseUrl:
    parts = urlsplit(url)
    host = parts.hostname
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{repo_name} must not contain a user name or a password")
    if parts.scheme.lower() not in ("http", "https") or not host or port == 0:
        raise ValueError(f"{repo_name} must be a repository of a registry, or the https URL of a file")
    if parts.path in ("", "/"):
        raise ValueError(f"{repo_name} has a server but no file path")
    if version is not None and "{version}" not in url:
        raise ValueError(f"{version_name} is set, but the URL of {repo_name} has no {{version}} placeholder to fill in")
    if version is None and "{version}" in url:
        raise ValueError(f"{repo_name} has a {{version}} placeholder, but {version_name} is not set")
    if version is not None and not _TAG.fullmatch(version):
        raise ValueError(f"{version_name} must be a version such as 0.5.0, not {version!r}")
    current = current_platform()
    placeholders = {"{version}": version or "", "{os}": current.os, "{arch}": current.architecture}
    expanded, _, fragment = url.partition("#")
    for placeholder, value in placeholders.items():
        expanded = expanded.replace(placeholder, value)
    if set(expanded) & set('{}<>"\\^`|'):
        raise ValueError(
            f"{repo_name} has a character that is invalid in URLs; placeholders are {{version}}, {{os}} and {{arch}}"
        )
    sha256 = None
    if fragment:
        name, _, value = fragment.partition("=")
        if name != "sha256" or not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
            raise ValueError(f"{repo_name} has an invalid fragment: expected #sha256= and 64 hexadecimal digits")
        sha256 = value.lower()
    if parts.scheme.lower() == "http" and not is_loopback(host) and sha256 is None:
        raise ValueError(f"{repo_name} must use https, or have a checksum: #sha256=...")
    return ReleaseUrl(expanded, sha256, version)
