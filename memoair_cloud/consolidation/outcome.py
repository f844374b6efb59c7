"""One consolidation: all turns of one session in, what is known of the caller afterwards out."""

from collections.abc import Collection, Iterable, Sequence

import attrs

from memoair_cloud.consolidation.merging import replaced
from memoair_cloud.consolidation.records import Extractor, Fact, Profile, Turn
from memoair_cloud.consolidation.summary import summarise


@attrs.frozen
class Outcome:
    """All facts of the caller, history among them, the profile, and which extractor found what was new."""

    facts: tuple[Fact, ...]
    profile: Profile
    extractor: str
    failure: str | None  # why it was not the extractor that was asked


def consolidated(
    known: Iterable[Fact],
    turns: Sequence[Turn],
    extractor: Extractor,
    *,
    profile: Profile | None = None,
    deleted: Collection[str] = (),
) -> Outcome:
    """What is known after a session, of which ``turns`` are all that have arrived so far.

    Doing it once more changes nothing. ``deleted`` are ids of facts that somebody has deleted: they do not come back.
    """
    extraction = extractor.extract(turns)
    sessions = {turn.session_id for turn in turns}
    kept = (fact for fact in extraction.facts if fact.id not in deleted)
    facts = replaced((fact for fact in known if fact.id not in deleted), sessions, kept)
    return Outcome(facts, summarise(facts, profile), extraction.extractor, extraction.failure)
