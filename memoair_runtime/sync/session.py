"""The exchange with the cloud: what takes part in it, and all steps of a pull in their order."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet

import attrs

from memoair_protocol.enums import LaneName
from memoair_runtime.sync.pull_attempts import PullAttempts
from memoair_runtime.sync.pull_erasures import ErasurePuller
from memoair_runtime.sync.pull_retention import RetentionPuller
from memoair_runtime.sync.pull_user import UserPuller
from memoair_runtime.sync.push import Pusher
from memoair_runtime.sync.push_traces import TracePusher
from memoair_runtime.sync.responses import Bootstrap
from memoair_runtime.sync.transport import CloudTransport


@attrs.frozen
class SyncSession:
    """The exchange of one runtime with its cloud. For one thread, except ``transport.abort`` and ``user.sync_token``.

    Attributes:
        transport: The connection.
        user: Pulls the user's data.
        pull_org: Pulls the project's documents up to the versions of the cloud. It is given how long to wait for
            another process that is pulling, and returns False if that was not long enough. None if the documents come
            from a file.
        erasures: Erases other users that the cloud has erased.
        retention: Pulls how long turns are kept.
        pusher: Pushes the user's events.
        traces: Pushes the user's recall traces.
        attempts: Runs each of the pulls.
        is_durable: Whether anything is stored of the user.
    """

    transport: CloudTransport
    user: UserPuller
    pull_org: Callable[[Bootstrap, float], bool] | None
    erasures: ErasurePuller
    retention: RetentionPuller
    pusher: Pusher
    traces: TracePusher
    attempts: PullAttempts
    is_durable: bool

    def scan(self, *, all_sessions: bool) -> None:
        """Count the unsent events on the disk; see `Pusher.scan`."""
        if self.is_durable:
            self.pusher.scan(all_sessions=all_sessions)

    def authorize(self, deadline: float, on_authorized: Callable[[], None]) -> bool:
        """Ask the cloud whether it accepts the key, and pull nothing.

        If the cloud has erased the user since the last pull, what was said before is not to be sent.

        Args:
            deadline: When to give up, in monotonic seconds.
            on_authorized: Called once the cloud has accepted the key.

        Raises:
            CloudError: The request failed.
            StorageUnavailableError: The user could not be erased.
            OSError: A file cannot be written.
        """
        with self.transport.unabortable():
            bootstrap = self.user.fetch_bootstrap(deadline)
        on_authorized()
        if self.is_durable:
            self.user.erase_if_due(bootstrap)
        self.scan(all_sessions=True)
        return True

    def pull(self, scopes: AbstractSet[LaneName], lock_deadline: float, on_authorized: Callable[[], None]) -> bool:
        """Pull what has changed.

        Args:
            scopes: The lanes to pull.
            lock_deadline: How long to wait for another process that is pulling, in monotonic seconds.
            on_authorized: Called once the cloud has accepted the key.

        Returns:
            False if another process is pulling one of the scopes and did not finish in time, or if the cloud rejected
            one of the pulls: the others were made all the same.

        Raises:
            CloudError: A request failed.
            StorageUnavailableError: The user could not be erased.
            OSError: A file cannot be written.
        """
        bootstrap = self.user.fetch_bootstrap()
        on_authorized()
        self.pusher.has_seen_erasure = False
        if self.erasures.is_epoch_new(bootstrap):
            self.erasures.pull(bootstrap)  # before anything of an erased user is pulled from the backup
        has_rules = self.attempts.run("retention", lambda: self._pull_rules(bootstrap))
        is_complete = not self.is_durable or self.user.pull(bootstrap, scopes, lock_deadline)
        pull_org = self.pull_org
        if LaneName.ORG in scopes and pull_org is not None:
            is_complete &= self.attempts.run(LaneName.ORG.value, lambda: pull_org(bootstrap, lock_deadline))
        is_complete &= self.attempts.run("erasures", lambda: self._pull_erasures(bootstrap))
        if self.is_durable:
            if has_rules:  # else the old ones may keep less
                self.user.drop_old_turns()
            self.user.finish_pull()
        return is_complete

    def _pull_rules(self, bootstrap: Bootstrap) -> bool:
        self.user.set_rules(self.retention.pull(bootstrap))
        return True

    def _pull_erasures(self, bootstrap: Bootstrap) -> bool:
        self.erasures.pull(bootstrap)
        return True
