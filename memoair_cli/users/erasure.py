"""Erase a caller from this machine, after the cloud has."""

from datetime import datetime
from typing import Any

from memoair_protocol.addresses import parse_base_url
from memoair_protocol.turn_spool import erase_user
from memoair_runtime.settings import cloud_id_of
from memoair_runtime.storage.erasure import erase_unserved_user
from memoair_runtime.storage.erasure_record import CloudErasure
from memoair_runtime.storage.user_folder import UserFolder


def erase_here(folder: UserFolder, base_url: str, erased_at: datetime) -> dict[str, Any]:
    """Erase a caller from this machine; return what was done.

    Args:
        folder: The folder of the caller.
        base_url: The URL of the cloud.
        erased_at: When the cloud erased them.

    Returns:
        ``{"status", "sessions"}``: ``removed``, ``nothing`` if there was nothing, ``served`` if a runtime serves the
        caller, which erases at its next pull, or ``failed``, to be repeated by the next process of the project.
    """
    sessions = len(folder.list_session_folders())
    if not folder.path.is_dir():
        try:  # a client may have promised turns of a caller without a folder
            had_any = erase_user(folder.root, folder.project_id, folder.user_id, before=erased_at)
        except OSError:
            return {"status": "failed", "sessions": 0}
        return {"status": "removed" if had_any else "nothing", "sessions": 0}
    cloud = cloud_id_of(parse_base_url(base_url) or base_url)
    try:
        is_erased = erase_unserved_user(folder, CloudErasure(cloud, erased_at))
    except OSError:
        return {"status": "failed", "sessions": sessions}
    return {"status": "removed" if is_erased else "served", "sessions": sessions}
