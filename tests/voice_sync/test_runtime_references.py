"""References to runtimes: valid and invalid ones."""

import pytest

from memoair_runtime_store.reference import ReleaseUrl, cache_key, current_platform, parse_reference
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemorySync

DIGEST = "sha256:" + "ab" * 32
SHA = "#sha256=" + "ab" * 32


@pytest.mark.parametrize(
    ("repo", "version", "expected"),
    [
        (None, "0.5.0", "ghcr.io/memoair/memoair-runtime:0.5.0"),
        (None, DIGEST, f"ghcr.io/memoair/memoair-runtime@{DIGEST}"),
        ("ghcr.io/acme/runtime", None, "ghcr.io/acme/runtime:0.4.0"),
        ("ghcr.io/acme/runtime", "v1", "ghcr.io/acme/runtime:v1"),
        ("ghcr.io/acme/runtime:v1", None, "ghcr.io/acme/runtime:v1"),
        ("ghcr.io/acme/runtime:v1", "v1", "ghcr.io/acme/runtime:v1"),
        (f"ghcr.io/acme/runtime@{DIGEST}", None, f"ghcr.io/acme/runtime@{DIGEST}"),
        (f"ghcr.io/acme/runtime:v1@{DIGEST}", None, f"ghcr.io/acme/runtime:v1@{DIGEST}"),
        ("GHCR.io/acme/runtime", "1", "ghcr.io/acme/runtime:1"),
        ("localhost:5000/runtime", "1", "localhost:5000/runtime:1"),
        ("127.0.0.1:5000/a/b/c__d", "1", "127.0.0.1:5000/a/b/c__d:1"),
        ("[::1]:5000/runtime", "1", "[::1]:5000/runtime:1"),
        ("https://example.com/v-{version}/runtime.tar.gz", "1.2", "https://example.com/v-1.2/runtime.tar.gz"),
        (f"https://example.com/runtime.zip{SHA}", None, f"https://example.com/runtime.zip{SHA}"),
        (f"http://example.com/runtime.zip{SHA}", None, f"http://example.com/runtime.zip{SHA}"),
        ("http://127.0.0.1:1/runtime.zip", None, "http://127.0.0.1:1/runtime.zip"),
    ],
)
def test_valid_references(repo: str | None, version: str | None, expected: str) -> None:
    assert str(parse_reference(repo, version, "0.4.0")) == expected


@pytest.mark.parametrize(
    ("repo", "version", "message"),
    [
        ("acme/runtime", "1", "runtime_repo must begin with a registry"),
        ("runtime", "1", "runtime_repo must begin with a registry"),
        ("ghcr.io/Acme/runtime", "1", "runtime_repo must have a lower-case repository"),
        ("ghcr.io/../runtime", "1", "runtime_repo must have a lower-case repository"),
        ("ghcr.io/", "1", "runtime_repo must have a lower-case repository"),
        ("ghcr.io@evil/x", "1", "runtime_repo"),
        ("gh_cr.io/runtime", "1", "has an invalid registry"),
        ("ghcr.io/runtime:", "1", "has an invalid tag"),
        ("ghcr.io/runtime:a/b", None, "must have a lower-case repository|tag"),
        ("ghcr.io/runtime:1", "2", "has the version 1 and runtime_version is 2"),
        ("ghcr.io/runtime@sha256:abc", None, "invalid digest"),
        (f"ghcr.io/runtime@{DIGEST}", "sha256:" + "cd" * 32, "different digests"),
        ("ghcr.io/runtime", "sha256:abc", "runtime_version is an invalid digest"),
        ("ghcr.io/runtime", "../1", "runtime_version must be a version"),
        ("ghcr.io/run time", None, "contains a space"),
        ("ghcr.io/r\n", None, "has an invalid character"),
        ("ghcr.io/rüntime", None, "has an invalid character"),
        ("x" * 3_000, None, "too long"),
        ("http://example.com/runtime.zip", None, "must use https, or have a checksum: #sha256="),
        ("ftp://example.com/runtime.zip", None, "must be a repository of a registry, or the https URL"),
        ("file:///etc/passwd", None, "must be a repository of a registry, or the https URL"),
        ("https://user:secret@example.com/runtime.zip", None, "must not contain a user name or a password"),
        ("https://example.com", None, "has a server but no file"),
        ("https://example.com/runtime.zip", "1", "runtime_version is set, but the URL"),
        (
            "https://example.com/{version}.zip",
            None,
            "placeholder, but MEMOAIR_RUNTIME_VERSION is not set",
        ),
        ("https://example.com/{name}.zip", None, "has a character that is invalid in URLs"),
        ("https://example.com/runtime.zip#sha256=abc", None, "invalid fragment: expected #sha256="),
        ("https://example.com/runtime.zip#md5=abc", None, "invalid fragment: expected #sha256="),
        ("https://example.com:99999/runtime.zip", None, "must be a repository of a registry, or the https URL"),
    ],
)
def test_an_invalid_reference_raises_value_error_in_the_constructor(
    repo: str | None, version: str | None, message: str
) -> None:
    identity = {"project_id": "p", "user_id": "u"}
    with pytest.raises(ValueError, match=message) as raised:
        MemoAirVoiceMemorySync(**identity, runtime_repo=repo, runtime_version=version)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        MemoAirVoiceClientSync(
            api_key="k", project_id="p", agent_id="a", runtime_repo=repo, runtime_version=version, cloud_base_url=None
        )
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["runtime_repo", "runtime_version"])
def test_a_reference_that_is_not_a_string_raises_type_error(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        MemoAirVoiceMemorySync(project_id="p", user_id="u", **{name: 1})  # type: ignore[arg-type]


def test_without_an_installed_version_the_reference_needs_one() -> None:
    with pytest.raises(ValueError, match="needs a version"):
        parse_reference("ghcr.io/acme/runtime", None, None)


def test_url_placeholders_are_filled_in_for_this_platform() -> None:
    reference = parse_reference("https://example.com/{version}/{os}-{arch}.zip", "2", None)
    target = current_platform()
    assert str(reference) == f"https://example.com/2/{target.os}-{target.architecture}.zip"


def test_the_signature_in_a_url_is_never_shown() -> None:
    reference = parse_reference("https://example.com/runtime.zip?signature=secret", None, None)
    assert isinstance(reference, ReleaseUrl)
    assert "secret" not in reference.display_name + repr(reference) + cache_key(reference, current_platform())
    assert cache_key(reference, current_platform()) != cache_key(
        ReleaseUrl(reference.display_name, None), current_platform()
    )
