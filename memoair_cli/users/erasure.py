"""Erase a caller: in the cloud, and from this machine."""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from memoair_cli.options import fail
from memoair_protocol.addresses import parse_base_url
from memoair_protocol.cloud_replies import CloudUnreachableError
from memoair_protocol.erasure_marks import DeviceTime
from memoair_protocol.http_headers import encode_header
from memoair_protocol.private_files import UnsafePathError
from memoair_protocol.timestamps import utc_now
from memoair_protocol.turn_spool import erase_user
from memoair_runtime.settings import cloud_id_of
from memoair_runtime.storage.erasure import erase_unserved_user
from memoair_runtime.storage.erasure_record import CloudErasure
from memoair_runtime.storage.user_folder import UserFolder

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp


def erase_in_cloud(
    cloud: "CloudHttp", path: str, headers: Mapping[str, str]
) -> tuple[dict[str, Any] | None, str | None]:
    """Erase a caller in the cloud; return the receipt, or why the cloud may still have data.

    Exits if a legal hold covers the caller: nothing may be erased anywhere.
    """
    try:
        reply = cloud.request("DELETE", path, None, {name: encode_header(value) for name, value in headers.items()})
    except CloudUnreachableError as error:
        return None, f"the cloud at {cloud.address} is unreachable: {error}"
    if reply.is_ok:
        return reply.body, None
    message = f"the cloud at {cloud.address} rejected the request: {reply.error_message}"
    if (reply.error or {}).get("code") == "cloud.legal_hold":
        fail(message)
    return None, message


def erase_here(folder: UserFolder, base_url: str, erased_at: datetime | None) -> dict[str, Any]:
    """Erase a caller from this machine; return what was done.

    Args:
        folder: The folder of the caller.
        base_url: The URL of the cloud.
        erased_at: When the cloud erased them; None if it has not.

    Returns:
        ``{"status", "sessions"}``, and a ``reason`` if another user of the machine could have prepared the folder. The
        status is ``removed``, ``nothing`` if there was nothing, ``served`` if a runtime serves the caller, which erases
        at its next pull if the cloud has erased them, or ``failed``, to be repeated by the next process of the project.
    """
    sessions = len(folder.list_session_folders())
    cloud = cloud_id_of(parse_base_url(base_url) or base_url)
    try:
        if not os.path.lexists(folder.path):  # a client may have promised turns of a caller that no runtime has served
            had_any = erase_user(folder.root, folder.project_id, folder.user_id, before=erased_at)
            return {"status": "removed" if had_any else "nothing", "sessions": 0}
        in_cloud = None if erased_at is None else CloudErasure(cloud, erased_at)
        is_erased = erase_unserved_user(folder, in_cloud, utc_now(), DeviceTime.now())
    except UnsafePathError as error:
        return {"status": "failed", "sessions": sessions, "reason": str(error)}
    except OSError:
        return {"status": "failed", "sessions": sessions}
    return {"status": "removed" if is_erased else "served", "sessions": sessions}
