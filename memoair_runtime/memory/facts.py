"""Facts about the user in the index: each is a document of its own group, without neighbors."""

from collections.abc import Mapping

import msgspec

from memoair_index import Document
from memoair_runtime.memory.speaker_names import AGENT, CALLER
from memoair_runtime.storage.replica_file import ReplicaFact

# No id of an event or session starts like this, because those contain no control characters.
_ID_PREFIX = "\x1ffact\x1f"
# Facts about who the caller is. What they did or plan is recalled only if a question asks for it.
_LASTING_KINDS = frozenset(["identity", "preference", "relation"])


def fact_document_id(fact_id: str) -> str:
    """Return the id of a fact's document. It has the structure of the id of a turn's first document."""
    return f"{_ID_PREFIX}{fact_id}:fact:0"


def to_document(fact: ReplicaFact) -> Document:
    """Return a fact's document.

    Its speaker is the side that it is about, so that a question about the caller prefers facts about the caller.
    """
    attributes = {
        "kind": fact.kind,
        "attribute": fact.attribute,
        "subject": fact.subject,
        "value": fact.value,
        "holdsFrom": fact.holds_from,
        "holdsUntil": fact.holds_until,
    }
    return Document(
        fact_document_id(fact.id),
        fact.text,
        group=f"{_ID_PREFIX}{fact.id}",
        speaker=AGENT if fact.subject == AGENT else CALLER,
        occurred_at=fact.said_at.timestamp(),
        metadata={
            "fact": msgspec.to_builtins(fact),
            "metadata": {name: value for name, value in attributes.items() if value not in (None, "")},
        },
    )


def fact_id_of(document: Document) -> str:
    """Return the id of the fact that a document was made from."""
    return document.group.removeprefix(_ID_PREFIX)


def is_fact(document: Document) -> bool:
    """Return whether a document is a fact, and not part of a turn."""
    return "fact" in document.metadata


def to_fact(document: Document) -> ReplicaFact:
    """Return the fact that a document was made from."""
    return msgspec.convert(document.metadata["fact"], ReplicaFact)


def lasting_fact_texts(facts: Mapping[str, ReplicaFact]) -> list[str]:
    """Return the texts of the facts that say who the caller is, oldest first, without duplicates."""
    lasting = sorted((fact for fact in facts.values() if fact.kind in _LASTING_KINDS), key=lambda fact: fact.said_at)
    return list(dict.fromkeys(fact.text for fact in lasting))
