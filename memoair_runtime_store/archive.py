"""Unpack untrusted archives: no member is written outside the target folder, and size and file count are bounded.

The extraction of the standard library is not used: its filters are missing from older Python versions, and in others
they let members escape the folder.
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

from memoair_runtime_store.cancel_token import CancelToken
from memoair_runtime_store.errors import RuntimeStoreError

PROGRAM = "voice-runtime.exe" if os.name == "nt" else "voice-runtime"

MAX_UNPACKED_BYTES = 2 << 30
# A real program compresses to a third or a fifth of its size. An archive that expands a hundredfold is a zip bomb.
_MAX_EXPANSION_RATIO, _MIN_ALLOWANCE_BYTES = 100, 32 << 20
_MAX_FILES = 20_000
_MAX_DEPTH, _MAX_NAME_BYTES, _MAX_LINK_CHARS = 32, 255, 1_024
_MAX_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18
_EXECUTABLE_MAGIC = (
    b"\x7fELF", b"#!", b"MZ", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
)  # fmt: skip
_UNSUPPORTED_FORMATS = {b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z"}
_INVALID_ON_WINDOWS = re.compile(r"(?i)[:*?\"<>|]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
_CORRUPT_ARCHIVE_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    ValueError,
    RuntimeError,
)


class Unpacker:
    """Unpacker for the files of one artifact. Unpacks them one after another into a new folder.

    Not thread-safe. Raises `RuntimeStoreError` for everything that is wrong with an archive.
    """

    def __init__(self, folder: Path, cancel_token: CancelToken) -> None:
        self._root = folder
        self._cancel_token = cancel_token
        self._folders: set[PurePosixPath] = {PurePosixPath()}  # created here, so none of them is a link
        self._files: set[PurePosixPath] = set()
        self._member_count = self._written_bytes = self._limit_bytes = 0

    def add(self, file: IO[bytes], size: int, name: str | None) -> None:
        """Unpack an archive, or copy a file that is a program itself.

        Args:
            file: The archive or program, open for reading and seekable.
            size: Its size in bytes. It bounds what the archive may expand to.
            name: The file name of a bare program, None if it is unknown.

        Raises:
            RuntimeStoreError: The file is not a valid archive or program, or it exceeds a limit.
        """
        self._limit_bytes = min(
            MAX_UNPACKED_BYTES, self._limit_bytes + max(_MIN_ALLOWANCE_BYTES, size * _MAX_EXPANSION_RATIO)
        )
        file.seek(0)
        head = file.read(512)
        file.seek(0)
        try:
            if head.startswith(b"\x1f\x8b"):
                with tempfile.TemporaryFile(dir=self._root.parent) as tar_file:
                    self._gunzip(file, tar_file)
                    self._untar(tar_file, "gzip")
            elif head[257:262] == b"ustar":
                self._untar(file, "tar")
            elif head.startswith(b"PK\x03\x04"):
                self._unzip(file)
            elif head.startswith(_EXECUTABLE_MAGIC):
                self._add_program(file, name)
            else:
                raise RuntimeStoreError(_describe_unsupported(head))
        except OSError as error:
            raise RuntimeStoreError(f"the archive cannot be unpacked: {error.strerror or error}") from error
        except _CORRUPT_ARCHIVE_ERRORS as error:
            raise RuntimeStoreError(f"the archive is corrupt: {type(error).__name__}") from error

    def prepare_program(self) -> str:
        """Make the program executable and return its path, relative to the folder.

        The program is the file named voice-runtime, or the only file if there is just one.
        """
        candidates = sorted((path for path in self._files if path.name == PROGRAM), key=lambda path: len(path.parts))
        if not candidates and len(self._files) == 1:
            candidates = list(self._files)
        if not candidates or (len(candidates) > 1 and len(candidates[0].parts) == len(candidates[1].parts)):
            raise RuntimeStoreError(
                f"the archive has {len(self._files)} files, and not exactly one of them is named {PROGRAM}"
            )
        path = self._absolute_path(candidates[0])
        mode = stat.S_IMODE(path.stat().st_mode) | 0o400
        path.chmod(mode | (mode & 0o444) >> 2)  # grant execute to everyone who may read it
        return str(candidates[0])

    def sync_folders(self) -> None:
        """Sync the folders to disk, so that the folder is complete after a power failure once it is renamed."""
        if os.name == "nt":
            return
        for folder in self._folders:
            descriptor = os.open(self._absolute_path(folder), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _gunzip(self, packed: IO[bytes], out: IO[bytes]) -> None:
        with gzip.GzipFile(fileobj=packed) as stream:
            total = 0
            while chunk := stream.read(_CHUNK_BYTES):
                self._cancel_token.check()
                total += len(chunk)
                self._check_size(total)
                out.write(chunk)
        out.seek(0)

    def _untar(self, file: IO[bytes], kind: str) -> None:
        if kind == "gzip" and file.read(512)[257:262] != b"ustar":
            raise RuntimeStoreError("the gzip file does not contain a tar archive")
        file.seek(0)
        with tarfile.open(fileobj=_BoundedReader(file), mode="r:") as archive:  # type: ignore[call-overload]
            for member in archive:
                self._count_member()
                if member.issparse() or not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                    raise RuntimeStoreError(
                        f"{_quote(member.name)} is not a file, a folder or a link and is not unpacked"
                    )
                path = _member_path(member.name)
                if member.isdir():
                    self._make_folder(path)
                elif member.issym():
                    self._make_symlink(path, member.linkname)
                elif member.islnk():
                    self._copy_hard_link(path, _member_path(member.linkname))
                else:
                    content = archive.extractfile(member)
                    assert content is not None  # noqa: S101 - a regular file has content
                    with content:
                        self._write_file(path, content, member.size, is_program=bool(member.mode & 0o111))

    def _unzip(self, file: IO[bytes]) -> None:
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) > _MAX_FILES:
                raise RuntimeStoreError(f"the archive has more than {_MAX_FILES} files")
            for member in archive.infolist():
                self._count_member()
                mode = member.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise RuntimeStoreError(f"{_quote(member.filename)} is not a file or a folder and is not unpacked")
                if member.flag_bits & 1:
                    raise RuntimeStoreError("the archive is encrypted")
                path = _member_path(member.filename)
                if member.is_dir():
                    self._make_folder(path)
                else:
                    with archive.open(member) as content:
                        self._write_file(path, content, member.file_size, is_program=bool(mode & 0o111))

    def _add_program(self, file: IO[bytes], name: str | None) -> None:
        self._count_member()
        path = _member_path(name or PROGRAM)
        if len(path.parts) != 1:
            raise RuntimeStoreError(f"{_quote(str(path))} is not a valid program name: it has a folder in it")
        self._write_file(path, file, None, is_program=True)

    def _make_folder(self, path: PurePosixPath) -> None:
        for folder in reversed([path, *path.parents]):
            if folder not in self._folders:
                if folder in self._files:
                    raise RuntimeStoreError(f"{_quote(str(folder))} is both a file and a folder in the archive")
                self._absolute_path(folder).mkdir(mode=0o755)  # fails if a link of this name was unpacked before
                self._folders.add(folder)

    def _write_file(self, path: PurePosixPath, content: IO[bytes], size: int | None, *, is_program: bool) -> None:
        self._prepare_path(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(self._absolute_path(path), flags, 0o755 if is_program else 0o644), "wb") as out:
            written = 0
            while chunk := content.read(_CHUNK_BYTES):
                self._cancel_token.check()
                written += len(chunk)
                self._check_size(self._written_bytes + written)
                out.write(chunk)
            if size is not None and written != size:
                raise RuntimeStoreError(
                    f"the archive is corrupt: {_quote(str(path))} has {written} bytes instead of {size}"
                )
            out.flush()
            os.fsync(out.fileno())
        self._written_bytes += written
        self._files.add(path)

    def _copy_hard_link(self, path: PurePosixPath, target: PurePosixPath) -> None:
        """Copy the file that a hard link points to. The file must have been unpacked before."""
        if target not in self._files or target == path:
            raise RuntimeStoreError(
                f"{_quote(str(path))} is a hard link to a file that does not precede it in the archive"
            )
        source = self._absolute_path(target)
        with source.open("rb") as content:
            self._write_file(path, content, None, is_program=bool(source.stat().st_mode & 0o100))

    def _make_symlink(self, path: PurePosixPath, target: str) -> None:
        """Create a symbolic link that cannot lead out of the folder.

        The target may go up only at its beginning, and no higher than the folder itself, since every parent of a link
        is a real folder. After that it goes down, over real folders and over links that obey the same rule.
        """
        # Empty and "." steps are dropped: within a cycle of links, a program that resolves "a//b" by itself may end up
        # with an absolute path.
        steps = [step for step in target.split("/") if step not in ("", ".")]
        parent_steps = next((index for index, step in enumerate(steps) if step != ".."), len(steps))
        is_valid = (
            0 < len(target) <= _MAX_LINK_CHARS and "\\" not in target and "\0" not in target and ":" not in target
        )
        if not is_valid or target.startswith("/") or ".." in steps[parent_steps:] or parent_steps > len(path.parts) - 1:
            raise RuntimeStoreError(f"{_quote(str(path))} is a link that could lead out of the folder")
        self._prepare_path(path)
        self._absolute_path(path).symlink_to("/".join(steps) or ".")

    def _prepare_path(self, path: PurePosixPath) -> None:
        """Create the folders of a file, and delete an earlier file of the same name, as tar does."""
        if not path.parts:
            raise RuntimeStoreError("the archive has a file without a name")
        self._make_folder(path.parent)
        if path in self._folders:
            raise RuntimeStoreError(f"{_quote(str(path))} is both a file and a folder in the archive")
        self._absolute_path(path).unlink(missing_ok=True)
        self._files.discard(path)

    def _absolute_path(self, path: PurePosixPath) -> Path:
        return self._root.joinpath(*path.parts)

    def _count_member(self) -> None:
        self._cancel_token.check()
        self._member_count += 1
        if self._member_count > _MAX_FILES:
            raise RuntimeStoreError(f"the archive has more than {_MAX_FILES} files")

    def _check_size(self, size: int) -> None:
        if size > self._limit_bytes:
            raise RuntimeStoreError(
                f"the archive expands to more than {self._limit_bytes >> 20} MB, too much for its compressed size"
            )


class _BoundedReader:
    """A file with a bounded read size: a tar header may claim any length, and tarfile would read all of it at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, lambda: None

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise RuntimeStoreError(f"the archive has a header longer than {_MAX_HEADER_BYTES} bytes")
        return self._file.read(size)


