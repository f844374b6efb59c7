"""A file of named arrays: immutable, memory-mapped, versioned and checksummed.

Layout, little-endian: 8 bytes of magic, the length of the table (4 bytes), its CRC-32 (4 bytes), the table (JSON), and
the arrays, each at a multiple of 64 bytes. The table holds the file's kind and version, and the type, shape, offset and
CRC-32 of each array. Opening reads the table only; `Container.verify` reads everything.
"""

import math
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from memoair_protocol.durable import sync_folder
from memoair_protocol.input_files import open_regular_file

_MAGIC = b"MEMOAIR\x01"
_HEADER = struct.Struct("<8sII")
_ALIGNMENT = 64
# The table of a few dozen arrays takes some kilobytes; a file that claims more than this is not ours.
_MAX_TABLE_BYTES = 64 << 20
_VERIFY_CHUNK_BYTES = 1 << 20

Array = NDArray[Any]


class ContainerError(ValueError):
    """The file is not a container, has another kind or version, is truncated, or does not match its checksums."""


class _Section(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    offset: int
    crc: int

    @property
    def nbytes(self) -> int:
        """The size of the array in bytes."""
        return int(np.dtype(self.dtype).itemsize) * math.prod(self.shape)


class _Table(msgspec.Struct, frozen=True):
    kind: str
    version: int
    size: int
    meta: dict[str, Any]
    sections: dict[str, _Section]


_table_decoder = msgspec.json.Decoder(_Table)


class Container:
    """An open container file. Thread-safe for reading.

    Its arrays are copy-on-write: changes to them never reach the file. The file stays mapped for as long as this object
    or one of its arrays is referenced.

    Attributes:
        path: The file.
        meta: The metadata that was passed to `write_container`.
        checksum: The CRC-32 of the table, which depends on the content of all arrays.
    """

    def __init__(self, path: Path, kind: str, version: int) -> None:
        """Open a file of this kind and version; raises `ContainerError`, or OSError if reading fails."""
        self.path = path
        with open_regular_file(path) as file:
            file_size = os.fstat(file.fileno()).st_size
            self._table, self.checksum = _read_table(file.read(_HEADER.size), file.read, path)
            _check_table(self._table, kind, version, file_size, path)
            self._private_map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            # A second mapping for `verify`: it does not see pages that were changed in memory, and it reads this file
            # even if another one has taken its path by then.
            self._file_map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.meta: Mapping[str, Any] = self._table.meta

    def get_array(self, name: str, dtype: DTypeLike | None = None, dimensions: int = 1) -> Array:
        """Return an array, mapped.

        Args:
            name: Its name.
            dtype: The type that it must have; None for any type and shape.
            dimensions: The number of dimensions that it must have.

        Raises:
            ContainerError: There is no such array, or it has another type or shape.
        """
        section = self._section(name)
        if dtype is not None and (np.dtype(section.dtype) != np.dtype(dtype) or len(section.shape) != dimensions):
            raise ContainerError(f"{self.path}: the array {name!r} has an unexpected type or shape")
        flat = np.frombuffer(self._private_map, section.dtype, math.prod(section.shape), section.offset)
        return flat.reshape(section.shape)

    def get_bytes(self, name: str) -> bytes:
        """Return a copy of the bytes of an array; raises `ContainerError` for an unknown name."""
        section = self._section(name)
        return self._private_map[section.offset : section.offset + section.nbytes]

    def verify(self) -> None:
        """Compare the whole file with its checksums; raises `ContainerError` on a mismatch."""
        with memoryview(self._file_map) as content:  # a copy would stay in the process's memory
            for name, section in self._table.sections.items():
                crc, end = 0, section.offset + section.nbytes
                for start in range(section.offset, end, _VERIFY_CHUNK_BYTES):
                    crc = zlib.crc32(content[start : min(start + _VERIFY_CHUNK_BYTES, end)], crc)
                if crc != section.crc:
                    raise ContainerError(f"{self.path}: the array {name!r} does not match its checksum")

    def _section(self, name: str) -> _Section:
        try:
            return self._table.sections[name]
        except KeyError:
            raise ContainerError(f"{self.path}: the array {name!r} is missing") from None


def check_range(positions: Array, size: int) -> Array:
    """Return positions in an array, which came from a file; raise `ContainerError` if one of them is outside of it."""
    if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < size:
        raise ContainerError("the index file is damaged: a position is out of range")
    return positions


def write_container(
    path: Path, kind: str, version: int, meta: Mapping[str, Any], arrays: Mapping[str, Array | bytes]
) -> None:
    """Write a container durably, and replace ``path`` by it atomically.

    The file is written beside ``path``, flushed to disk and renamed into place. After an error nothing is left behind,
    and an earlier file at ``path`` is untouched.

    Args:
        path: The file to write.
        kind: The kind of the file, checked when it is opened.
        version: The version of the format, checked when it is opened.
        meta: Small JSON metadata, stored in the table.
        arrays: The arrays by name.

    Raises:
        OSError: Writing failed.
    """
    contiguous = {name: _to_array(array) for name, array in arrays.items()}
    table, header = _build_table(kind, version, dict(meta), contiguous)
    temporary_path = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        with os.fdopen(os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(header)
            for name, section in table.sections.items():
                file.seek(section.offset)
                file.write(contiguous[name].data if contiguous[name].size else b"")
            file.truncate(table.size)
            file.flush()
            os.fsync(file.fileno())
        temporary_path.replace(path)
    except BaseException:
        temporary_path.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _to_array(array: Array | bytes) -> Array:
    if isinstance(array, bytes):
        return np.frombuffer(array, np.uint8)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _build_table(kind: str, version: int, meta: dict[str, Any], arrays: Mapping[str, Array]) -> tuple[_Table, bytes]:
    """Return the table, and the bytes before the first array.

    The table holds the offsets of the arrays, and its own length decides where the first array begins, so the layout is
    repeated until the table fits.
    """
    crcs = {name: zlib.crc32(array.data) if array.size else 0 for name, array in arrays.items()}
    first_offset = _ALIGNMENT
    while True:
        sections, offset = {}, first_offset
        for name, array in arrays.items():
            sections[name] = _Section(array.dtype.str, array.shape, offset, crcs[name])
            offset = _align(offset + array.nbytes)
        table = _Table(kind, version, offset, meta, sections)
        encoded = msgspec.json.encode(table)
        if _HEADER.size + len(encoded) <= first_offset:
            return table, _HEADER.pack(_MAGIC, len(encoded), zlib.crc32(encoded)) + encoded
        first_offset = _align(_HEADER.size + len(encoded) + _ALIGNMENT)


def _align(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _read_table(header: bytes, read: Callable[[int], bytes], path: Path) -> tuple[_Table, int]:
    """Return the table and its checksum."""
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise ContainerError(f"{path}: not a MemoAir container file")
    _, length, crc = _HEADER.unpack(header)
    encoded = read(min(length, _MAX_TABLE_BYTES))
    if len(encoded) < length or zlib.crc32(encoded) != crc:
        raise ContainerError(f"{path}: the table of contents is damaged")
    try:
        return _table_decoder.decode(encoded), crc
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ContainerError(f"{path}: the table of contents is invalid") from None


def _check_table(table: _Table, kind: str, version: int, file_size: int, path: Path) -> None:
    if sys.byteorder != "little":
        raise ContainerError(f"{path}: container files are little-endian, and this machine is big-endian")
    if (table.kind, table.version) != (kind, version):
        actual = f"{table.kind} version {table.version}"
        raise ContainerError(f"{path}: found {actual}, expected {kind} version {version}")
    if file_size != table.size:
        raise ContainerError(f"{path}: the file has {file_size} bytes, expected {table.size}")
    for name, section in table.sections.items():
        try:
            is_in_file = 0 <= section.offset <= file_size - section.nbytes and all(
                length >= 0 for length in section.shape
            )
        except (TypeError, ValueError):  # an unknown dtype
            is_in_file = False
        if not is_in_file or section.offset % _ALIGNMENT:
            raise ContainerError(f"{path}: the array {name!r} has an invalid type, shape or offset")
