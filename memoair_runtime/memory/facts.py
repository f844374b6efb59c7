"""A fact about the caller, and how it lies in the index: a document without neighbours."""

from collections.abc import Mapping

import msgspec

from memoair_index import Document
from memoair_runtime.memory.speaker_names import AGENT, CALLER
from memoair_runtime.storage.replica_file import ReplicaFact

# No id of an event or a session begins so: they have no control characters.
_ID_PREFIX = "\x1ffact\x1f"
# Who the caller is; what he did and plans is found when it is asked for.
_LASTING_KINDS = frozenset(["identity", "preference", "relation"])


def fact_document_id(fact_id: str) -> str:
    """The id of a fact's document, made so that it reads as the first part of a turn's."""
    return f"{_ID_PREFIX}{fact_id}:fact:0"


def to_document(fact: ReplicaFact) -> Document:
    """A fact's document, which is a group of its own. Questions about the caller are questions about his facts."""
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


def is_fact(document: Document) -> bool:
    """Whether a document is a fact, and not a part of a turn."""
    return "fact" in document.metadata


def to_fact(document: Document) -> ReplicaFact:
    """The fact that a document is of."""
    return msgspec.convert(document.metadata["fact"], ReplicaFact)


def lasting_fact_texts(facts: Mapping[str, ReplicaFact]) -> list[str]:
    """What facts say of who the caller is, the oldest first, each once."""
    lasting = sorted((fact for fact in facts.values() if fact.kind in _LASTING_KINDS), key=lambda fact: fact.said_at)
    return list(dict.fromkeys(fact.text for fact in lasting))
