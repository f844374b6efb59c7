"""Guards of calls, their words and their outcomes."""

from guards.guard import Guard

CRASH_LOGS = ("tests/crash/test_session_logs.py",)
RUNTIME = "memoair_runtime"
CLOUD = "memoair_cloud"
REPORTS = ("tests/cloud/test_outcomes.py",)
FIGURES = ("tests/cloud/test_prompt_figures.py",)

CALLS = (
    Guard(
        "an event is stored once",
        f"{CLOUD}/calls/ingest.py",
        "        if event.event_id in stored_sessions:\n",
        "        if False:\n",
        ("tests/cloud/test_events.py", "-k", "once"),
    ),
    Guard(
        "an event with other words is no duplicate",
        f"{CLOUD}/calls/ingest.py",
        "            elif event.event_id in changed_ids:",
        "            elif False:",
        ("tests/cloud/test_events.py", "-k", "other_words"),
    ),
    Guard(
        "an erased event is refused",
        f"{CLOUD}/calls/ingest.py",
        "else order.of(event)",
        "else EventOrder.AFTER",
        ("tests/cloud/test_forgetting.py", "-k", "rejected"),
    ),
    Guard(
        "a repeated turn is logged once",
        f"{RUNTIME}/memory/session.py",
        "        if known is not None:  # even after the end",
        "        if False:  # even after the end",
        CRASH_LOGS,
    ),
    Guard(
        "what was said before an erasure is not sent",
        f"{RUNTIME}/sync/outbox.py",
        "        if self._last_erasure is not None and self._last_erasure.includes(event):",
        "        if False:",
        ("tests/crash/test_user_files.py", "-k", "interrupted"),
    ),
    Guard(
        "an unsent turn is not dropped",
        f"{RUNTIME}/storage/retention.py",
        "            if event.occurred_at >= cutoff or not sent.is_done(event, line_end):",
        "            if event.occurred_at >= cutoff:",
        ("tests/runtime/test_retention.py", "-k", "unsent"),
    ),
    Guard(
        "a hold stops the periods of a machine",
        f"{RUNTIME}/storage/retention.py",
        "        if rules.held or hash_user_id(folder.project_id, folder.user_id) in rules.held_users:",
        "        if False:",
        ("tests/runtime/test_retention.py", "-k", "held"),
    ),
    Guard(
        "a hold stops an erasure",
        f"{CLOUD}/retention/holds.py",
        "    if is_held(session, user_id):",
        "    if False:",
        ("tests/cloud/test_retention.py", "-k", "hold"),
    ),
    Guard(
        "a hold stops the periods of a project",
        f"{CLOUD}/retention/holds.py",
        "    return ~select(LegalHold.id).where(covers).exists()",
        "    return ~select(LegalHold.id).where(covers, LegalHold.id.is_(None)).exists()",
        ("tests/cloud/test_retention.py", "-k", "hold"),
    ),
)

WORDS = (
    Guard(
        "a number is a card only with its check digit",
        "memoair_redaction/cards.py",
        "    return not (sum(digits[::2])",
        "    return bool(digits) or not (sum(digits[::2])",
        ("tests/redaction/test_corpus.py",),
    ),
    Guard(
        "recalled text does not end its fence",
        "memoair_voice/integration/recall.py",
        "{_replace_marks(text)}",
        "{text}",
        ("tests/voice/integration/test_recall.py",),
    ),
    Guard(
        "recalled text is one line",
        "memoair_protocol/sanitizer.py",
        "    parts = (part.strip() for part in _LINE_BREAKS.split(text))",
        "    parts = iter([text])",
        ("tests/runtime/test_context_builder.py",),
    ),
    Guard(
        "a model that reads no context is not searched for",
        "integrations/pipecat/memoair_pipecat/_processor.py",
        "            if not self._model_reads_context:  # nothing is recalled for it; it may begin with instructions",
        "            if False:",
        ("tests/integrations/pipecat/test_turn_recall.py",),
    ),
    Guard(
        "a caller who speaks at once waits for their memory",
        "integrations/pipecat/memoair_pipecat/_recall.py",
        "            if self._load_task is not None and not self._load_task.done():",
        "            if False:",
        ("tests/integrations/pipecat/test_turn_recall.py",),
    ),
    Guard(
        "a failed search leaves no earlier result",
        "integrations/pipecat/memoair_pipecat/_recall.py",
        "        except Exception as error:  # noqa: BLE001 - a full pool, a closed client: answer without memory",
        "        except MemoryError as error:",
        ("tests/integrations/pipecat/test_turn_recall.py",),
    ),
)

OUTCOMES = (
    Guard(
        "an outcome of a session that two callers have needs the caller",
        f"{CLOUD}/outcomes/reporting.py",
        "    if len(owners) > 1:",
        "    if False:",
        REPORTS,
    ),
    Guard(
        "an outcome of an erased session is refused without the caller, too",
        f"{CLOUD}/outcomes/reporting.py",
        "            if outcome.session_id in self._without_user:",
        "            if False:",
        REPORTS,
    ),
    Guard(
        "an outcome from before an erasure is refused",
        f"{CLOUD}/outcomes/reporting.py",
        "(erased_at is not None and occurred_at <= erased_at)",
        "False",
        REPORTS,
    ),
    Guard(
        "two reports of the same outcomes cannot deadlock",
        f"{CLOUD}/outcomes/reporting.py",
        "[rows[key] for key in sorted(rows)]",
        "list(rows.values())",
        REPORTS,
    ),
    Guard(
        "an early outcome waits for a call of its own caller",
        f"{CLOUD}/outcomes/resolving.py",
        "CallOutcome.session_id.in_(set(session_ids)), CallOutcome.user_id.is_(None), is_theirs\n",
        "CallOutcome.session_id.in_(set(session_ids)), CallOutcome.user_id.is_(None)\n",
        REPORTS,
    ),
    Guard(
        "an outcome that missed an erasure goes",
        f"{CLOUD}/outcomes/resolving.py",
        "or_(CallOutcome.received_at < cutoff, and_(is_recent, is_of_erased.exists())),",
        "CallOutcome.received_at < cutoff,",
        REPORTS,
    ),
    Guard(
        "the names of outcomes in memory are bounded",
        f"{CLOUD}/analytics/outcomes.py",
        "if len(by_name) <= _MAX_NAMES:",
        "if True:",
        ("tests/cloud/test_days.py", "-k", "bounded"),
    ),
    Guard(
        "days in memory are dropped when they are too old",
        f"{CLOUD}/analytics/days.py",
        "(len(self._days) > _MAX_DAYS or self._is_first_expired())",
        "len(self._days) > _MAX_DAYS",
        ("tests/cloud/test_days.py", "-k", "bounded"),
    ),
    Guard(
        "a hold keeps the outcomes that wait",
        f"{CLOUD}/outcomes/resolving.py",
        "        not_held_condition(CallOutcome.user_id, CallOutcome.project_id),  # type: ignore[arg-type]\n",
        "",
        REPORTS,
    ),
    Guard(
        "too few calls are not compared",
        f"{CLOUD}/analytics/comparison.py",
        "compute() if min(counts) >= MIN_CALLS else None",
        "compute()",
        FIGURES,
    ),
    Guard(
        "a report is seen at once",
        f"{CLOUD}/http/routes/outcomes.py",
        "        services.days.drop_outcomes(tenant.scope.project_id, receipt.began_at)\n",
        "",
        FIGURES,
    ),
)
