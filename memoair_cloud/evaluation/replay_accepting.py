"""Accept changes of a replay as cases of a suite: what the candidate recalls is then what must be recalled."""

import hashlib
from collections.abc import Collection, Sequence

import attrs

from memoair_cloud.errors import ApiError, BatchTooLargeError, ConflictError, InvalidRequestError, NotFoundError
from memoair_cloud.evaluation.case_copying import CaseDraft, copy_case_from_turn
from memoair_cloud.evaluation.cases import get_case
from memoair_cloud.evaluation.replay_changes import ReplayChange, get_change
from memoair_cloud.evaluation.suites import get_suite
from memoair_cloud.tenancy.access import Tenant
from memoair_evaluation.replay import to_expectation

# Each one is a transaction that locks its caller.
MAX_ACCEPTED = 100


@attrs.frozen
class Acceptance:
    """What became of a change that was to be accepted.

    Attributes:
        case_id: The id of the change in the run.
        suite_case_id: The id of the case; None without one.
        is_repeated: Whether the suite had this case already.
        reason: Why there is no case.
    """

    case_id: str
    suite_case_id: str | None = None
    is_repeated: bool = False
    reason: str | None = None


def accept_changes(
    tenant: Tenant,
    run_id: str,
    suite_id: str,
    case_ids: Sequence[str],
    *,
    kinds: Collection[str] = ("document",),
    keeps_text: bool = False,
) -> list[Acceptance]:
    """Copy questions of a replay to a suite as cases, redacted. Repeating it adds nothing.

    Args:
        tenant: The agent.
        run_id: The replay.
        suite_id: The suite.
        case_ids: The changes.
        kinds: What must be recalled: of what only the candidate recalls, the items of these kinds (``document``,
            ``fact``, ``turn``). Facts may have been learned after the question was asked; then the case does not have
            them.
        keeps_text: Whether the cases stay when their callers are erased.

    Returns:
        What became of each. A change that cannot be copied does not affect the others.

    Raises:
        NotFoundError: If the agent has no such replay or suite.
        ConflictError: If the run is not a replay.
        BatchTooLargeError: If there are too many changes.
    """
    if len(case_ids) > MAX_ACCEPTED:
        raise BatchTooLargeError(f"at most {MAX_ACCEPTED} changes can be accepted at once", limit=MAX_ACCEPTED)
    get_suite(tenant, suite_id)
    changes: dict[str, ReplayChange | None] = {case_id: _find_change(tenant, run_id, case_id) for case_id in case_ids}
    return [
        Acceptance(case_id, reason="unknown change: its caller may be erased")
        if change is None
        else _accept(tenant, run_id, suite_id, change, kinds, keeps_text=keeps_text)
        for case_id, change in changes.items()
    ]


def _find_change(tenant: Tenant, run_id: str, case_id: str) -> ReplayChange | None:
    try:
        return get_change(tenant, run_id, case_id)
    except NotFoundError as error:
        if error.details.get("resource") == "change":
            return None
        raise


def _accept(
    tenant: Tenant, run_id: str, suite_id: str, change: ReplayChange, kinds: Collection[str], *, keeps_text: bool
) -> Acceptance:
    new_id = _make_case_id(run_id, change.case_id)
    draft = CaseDraft(
        user_id=change.user_id,
        session_id=change.session_id,
        event_id=change.event_id,
        case_id=new_id,
        must=[to_expectation(item) for item in change.appeared if item["kind"] in kinds],
        tags=["replay"],
        keeps_text=keeps_text,
    )
    try:
        copy_case_from_turn(tenant, suite_id, draft)
    except ConflictError as error:
        if _has_case(tenant, suite_id, new_id):
            return Acceptance(change.case_id, new_id, is_repeated=True)
        return Acceptance(change.case_id, reason=error.message)
    except (NotFoundError, InvalidRequestError) as error:  # the turn was dropped since, for example
        return Acceptance(change.case_id, reason=error.message)
    return Acceptance(change.case_id, new_id)


def _has_case(tenant: Tenant, suite_id: str, case_id: str) -> bool:
    try:
        get_case(tenant, suite_id, case_id)
    except ApiError:
        return False
    return True


def _make_case_id(run_id: str, case_id: str) -> str:
    """Return the id of the case of a change: the same one each time, so that accepting it twice adds one case."""
    return f"replay-{hashlib.sha256(f'{run_id} {case_id}'.encode()).hexdigest()[:16]}"
