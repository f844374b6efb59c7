"""The folder of one user: paths of all files in it."""

from collections.abc import Sequence
from pathlib import Path

import attrs

from memoair_protocol.durable import make_private_folders, write_file
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.private_files import UnsafePathError, check_private_folders, is_real_folder
from memoair_runtime.storage.folder_names import ID_FILE, folder_name, is_shortened, read_identifier


@attrs.frozen
class SessionFolder:
    """The folder of one session. Every file in it except the log can be rebuilt.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def log(self) -> Path:
        """The session log: one event per line, the source of truth."""
        return self.path / "session.jsonl"

    @property
    def lock(self) -> Path:
        """The lock file that writers of the log hold."""
        return self.path / "session.lock"

    @property
    def brief(self) -> Path:
        """A short summary of the session for people, derived from the log."""
        return self.path / "working_brief.json"


ERASURE_RECORD_PREFIX = "forgotten-"
LogVersionKey = tuple[int, int]  # time of the last write in ns, size in bytes


@attrs.frozen
class UserFolder:
    """``{storage_root}/{project_id}/{user_id}/``, with a folder for each session.

    Attributes:
        root: The storage root.
        project_id: The project.
        user_id: The user.
    """

    root: Path
    project_id: str
    user_id: str

    @property
    def path(self) -> Path:
        """The user's folder."""
        return self.root / folder_name(self.project_id) / folder_name(self.user_id)

    @property
    def profile(self) -> Path:
        """The user's profile, derived from the logs."""
        return self.path / "profile.json"

    def index(self, number: int) -> Path:
        """Return the path of an index file of all turns, derived from the logs; the highest number is the newest."""
        return self.path / f"permanent-{number}.index"

    def list_indexes(self) -> list[Path]:
        """Return the index files that exist."""
        return list(self.path.glob("permanent-*.index"))

    @property
    def vectors(self) -> Path:
        """The transformer's vectors of the turns; a cache."""
        return self.path / "vectors.bin"

    @property
    def outbox(self) -> Path:
        """The cursors: how much of each log has been sent to the cloud."""
        return self.path / "outbox.json"

    @property
    def rejected_events(self) -> Path:
        """The events that the cloud has permanently rejected."""
        return self.path / "refused.jsonl"

    @property
    def recall_traces(self) -> Path:
        """The recall traces that are to be sent; see `TraceFile`."""
        return self.path / "recall_traces.jsonl"

    @property
    def cloud_replica(self) -> Path:
        """Events from other machines, and facts, as pulled from the cloud."""
        return self.path / "cloud.jsonl"

    @property
    def cloud_profile(self) -> Path:
        """The user's profile as pulled from the cloud."""
        return self.path / "cloud_profile.json"

    @property
    def pull_state(self) -> Path:
        """The versions that the cloud reported last."""
        return self.path / "cloud_state.json"

    @property
    def erasure_record(self) -> Path:
        """What remains after the user has been erased; beside the folder, whose name is the user's id."""
        return self.path.with_name(f"{ERASURE_RECORD_PREFIX}{hash_user_id(self.project_id, self.user_id)}.json")

    @property
    def lease(self) -> Path:
        """Which runtime serves this user, and its token."""
        return self.path / "lease.json"

    def lock(self, name: str) -> Path:
        """Return the path of a process lock of this user."""
        return self.path / f"{name}.lock"

    def session(self, session_id: str) -> SessionFolder:
        """Return the folder of a session, whether or not it exists."""
        return SessionFolder(self.path / folder_name(session_id))

    def create(self) -> None:
        """Create the user's folder if it is missing.

        Raises:
            OSError: The folder cannot be created.
        """
        _create_named_folders(self.root, (self.project_id, self.user_id))

    def check(self) -> None:
        """Check the folder, and all above it up to the storage root, as far as they exist.

        Raises:
            UnsafePathError: Another user of the machine could have prepared one of them.
        """
        check_existing(self.root, self.path)

    def create_session(self, session_id: str) -> SessionFolder:
        """Create a session's folder and its parents if they are missing.

        Raises:
            OSError: A folder cannot be created.
        """
        session = self.session(session_id)
        if not session.log.exists():  # the folder may exist without its id file, after a crash
            _create_named_folders(self.root, (self.project_id, self.user_id, session_id))
        return session

    def list_session_folders(self) -> list[Path]:
        """Return the folders of all sessions, whether or not they hold a log."""
        try:
            return [path for path in self.path.iterdir() if "." not in path.name and is_real_folder(path)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def list_session_logs(self) -> list[tuple[str, LogVersionKey]]:
        """Return the sessions that have a log.

        Returns:
            For each session its id, and the version key of its log, which changes with every write. Sorted by the time
            of the last write, oldest first.
        """
        found = []
        try:
            folders = list(self.path.iterdir())
        except FileNotFoundError:
            return []
        for folder in folders:
            session_id = read_identifier(folder)
            try:
                stat = SessionFolder(folder).log.lstat()
            except OSError:
                continue  # one of our files, or a folder without a log
            if session_id is not None:
                found.append((session_id, (stat.st_mtime_ns, stat.st_size)))
        return sorted(found, key=lambda session: session[1])


def check_existing(root: Path, folder: Path) -> None:
    """Raise `UnsafePathError` if another user could have prepared a folder or one above it, up to the storage root.

    A folder that cannot be opened for another reason raises no error here, but where it is used.
    """
    try:
        check_private_folders(root, folder)
    except UnsafePathError:
        raise
    except OSError:
        pass


def create_project_folder(root: Path, project_id: str) -> None:
    """Create a project's folder if it is missing.

    Args:
        root: The storage root.
        project_id: The project.

    Raises:
        OSError: The folder cannot be created.
    """
    _create_named_folders(root, (project_id,))


def _create_named_folders(root: Path, identifiers: Sequence[str]) -> None:
    """Create a folder for each identifier, each in the one before it, and check them all."""
    # A folder's name need not be durable before something in it is: the writer of a log syncs all folders above it.
    folder = root.joinpath(*map(folder_name, identifiers))
    make_private_folders(root, folder)
    for identifier in reversed(identifiers):
        if is_shortened(folder.name) and not (folder / ID_FILE).exists():
            write_file(folder / ID_FILE, identifier.encode(), durable=True)
        folder = folder.parent
