"""Guards of what must survive a crash, limits, and files."""

from guards.guard import Guard

CRASH_LOGS = ("tests/crash/test_session_logs.py",)
CRASH_USER = ("tests/crash/test_user_files.py",)
CRASH_STORES = ("tests/crash/test_stores.py",)
RUNTIME = "memoair_runtime"
CLOUD = "memoair_cloud"
STORE = "memoair_runtime_store"

DURABILITY = (
    Guard(
        "a turn is synced before it is acknowledged",
        f"{RUNTIME}/storage/session_log.py",
        "os.strerror(errno.ENOSPC))\n            sync_data(fd)",
        "os.strerror(errno.ENOSPC))",
        CRASH_LOGS,
    ),
    Guard(
        "another's turn is synced before its repetition is acknowledged",
        f"{RUNTIME}/storage/session_log.py",
        "                    sync_data(fd)\n                    self._synced_offset",
        "                    self._synced_offset",
        CRASH_LOGS,
    ),
    Guard(
        "the folders of a log are synced",
        f"{RUNTIME}/storage/session_log.py",
        "            self._sync_folders()\n",
        "",
        CRASH_LOGS,
    ),
    Guard(
        "a torn line is cut off",
        f"{RUNTIME}/storage/session_log.py",
        "                    self._truncate_torn_line(fd)",
        "                    pass",
        CRASH_LOGS,
    ),
    Guard(
        "a durable file is synced",
        "memoair_protocol/durable.py",
        "                    file.flush()\n                    os.fsync(file.fileno())",
        "                    pass",
        (*CRASH_LOGS, *CRASH_USER),
    ),
    Guard(
        "the name of a durable file is synced",
        "memoair_protocol/durable.py",
        "        if durable:\n            sync_folder(path.parent)",
        "        pass",
        (*CRASH_LOGS, *CRASH_USER),
    ),
    Guard(
        "a position is not ahead of its log",
        f"{RUNTIME}/sync/outbox.py",
        "                    self._sync_log(session_id)",
        "                    pass",
        CRASH_USER,
    ),
    Guard(
        "an erased session is renamed before it is deleted",
        f"{RUNTIME}/storage/erasure.py",
        '[path.rename(path.with_name(f"{DELETED_PREFIX}{uuid.uuid4().hex}")) for path in erased]',
        "erased",
        ("tests/runtime/test_erased_turns.py",),
    ),
    Guard(
        "an erasure is durable",
        f"{RUNTIME}/storage/erasure.py",
        "        sync_folder(folder.path)  # a power failure must not bring them back",
        "        pass",
        CRASH_USER,
    ),
    Guard(
        "an erasure is recorded",
        f"{RUNTIME}/storage/erasure.py",
        "    record_erasure(folder, erased_at, events, in_cloud, clock)  # before the first of them is gone\n",
        "",
        ("tests/runtime/test_erased_turns.py",),
    ),
    Guard(
        "the record of an erasure is durable",
        f"{RUNTIME}/storage/erasure_record.py",
        "msgspec.json.encode(record), durable=True)",
        "msgspec.json.encode(record), durable=False)",
        CRASH_USER,
    ),
    Guard(
        "an index file is synced",
        "memoair_index/container.py",
        "            os.fsync(file.fileno())\n        temporary_path.replace(path)",
        "        temporary_path.replace(path)",
        CRASH_STORES,
    ),
    Guard(
        "a downloaded index file is synced",
        f"{RUNTIME}/org/pull.py",
        "            sync_file(temporary)",
        "            pass",
        CRASH_STORES,
    ),
    Guard(
        "a blob is synced",
        f"{CLOUD}/indexes/blob_folder.py",
        "            sync_data(fd)",
        "            pass",
        CRASH_STORES,
    ),
    Guard(
        "the name of a blob is synced",
        f"{CLOUD}/indexes/blobs.py",
        "        self._sync_name(self._path(sha256))",
        "        pass",
        CRASH_STORES,
    ),
    Guard(
        "an unpacked program is synced",
        f"{STORE}/archive.py",
        "            out.flush()\n            os.fsync(out.fileno())",
        "            out.flush()",
        CRASH_STORES,
    ),
    Guard(
        "the names of unpacked files are synced",
        f"{STORE}/archive.py",
        "                os.fsync(descriptor)",
        "                pass",
        CRASH_STORES,
    ),
    Guard(
        "a damaged manifest of documents is pulled again",
        f"{RUNTIME}/storage/state_file.py",
        "    except (ValueError, RecursionError) as error:",
        "    except RecursionError as error:",
        (*CRASH_STORES, "tests/crash/test_runtimes.py"),
    ),
    Guard(
        "a page of the cloud's copy has its checksum",
        f"{RUNTIME}/storage/replica_file.py",
        "            if zlib.crc32(content[begin:at]) != line.crc:",
        "            if False:",
        ("tests/runtime/test_sync_files.py", "-k", "replica or page"),
    ),
    Guard(
        "SQLite waits for the disk",
        f"{CLOUD}/database/engine.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=NORMAL",
        ("tests/cloud/test_database.py",),
    ),
    Guard(
        "the queue waits for the disk",
        f"{CLOUD}/queue.py",
        "fsync=True",
        "fsync=False",
        ("tests/cloud/test_database.py",),
    ),
    Guard(
        "deleted rows are overwritten",
        f"{CLOUD}/database/engine.py",
        "PRAGMA secure_delete=ON",
        "PRAGMA secure_delete=OFF",
        ("tests/cloud/test_database.py",),
    ),
)

