"""Pull of a project's retention: how long turns are kept on this machine, also offline, and which legal holds stand."""

import time

from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.retention import RetentionRules, read_rules, write_rules
from memoair_runtime.sync.responses import Bootstrap
from memoair_runtime.sync.transport import CALL_TIMEOUT_S, CloudTransport


class RetentionPuller:
    """Keeps the rules of a project up to date. Several processes may do so at once. For one thread.

    Args:
        folder: The project's folder.
        cloud: Identifies the cloud.
        transport: The connection to the cloud.
    """

    def __init__(self, folder: ProjectFolder, cloud: str, transport: CloudTransport) -> None:
        self._folder = folder
        self._cloud = cloud
        self._transport = transport

    def pull(self, bootstrap: Bootstrap) -> RetentionRules | None:
        """Return the rules, after asking the cloud if they have changed; None if it has none.

        Args:
            bootstrap: The version of the rules.

        Raises:
            CloudError: The request failed. The old rules may keep less than the new ones, so nothing is to be dropped.
            OSError: The rules cannot be written.
        """
        known = read_rules(self._folder)
        if bootstrap.retention_version is None:  # a cloud without retention
            return None
        is_ours = known is not None and known.cloud == self._cloud
        if is_ours and known is not None and known.version == bootstrap.retention_version:
            return known
        if not is_ours and bootstrap.retention_version == 0:
            return None  # nothing was ever set
        response = self._transport.fetch_retention(time.monotonic() + CALL_TIMEOUT_S)
        if response is None:
            return known
        rules = RetentionRules(
            self._cloud, response.version, response.turns_days, response.held, frozenset(response.held_users)
        )
        self._folder.create()
        write_rules(self._folder, rules)
        return rules
