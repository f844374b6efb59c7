"""Archives, unpacked by somebody who does not trust them: nothing lands outside the folder, nothing grows without end.

Not by the extraction of the standard library: its filters are missing from older Pythons, and let escape in others.
"""

import gzip
import os
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from memoair_voice_sync.runtime_store.cancel_token import CancelToken
from memoair_voice_sync.runtime_store.errors import RuntimeStoreError

PROGRAM = "voice-runtime.exe" if os.name == "nt" else "voice-runtime"

MOST_BYTES = 2 << 30
# A real program is packed to a third or a fifth; what unpacks to a hundred times its size is made to fill disks.
_MOST_TIMES, _ALWAYS_BYTES = 100, 32 << 20
_MOST_FILES = 20_000
_MOST_DEPTH, _LONGEST_NAME, _LONGEST_LINK = 32, 255, 1_024
_MOST_HEADER_BYTES = 1 << 20
_CHUNK = 1 << 18
_EXECUTABLES = (
    b"\x7fELF", b"#!", b"MZ", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
)  # fmt: skip
_UNREAD = {b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z"}
_WINDOWS_MEANS_MORE = re.compile(r"(?i)[:*?\"<>|]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, ValueError, RuntimeError)


class Unpacker:
    """Unpacks the files of one artifact, one after another, into a new folder."""

    def __init__(self, into: Path, stop: CancelToken) -> None:
        self._into = into
        self._stop = stop
        self._folders: set[PurePosixPath] = {PurePosixPath()}  # made here, and so no links
        self._files: set[PurePosixPath] = set()
        self._members = self._written = self._limit = 0

    def add(self, file: IO[bytes], size: int, name: str | None) -> None:
        """Unpack an archive, or take a program as it is; ``name`` is what it is called, where it is."""
        self._limit = min(MOST_BYTES, self._limit + max(_ALWAYS_BYTES, size * _MOST_TIMES))
        file.seek(0)
        head = file.read(512)
        file.seek(0)
        try:
            if head.startswith(b"\x1f\x8b"):
                with tempfile.TemporaryFile(dir=self._into.parent) as plain:
                    self._gunzip(file, plain)
                    self._untar(plain, "gzip")
            elif head[257:262] == b"ustar":
                self._untar(file, "tar")
            elif head.startswith(b"PK\x03\x04"):
                self._unzip(file)
            elif head.startswith(_EXECUTABLES):
                self._take(file, name)
            else:
                raise RuntimeStoreError(_unknown(head))
        except OSError as error:
            raise RuntimeStoreError(f"it can't be unpacked: {error.strerror or error}") from error
        except _BROKEN as error:
            raise RuntimeStoreError(f"the archive is broken: {type(error).__name__}") from error

    def program(self) -> str:
        """The path of the program within the folder: what is called voice-runtime, or the only file that there is."""
        named = sorted((each for each in self._files if each.name == PROGRAM), key=lambda each: len(each.parts))
        if not named and len(self._files) == 1:
            named = list(self._files)
        if not named or (len(named) > 1 and len(named[0].parts) == len(named[1].parts)):
            raise RuntimeStoreError(f"it holds {len(self._files)} files, and no single one that is called {PROGRAM}")
        path = self._path(named[0])
        mode = stat.S_IMODE(path.stat().st_mode) | 0o400
        path.chmod(mode | (mode & 0o444) >> 2)  # who may read it may run it
        return str(named[0])

    def sync(self) -> None:
        """Have it all on the disk: what is renamed into its place must be whole after a power cut, too."""
        if os.name == "nt":
            return
        for folder in self._folders:
            descriptor = os.open(self._path(folder), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _gunzip(self, packed: IO[bytes], plain: IO[bytes]) -> None:
        with gzip.GzipFile(fileobj=packed) as stream:
            done = 0
            while chunk := stream.read(_CHUNK):
                self._stop.check()
                done += len(chunk)
                self._check_size(done)
                plain.write(chunk)
        plain.seek(0)

    def _untar(self, file: IO[bytes], kind: str) -> None:
        if kind == "gzip" and file.read(512)[257:262] != b"ustar":
            raise RuntimeStoreError("it is packed with gzip, but holds no tar archive")
        file.seek(0)
        with tarfile.open(fileobj=_CarefulFile(file), mode="r:") as archive:  # type: ignore[call-overload]
            for member in archive:
                self._count()
                if member.issparse() or not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                    raise RuntimeStoreError(
                        f"{_shown(member.name)} is neither file, folder nor link; it is not unpacked"
                    )
                path = _checked(member.name)
                if member.isdir():
                    self._make(path)
                elif member.issym():
                    self._link(path, member.linkname)
                elif member.islnk():
                    self._copy(path, _checked(member.linkname))
                else:
                    content = archive.extractfile(member)
                    assert content is not None  # noqa: S101 - a regular file has a content
                    with content:
                        self._write(path, content, member.size, is_program=bool(member.mode & 0o111))

    def _unzip(self, file: IO[bytes]) -> None:
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) > _MOST_FILES:
                raise RuntimeStoreError(f"it holds more than {_MOST_FILES} files")
            for member in archive.infolist():
                self._count()
                mode = member.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise RuntimeStoreError(f"{_shown(member.filename)} is neither file nor folder; it is not unpacked")
                if member.flag_bits & 1:
                    raise RuntimeStoreError("the archive is encrypted")
                path = _checked(member.filename)
                if member.is_dir():
                    self._make(path)
                else:
                    with archive.open(member) as content:
                        self._write(path, content, member.file_size, is_program=bool(mode & 0o111))

    def _take(self, file: IO[bytes], name: str | None) -> None:
        self._count()
        path = _checked(name or PROGRAM)
        if len(path.parts) != 1:
            raise RuntimeStoreError(f"{_shown(str(path))} is no name of a program")
        self._write(path, file, None, is_program=True)

    def _make(self, path: PurePosixPath) -> None:
        for folder in reversed([path, *path.parents]):
            if folder not in self._folders:
                if folder in self._files:
                    raise RuntimeStoreError(f"{_shown(str(folder))} is a file and a folder at once")
                self._path(folder).mkdir(mode=0o755)  # fails where a link of this name was unpacked
                self._folders.add(folder)

    def _write(self, path: PurePosixPath, content: IO[bytes], size: int | None, *, is_program: bool) -> None:
        self._make_room(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(self._path(path), flags, 0o755 if is_program else 0o644), "wb") as out:
            done = 0
            while chunk := content.read(_CHUNK):
                self._stop.check()
                done += len(chunk)
                self._check_size(self._written + done)
                out.write(chunk)
            if size is not None and done != size:
                raise RuntimeStoreError(
                    f"the archive is broken: {_shown(str(path))} holds {done} bytes instead of {size}"
                )
            out.flush()
            os.fsync(out.fileno())
        self._written += done
        self._files.add(path)

    def _copy(self, path: PurePosixPath, other: PurePosixPath) -> None:
        """A hard link is made a copy, of a file that was unpacked before."""
        if other not in self._files or other == path:
            raise RuntimeStoreError(f"{_shown(str(path))} is a link to what the archive does not hold before it")
        source = self._path(other)
        with source.open("rb") as content:
            self._write(path, content, None, is_program=bool(source.stat().st_mode & 0o100))

    def _link(self, path: PurePosixPath, target: str) -> None:
        """Make a symbolic link that can't lead out of the folder.

        It goes up only at its beginning, and from a real folder no further than to ours; after that only down, over
        real folders and links of which the same is true.
        """
        # Plain steps alone: of "a//b" in a circle of links, programs that resolve paths by hand make an absolute one.
        steps = [step for step in target.split("/") if step not in ("", ".")]
        ups = next((number for number, step in enumerate(steps) if step != ".."), len(steps))
        is_sound = 0 < len(target) <= _LONGEST_LINK and "\\" not in target and "\0" not in target and ":" not in target
        if not is_sound or target.startswith("/") or ".." in steps[ups:] or ups > len(path.parts) - 1:
            raise RuntimeStoreError(f"{_shown(str(path))} is a link that leads out of the archive, or could")
        self._make_room(path)
        self._path(path).symlink_to("/".join(steps) or ".")

    def _make_room(self, path: PurePosixPath) -> None:
        """Make the folders of a file; a later file takes the place of an earlier one, as tar has it."""
        if not path.parts:
            raise RuntimeStoreError("the archive has a file without a name")
        self._make(path.parent)
        if path in self._folders:
            raise RuntimeStoreError(f"{_shown(str(path))} is a file and a folder at once")
        self._path(path).unlink(missing_ok=True)
        self._files.discard(path)

    def _path(self, path: PurePosixPath) -> Path:
        return self._into.joinpath(*path.parts)

    def _count(self) -> None:
        self._stop.check()
        self._members += 1
        if self._members > _MOST_FILES:
            raise RuntimeStoreError(f"it holds more than {_MOST_FILES} files")

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise RuntimeStoreError(
                f"it unpacks to more than {self._limit >> 20} MB, which no runtime of its size does"
            )


class _CarefulFile:
    """A file of which nobody reads much at once: the headers of a tar archive may claim to be as long as they like."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, lambda: None

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise RuntimeStoreError("the archive has a header that is longer than any needs to be")
        return self._file.read(size)


def _checked(name: str) -> PurePosixPath:
    """The path of a member within the folder."""
    trimmed = name.rstrip("/")
    steps = [step for step in trimmed.split("/") if step != "."]
    wrong = (
        ("" in steps[:1] and bool(trimmed))
        or ".." in steps
        or "\\" in name
        or any(not each.isprintable() for each in name)
        or len(steps) > _MOST_DEPTH
        or any(len(os.fsencode(step)) > _LONGEST_NAME for step in steps)
        or (os.name == "nt" and any(map(_WINDOWS_MEANS_MORE.search, steps)))
    )
    if wrong or not name:
        raise RuntimeStoreError(f"{_shown(name)} is a path that leads out of the archive, or that is none")
    return PurePosixPath(*[step for step in steps if step])


def _shown(name: str) -> str:
    return repr(name if len(name) <= 100 else f"{name[:100]}…")


def _unknown(head: bytes) -> str:
    for magic, kind in _UNREAD.items():
        if head.startswith(magic):
            return f"it is packed with {kind}; a runtime is a tar.gz, a tar, a zip, or a program as it is"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, and no runtime"
    return "it is neither an archive (tar.gz, tar, zip) nor a program"