LIMITS = (
    Guard(
        "a compressed body is limited while it is expanded",
        f"{CLOUD}/http/body_parsing.py",
        "decompressor.decompress(block, self.max_bytes + 1 - len(content))",
        "decompressor.decompress(block)",
        ("tests/cloud/test_bodies.py",),
    ),
    Guard(
        "a compressed archive is limited while it is expanded",
        f"{STORE}/archive.py",
        "                self._check_size(total)\n",
        "",
        ("tests/voice_sync/test_runtime_archive.py", "-k", "bomb"),
    ),
    Guard(
        "the body of a runtime's request is limited",
        f"{RUNTIME}/http/server.py",
        "        if length > MAX_RUNTIME_BODY_BYTES:",
        "        if False:",
        ("tests/runtime/test_http_bad_input.py", "-k", "megabyte or 413"),
    ),
    Guard(
        "the reply of a cloud is limited",
        "memoair_protocol/cloud_http.py",
        "        if len(content) > MAX_REPLY_BYTES:",
        "        if False:",
        ("tests/protocol/test_cloud_http.py", "-k", "too_long"),
    ),
    Guard(
        "the requests of a key are limited",
        f"{CLOUD}/http/dependencies.py",
        "    services.rate_limit.acquire(credentials.key_id)\n",
        "",
        ("tests/cloud/test_http.py", "-k", "rate_limit"),
    ),
)

FILES = (
    Guard(
        "a path in an archive stays in its folder",
        f"{STORE}/archive.py",
        '        or ".." in steps\n',
        "",
        ("tests/voice_sync/test_runtime_archive.py", "-k", "unsafe_path"),
    ),
    Guard(
        "a link in an archive stays in its folder",
        f"{STORE}/archive.py",
        " or parent_steps > len(path.parts) - 1:",
        ":",
        ("tests/voice_sync/test_runtime_archive.py", "-k", "unsafe_link or outside"),
    ),
    Guard(
        "a runtime has the expected digest",
        f"{STORE}/pull.py",
        "    if found != expected:",
        "    if False:",
        ("tests/voice_sync/test_runtime_pulls.py", "-k", "checksum or digest"),
    ),
    Guard(
        "a cached runtime is not of another user",
        f"{STORE}/cache.py",
        "    if info.st_uid not in (0, os.geteuid()):",
        "    if False:",
        ("tests/voice_sync/test_runtime_pulls.py", "-k", "another_user"),
    ),
    Guard(
        "a cached runtime cannot be written by others",
        f"{STORE}/cache.py",
        "    if info.st_mode & _WRITABLE_BY_OTHERS:",
        "    if False:",
        ("tests/voice_sync/test_runtime_pulls.py", "-k", "other_users"),
    ),
)
