"""Calls that a platform reports after their end, with the whole transcript: what of them is kept, under which ids."""

from collections.abc import Mapping
from typing import Any

from bridge.bodies import require_call_id
from bridge.call_store import CallStore
from bridge.callers import make_caller_id
from bridge.memory import BridgeMemory
from bridge.outcomes import Outcome, count_invalid_field, record
from bridge.settings import BridgeSettings
from bridge.turns import MACHINE_TEXT, CallTurn, Utterance, group_turns
from memoair_transcripts import NoTranscriptError, parse_call


class ReportedCalls:
    """Keeps the calls that platforms report. Each call is kept, or leaves a log line and a counter.

    Args:
        settings: The settings.
        memory: Where calls are kept.
        store: What is known of calls in progress.
    """

    def __init__(self, settings: BridgeSettings, memory: BridgeMemory, store: CallStore) -> None:
        self._settings = settings
        self._memory = memory
        self._store = store

    def keep(self, platform: str, payload: Mapping[str, Any], *, timeout_s: float) -> Outcome:
        """Keep a call, each turn once, however often and in which order its reports arrive.

        Turns that were kept during the call have the same ids. Replies 400 if the id of the call is invalid.

        Returns:
            What became of it; ``UNAVAILABLE`` if the platform should send it again.
        """
        try:
            call = parse_call(platform, payload, on_invalid=lambda _path: count_invalid_field(platform))
        except NoTranscriptError as error:
            record(platform, Outcome.NO_WORDS, call_id=error.session_id or "")
            return Outcome.NO_WORDS
        call_id = require_call_id(call.session_id)
        name = f"{platform}:{call_id}"
        known = self._store.mark_call(name, is_machine=call.is_answered_by_machine)
        # An earlier request of this call may have identified the caller where this one does not.
        caller = known.caller or make_caller_id(self._settings.caller_salt, call.user_id)
        utterances = []
        for utterance in call.utterances:
            if utterance.error is not None:
                count_invalid_field(platform)
            elif utterance.side is not None:
                utterances.append(Utterance(utterance.side, utterance.text, utterance.occurred_at))
        turns = group_turns(call_id, utterances, is_answered_by_machine=known.is_machine)
        if known.is_machine:
            turns = self._take_back(name, turns)
        outcome = self._save(platform, name, caller, call_id, turns, timeout_s)
        if outcome is Outcome.KEPT and known.is_machine:
            outcome = Outcome.MACHINE
        record(platform, outcome, call_id=call_id, turns=len(turns))
        return outcome

    def _save(
        self, platform: str, name: str, caller: str | None, call_id: str, turns: list[CallTurn], timeout_s: float
    ) -> Outcome:
        if not turns:
            return Outcome.NO_WORDS
        if caller is None:
            return Outcome.NO_CALLER
        outcome = self._memory.save_report(caller, platform, call_id, turns, timeout_s=timeout_s)
        if outcome is Outcome.KEPT:
            self._store.mark_call(name, caller=caller)
            self._store.mark_saved(name, [(turn.number, turn.assistant_text) for turn in turns])
        return outcome

    def _take_back(self, name: str, turns: list[CallTurn]) -> list[CallTurn]:
        """Return the turns of an answering machine, with a correction of those that were kept as the caller's."""
        kept = self._store.list_saved(name)
        corrected = [
            CallTurn(turn.id, turn.number, MACHINE_TEXT if turn.number in kept else "", turn.assistant_text, turn.at)
            for turn in turns
        ]
        return [turn for turn in corrected if turn.user_text or turn.assistant_text]