def _member_path(name: str) -> PurePosixPath:
    """Return the path of a member, relative to the folder. Reject every name that could lead out of it."""
    trimmed = name.rstrip("/")
    steps = [step for step in trimmed.split("/") if step != "."]
    is_invalid = (
        ("" in steps[:1] and bool(trimmed))
        or ".." in steps
        or "\\" in name
        or any(not char.isprintable() for char in name)
        or len(steps) > _MAX_DEPTH
        or any(len(os.fsencode(step)) > _MAX_NAME_BYTES for step in steps)
        or (os.name == "nt" and any(map(_INVALID_ON_WINDOWS.search, steps)))
    )
    if is_invalid or not name:
        raise RuntimeStoreError(f"{_quote(name)} is an invalid path, or one that leads out of the folder")
    return PurePosixPath(*[step for step in steps if step])


def _quote(name: str) -> str:
    return repr(name if len(name) <= 100 else f"{name[:100]}…")


def _describe_unsupported(head: bytes) -> str:
    for magic, kind in _UNSUPPORTED_FORMATS.items():
        if head.startswith(magic):
            return f"the file is packed with {kind}; expected a tar.gz, tar or zip archive, or a program"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "the file is a web page; expected an archive or a program"
    return "the file is neither an archive (tar.gz, tar, zip) nor a program"
