"""The folder of one project: what the runtimes of all of its users share."""

import hashlib
import os
from pathlib import Path

import attrs

from memoair_protocol.private_files import is_real_folder
from memoair_protocol.starvation import raise_if_starved
from memoair_runtime.storage.folder_names import folder_name, read_identifier
from memoair_runtime.storage.user_folder import UserFolder, check_existing, create_project_folder

_DIGEST_CHARS = 16


@attrs.frozen
class ProjectFolder:
    """``{storage_root}/{project_id}/``, with a folder for each user.

    Attributes:
        root: The storage root.
        project_id: The project.
    """

    root: Path
    project_id: str

    @property
    def path(self) -> Path:
        """The project's folder."""
        return self.root / folder_name(self.project_id)

    @property
    def org_manifest(self) -> Path:
        """The file with the project's documents as pulled from the cloud, and their version."""
        return self.path / "org.json"

    def org_file_index(self, org_file: Path) -> Path:
        """Return the path of the index of a local file of documents, which all users of the project share."""
        digest = hashlib.sha256(os.fsencode(org_file.absolute())).hexdigest()
        return self.path / f"org-{digest[:_DIGEST_CHARS]}.index"

    def org_base(self, sha256: str) -> Path:
        """Return the path of an index file of documents from the cloud, which is named by its content."""
        return self.path / f"org-cloud-{sha256[:_DIGEST_CHARS]}.index"

    def list_org_bases(self) -> list[Path]:
        """Return all index files of documents from the cloud, and temporary files left by crashes."""
        return [*self.path.glob("org-cloud-*.index"), *self.path.glob("*org-cloud-*.part")]

    @property
    def org_vectors(self) -> Path:
        """The file with the transformer's vectors of the project's documents."""
        return self.path / "org-vectors.bin"

    @property
    def erasures(self) -> Path:
        """The file that holds which erasures have been pulled from the cloud."""
        return self.path / "forgotten.json"

    @property
    def retention(self) -> Path:
        """The file that holds how long the project keeps turns."""
        return self.path / "retention.json"

    def backlog_status(self, cloud: str) -> Path:
        """Return the path of the status of what waits to be sent to a cloud."""
        return self.path / f"backlog-{cloud}.json"

    def backlog_lock(self, cloud: str) -> Path:
        """Return the path of the lock of the process that sends to a cloud what waits."""
        return self.lock(f"backlog-{cloud}")

    def lock(self, name: str) -> Path:
        """Return the path of a process lock of this project."""
        return self.path / f"{name}.lock"

    def create(self) -> None:
        """Create the folder if it is missing.

        Raises:
            OSError: The folder cannot be created.
        """
        create_project_folder(self.root, self.project_id)

    def check(self) -> None:
        """Check the folder and the storage root, as far as they exist.

        Raises:
            UnsafePathError: Another user of the machine could have prepared one of them.
        """
        check_existing(self.root, self.path)

    def list_users(self) -> list[UserFolder]:
        """Return the folders of all users. Empty if the project's folder cannot be read.

        Raises:
            OSError: It cannot be opened for want of descriptors or memory: that there are users must not be overlooked.
        """
        try:
            folders = [path for path in self.path.iterdir() if is_real_folder(path)]
        except OSError as error:
            raise_if_starved(error)
            return []
        user_ids = [read_identifier(folder) for folder in folders]
        return [UserFolder(self.root, self.project_id, user_id) for user_id in user_ids if user_id is not None]
