"""Where one user's memory lies on the disk."""

import hashlib
import os
from pathlib import Path

import attrs

from memoair_runtime.storage.durable import make_folder, write_file
from memoair_runtime.storage.folder_names import ID_FILE, folder_name, is_shortened, read_identifier


@attrs.frozen
class SessionFolder:
    """One session's folder. Of its files, only the log can't be made anew."""

    path: Path

    @property
    def log(self) -> Path:
        """The events, one a line: the truth."""
        return self.path / "session.jsonl"

    @property
    def lock(self) -> Path:
        """Held by whoever writes to the log."""
        return self.path / "session.lock"

    @property
    def brief(self) -> Path:
        """The call in a few lines, made from the log."""
        return self.path / "working_brief.json"


LogVersionKey = tuple[int, int]  # time of the last write in ns, size in bytes


@attrs.frozen
class UserFolder:
    """``{storage_root}/{project_id}/{user_id}/``, with a folder for each session."""

    root: Path
    project_id: str
    user_id: str

    @property
    def path(self) -> Path:
        """The user's own folder."""
        return self.root / folder_name(self.project_id) / folder_name(self.user_id)

    @property
    def profile(self) -> Path:
        """Who the caller is, made from the logs."""
        return self.path / "profile.json"

    def index(self, number: int) -> Path:
        """An index file of all that was said, made from the logs; the one with the highest number counts."""
        return self.path / f"permanent-{number}.index"

    def list_indexes(self) -> list[Path]:
        """The index files there are."""
        return list(self.path.glob("permanent-*.index"))

    @property
    def vectors(self) -> Path:
        """What a transformer made of what was said; a cache."""
        return self.path / "vectors.bin"

    @property
    def outbox(self) -> Path:
        """How far each log has been sent to the cloud."""
        return self.path / "outbox.json"

    @property
    def rejected_events(self) -> Path:
        """The events that the cloud will never take."""
        return self.path / "refused.jsonl"

    @property
    def cloud_replica(self) -> Path:
        """What the cloud told of this user: events of other machines, and facts."""
        return self.path / "cloud.jsonl"

    @property
    def cloud_profile(self) -> Path:
        """Who the user is, as the cloud told."""
        return self.path / "cloud_profile.json"

    @property
    def pull_state(self) -> Path:
        """Which versions the cloud told last."""
        return self.path / "cloud_state.json"

    @property
    def lease(self) -> Path:
        """Where the runtime that serves this user listens, and by which token."""
        return self.path / "lease.json"

    def lock(self, name: str) -> Path:
        """The lock of what only one process may do for this user at a time."""
        return self.path / f"{name}.lock"

    def session(self, session_id: str) -> SessionFolder:
        """The folder of a session, whether or not it exists."""
        return SessionFolder(self.path / folder_name(session_id))

    def create(self) -> None:
        """Make the user's folder where it is missing."""
        create_project_folder(self.root, self.project_id)
        _create_named_folder(self.path, self.user_id)

    def create_session(self, session_id: str) -> SessionFolder:
        """Make a session's folder, and those above it, where they are missing."""
        session = self.session(session_id)
        if not session.log.exists():  # the folder alone proves nothing: a crash may have come before its id file
            self.create()
            _create_named_folder(session.path, session_id)
        return session

    def list_session_folders(self) -> list[Path]:
        """The folders of all sessions, whatever is in them."""
        try:
            return [path for path in self.path.iterdir() if path.is_dir() and "." not in path.name]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def list_session_logs(self) -> list[tuple[str, LogVersionKey]]:
        """The sessions that have a log, with what tells whether it was written since; the last written at the end."""
        found = []
        try:
            folders = list(self.path.iterdir())
        except FileNotFoundError:
            return []
        for folder in folders:
            session_id = read_identifier(folder)
            try:
                stat = SessionFolder(folder).log.stat()
            except OSError:
                continue  # a file of ours, or a folder that holds no log yet
            if session_id is not None:
                found.append((session_id, (stat.st_mtime_ns, stat.st_size)))
        return sorted(found, key=lambda each: each[1])


def org_index_path(root: Path, project_id: str, org_file: Path) -> Path:
    """Where the index of a file of documents is kept, for all callers of the project."""
    digest = hashlib.sha256(os.fsencode(org_file.absolute())).hexdigest()[:16]
    return root / folder_name(project_id) / f"org-{digest}.index"


def create_project_folder(root: Path, project_id: str) -> None:
    """Make the project's folder where it is missing; raises OSError."""
    _create_named_folder(root / folder_name(project_id), project_id)


def _create_named_folder(folder: Path, identifier: str) -> None:
    make_folder(folder.parent)
    # Its name need not be on the disk before something in it is, and whoever writes that sees to it.
    folder.mkdir(mode=0o700, exist_ok=True)
    if is_shortened(folder.name) and not (folder / ID_FILE).exists():
        write_file(folder / ID_FILE, identifier.encode(), durable=True)
