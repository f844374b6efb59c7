"""Whose runtime this is: the ids in a request must be those that it was started with."""

from memoair_protocol.identifiers import identifier_problem
from memoair_runtime.errors import BadRequestError, IdentityMismatchError
from memoair_runtime.requests import IdentifiedRequest
from memoair_runtime.settings import RuntimeSettings


def check_identity(request: IdentifiedRequest, settings: RuntimeSettings) -> None:
    """Check the ids that a request names.

    Raises:
        IdentityMismatchError: If one of them is not that of this runtime.
    """
    for kind, requested_id, served_id in (
        ("project", request.workspace_id, settings.project_id),
        ("project", request.project_id, settings.project_id),
        ("user", request.user_id, settings.user_id),
    ):
        if requested_id is not None and requested_id != served_id:
            raise IdentityMismatchError(f"identity mismatch: the request does not name the {kind} of this runtime")


def check_savable(settings: RuntimeSettings) -> None:
    """Check that the cloud accepts the ids of this runtime. What was saved under others can be searched and erased.

    Raises:
        BadRequestError: If it does not: nothing new is saved then.
    """
    for name, value in (("workspaceId", settings.project_id), ("userId", settings.user_id)):
        if problem := identifier_problem(value):
            raise BadRequestError(f"{name} {problem}; data can be read and erased under it, but not saved")
