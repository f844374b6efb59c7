"""Where lies on the disk what the runtimes of all callers of a project share."""

from pathlib import Path

import attrs

from memoair_runtime.storage.folder_names import folder_name, read_identifier
from memoair_runtime.storage.user_folder import UserFolder, create_project_folder

_DIGEST_CHARS = 16


@attrs.frozen
class ProjectFolder:
    """``{storage_root}/{project_id}/``, with a folder for each caller."""

    root: Path
    project_id: str

    @property
    def path(self) -> Path:
        """The project's own folder."""
        return self.root / folder_name(self.project_id)

    @property
    def org_manifest(self) -> Path:
        """Which documents of the organisation the cloud has told of, up to which version."""
        return self.path / "org.json"

    def org_base(self, sha256: str) -> Path:
        """An index file of the organisation's documents, by its content. Files of other origin are named otherwise."""
        return self.path / f"org-cloud-{sha256[:_DIGEST_CHARS]}.index"

    def list_org_bases(self) -> list[Path]:
        """All such files, and what was left of any."""
        return [*self.path.glob("org-cloud-*.index"), *self.path.glob("*org-cloud-*.part")]

    @property
    def erasures(self) -> Path:
        """Up to which version it was looked who has been forgotten."""
        return self.path / "forgotten.json"

    def lock(self, name: str) -> Path:
        """The lock of what only one process may do for this project at a time."""
        return self.path / f"{name}.lock"

    def create(self) -> None:
        """Make the folder where it is missing; raises OSError."""
        create_project_folder(self.root, self.project_id)

    def list_users(self) -> list[UserFolder]:
        """The folders of all callers."""
        try:
            folders = [path for path in self.path.iterdir() if path.is_dir()]
        except OSError:
            return []
        user_ids = [read_identifier(folder) for folder in folders]
        return [UserFolder(self.root, self.project_id, user_id) for user_id in user_ids if user_id is not None]
