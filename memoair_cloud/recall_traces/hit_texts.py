"""The texts of recalled hits, of which traces keep only ids: as they are today, and none of what was erased since."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import select, tuple_

from memoair_cloud.database.models import CallEvent, Memory, OrgDocument
from memoair_cloud.memories.states import RETAINED_STATES
from memoair_cloud.tenancy.access import Tenant
from memoair_protocol.enums import EventType
from memoair_protocol.interruption import truncate_to_heard

# SQLite allows 32,766 variables in a statement.
_MAX_IDS_PER_STATEMENT = 5_000


@attrs.frozen
class HitText:
    """The text of a hit, and where it comes from.

    Attributes:
        kind: ``turn``, ``fact`` or ``document``.
        text: The text; for a turn, both sides on a line each.
        session_id: The session of a turn or fact.
        event_id: The event of a turn, or the one that a fact was learned from.
        said_at: When it was said.
    """

    kind: str
    text: str
    session_id: str | None = None
    event_id: str | None = None
    said_at: datetime | None = None


def load_hit_texts(
    tenant: Tenant, user_id: str | None, hits: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, str], HitText]:
    """Return the texts of hits by kind and id, as far as they are still stored.

    Args:
        tenant: The project.
        user_id: The user whose turns and facts were found; None if there was none.
        hits: The hits as traces keep them: with ``id``, ``kind``, and for documents ``indexName`` and ``documentId``.
    """
    ids: dict[str, set[str]] = {"turn": set(), "fact": set()}
    documents: dict[tuple[str, str], str] = {}
    for hit in hits:
        kind, hit_id = hit.get("kind"), str(hit.get("id"))
        if kind in ids:
            ids[kind].add(hit_id)
        elif hit.get("indexName") and hit.get("documentId"):
            documents[str(hit["indexName"]), str(hit["documentId"])] = hit_id
    texts: dict[tuple[str, str], HitText] = {}
    with tenant.begin_read() as session:
        for event_ids in _split(ids["turn"]):
            events = select(CallEvent).where(CallEvent.user_id == user_id, CallEvent.id.in_(event_ids))
            for event in session.scalars(events.where(CallEvent.type == EventType.TURN.value)):
                texts["turn", event.id] = _turn_text(event)
        for memory_ids in _split(ids["fact"]):
            memories = select(Memory).where(
                Memory.user_id == user_id, Memory.id.in_(memory_ids), Memory.state.in_(RETAINED_STATES)
            )
            for row in session.scalars(memories):
                texts["fact", row.id] = HitText("fact", row.text, row.session_id, row.event_id, row.said_at)
        for keys in _split(documents):
            key = tuple_(OrgDocument.index_name, OrgDocument.id)
            for document in session.scalars(select(OrgDocument).where(key.in_(keys), OrgDocument.deleted_at.is_(None))):
                hit_id = documents[document.index_name, document.id]
                texts["document", hit_id] = HitText("document", document.text)
    return texts


def _turn_text(event: CallEvent) -> HitText:
    payload = truncate_to_heard(event.payload)
    sides = ("Caller", payload.get("userText")), ("Agent", payload.get("assistantText"))
    text = "\n".join(f"{side}: {said}" for side, said in sides if said)
    return HitText("turn", text, event.session_id, event.id, event.occurred_at)


def _split(values: Iterable[Any]) -> list[list[Any]]:
    items = list(values)
    return [items[start : start + _MAX_IDS_PER_STATEMENT] for start in range(0, len(items), _MAX_IDS_PER_STATEMENT)]
