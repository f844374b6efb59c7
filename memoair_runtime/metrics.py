"""Metrics for the operator: requests, search time, missed lanes, saved turns, sync. They have no ids and no texts."""

from collections.abc import Callable

import prometheus_client as prometheus

from memoair_protocol.enums import LaneName
from memoair_runtime.storage.backlog_status import BacklogStatus

_SEARCH_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class RuntimeMetrics:
    """The metrics of one process. Thread-safe."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter(
            "memoair_runtime_requests", "Requests answered", ["endpoint", "status"], registry=self._registry
        )
        self.search_seconds = prometheus.Histogram(
            "memoair_runtime_search_seconds",
            "Time from a parsed search request to its reply",
            buckets=_SEARCH_BUCKETS_S,
            registry=self._registry,
        )
        self.lanes_missed = prometheus.Counter(
            "memoair_runtime_lanes_missed", "Lanes without an answer", ["lane", "status"], registry=self._registry
        )
        self.turns_kept = prometheus.Counter(
            "memoair_runtime_turns_kept", "Turns saved, or known to be saved already", registry=self._registry
        )
        self.turns_refused = prometheus.Counter(
            "memoair_runtime_turns_refused", "Turns not saved because of a storage error", registry=self._registry
        )
        self.turns_forgotten = prometheus.Counter(
            "memoair_runtime_turns_forgotten",
            "Turns not saved because they are from before an erasure of their user",
            registry=self._registry,
        )
        self.events_pushed = prometheus.Counter(
            "memoair_runtime_events_pushed", "Events that the cloud accepted or already had", registry=self._registry
        )
        self.events_refused = prometheus.Counter(
            "memoair_runtime_events_refused", "Events that the cloud rejected permanently", registry=self._registry
        )
        self.events_forgotten = prometheus.Counter(
            "memoair_runtime_events_forgotten",
            "Events that the cloud rejected because they are, or may be, from before an erasure of their user",
            registry=self._registry,
        )
        self.traces_dropped = prometheus.Counter(
            "memoair_runtime_recall_traces_dropped",
            "Recall traces that were not kept: too many at once, or refused",
            registry=self._registry,
        )
        self.push_failures = prometheus.Counter(
            "memoair_runtime_push_failures", "Failed pushes to the cloud", registry=self._registry
        )
        self.pull_failures = prometheus.Counter(
            "memoair_runtime_pull_failures", "Failed pulls from the cloud", registry=self._registry
        )
        self.events_unsynced = prometheus.Gauge(
            "memoair_runtime_events_unsynced", "Events that are not in the cloud yet", registry=self._registry
        )
        self.backlog_turns = prometheus.Gauge(
            "memoair_runtime_backlog_turns",
            "Turns of all users of the project on this machine that are not in the cloud yet",
            registry=self._registry,
        )
        self.backlog_users = prometheus.Gauge(
            "memoair_runtime_backlog_users", "Users of the project with unsent turns", registry=self._registry
        )
        self.backlog_oldest_seconds = prometheus.Gauge(
            "memoair_runtime_backlog_oldest_seconds", "Age of the oldest unsent event", registry=self._registry
        )
        self.backlog_refused = prometheus.Gauge(
            "memoair_runtime_backlog_refused",
            "Events of all users of the project that the cloud rejected permanently",
            registry=self._registry,
        )
        for lane in LaneName:  # a series that exists from the start can be watched before it first counts
            self.lanes_missed.labels(lane.value, "late")

    def show_backlog(self, read: Callable[[], BacklogStatus]) -> None:
        """Show the backlog of the project.

        Args:
            read: Returns its status.
        """
        self.backlog_turns.set_function(lambda: read().turns)
        self.backlog_users.set_function(lambda: read().users)
        self.backlog_oldest_seconds.set_function(lambda: read().oldest_s)
        self.backlog_refused.set_function(lambda: read().refused)

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return prometheus.generate_latest(self._registry)
