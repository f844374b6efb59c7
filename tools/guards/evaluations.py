"""Guards of evaluations, on a machine and on the server, and replays."""

from guards.guard import Guard

EVALUATION_TESTS = "tests/evaluation"
REPLAYS_TESTS = ("tests/cloud/test_replays.py", "tests/cloud/test_replay_requests.py")
EVALUATION_SUITES = "tests/cloud/test_evaluation_suites.py"
EVALUATION_RUNS = "tests/cloud/test_evaluation_runs.py"
EVALUATION_SETS = "tests/cloud/test_document_sets.py"
RUNTIME = "memoair_runtime"
CLOUD = "memoair_cloud"

EVALUATIONS = (
    Guard(
        "a case with an unknown field is refused",
        "memoair_evaluation/case.py",
        'class _CasePart(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):',
        'class _CasePart(msgspec.Struct, frozen=True, rename="camel"):',
        (f"{EVALUATION_TESTS}/test_case.py",),
    ),
    Guard(
        "an error of a case names the line that has the same id",
        "memoair_evaluation/case.py",
        "            if first != number:",
        "            if False:",
        (f"{EVALUATION_TESTS}/test_case.py",),
    ),
    Guard(
        "what a message of a case quotes is left out",
        "memoair_evaluation/case.py",
        'problem, _, path = strip_values(message, _ENUMS).partition(" - at ")',
        'problem, _, path = message.partition(" - at ")',
        (f"{EVALUATION_TESTS}/test_case.py",),
    ),
    Guard(
        "a phrase is matched at the ends of words",
        "memoair_evaluation/matching.py",
        "        if _is_boundary(words[start - 1], wanted[0]) and _is_boundary(words[end], wanted[-1]):",
        "        if True:",
        (f"{EVALUATION_TESTS}/test_engine.py",),
    ),
    Guard(
        "what a document says is no fact about the caller",
        "memoair_evaluation/case_scoring.py",
        "            return contains_phrase(self._words_of_caller, item.fact)",
        "            return contains_phrase(self._words, item.fact)",
        (f"{EVALUATION_TESTS}/test_engine.py",),
    ),
    Guard(
        "the time of the question is that of the case",
        f"{RUNTIME}/recall/search_service.py",
        "now if now is not None else time.time()",
        "time.time()",
        (f"{EVALUATION_TESTS}/test_engine.py",),
    ),
    Guard(
        "no lane of an evaluation is cut off",
        "memoair_evaluation/engine.py",
        "_to_budgets(settings), keeps_deadline=False)",
        "_to_budgets(settings))",
        (f"{EVALUATION_TESTS}/test_inline_executor.py",),
    ),
    Guard(
        "a damaged index file is not searched",
        f"{RUNTIME}/preview.py",
        "        index.verify()  # also",
        "        pass  # also",
        (f"{EVALUATION_TESTS}/test_engine.py",),
    ),
    Guard(
        "a copied text counts as what is in the context",
        f"{RUNTIME}/recall/context_builder.py",
        "            if key:\n                sources.add(passage.source)\n",
        "",
        (f"{EVALUATION_TESTS}/test_engine.py",),
    ),
    Guard(
        "a part of the talk continues a number",
        "memoair_evaluation/redaction.py",
        "        user_tail, assistant_tail = redact.tail(user_tail, turn.user), redact.tail",
        "        user_tail, assistant_tail = '', (lambda *_: '')",
        (f"{EVALUATION_TESTS}/test_redaction.py",),
    ),
    Guard(
        "a number that was removed from a turn is removed from the phrases of its case",
        "memoair_evaluation/redaction.py",
        "        return removed.replace(redact(text))",
        "        return redact(text)",
        (f"{EVALUATION_TESTS}/test_redaction.py",),
    ),
    Guard(
        "a worse run does not take the place of the last one",
        "memoair_cli/evaluation/command.py",
        "    elif not is_worse or accept:",
        "    elif True:",
        ("tests/cli/test_eval.py",),
    ),
    Guard(
        "the last run is kept without words of callers",
        "memoair_cli/evaluation/command.py",
        "        write_run(path, run, with_details=False)",
        "        write_run(path, run, with_details=True)",
        ("tests/cli/test_eval.py",),
    ),
    Guard(
        "a process that runs cases ends with the one that started it",
        "memoair_evaluation/forked_run.py",
        "        for descriptor in inherited:  # so",
        "        for descriptor in ():  # so",
        (f"{EVALUATION_TESTS}/test_forked_run.py",),
    ),
)

SERVER_EVALUATIONS = (
    Guard(
        "evaluations: a suite of another agent is not found",
        f"{CLOUD}/evaluation/suites.py",
        "is_own = EvaluationSuite.agent_id == session.scope.agent_id",
        'is_own = EvaluationSuite.agent_id != ""',
        (EVALUATION_SUITES, "-k", "sqlite and test_suites_belong_to_an_agent_and_have_unique_names"),
    ),
    Guard(
        "evaluations: a run of another agent is not found",
        f"{CLOUD}/evaluation/runs.py",
        "is_own = EvaluationRun.agent_id == session.scope.agent_id",
        'is_own = EvaluationRun.agent_id != ""',
        (EVALUATION_RUNS, "-k", "sqlite and test_runs_of_another_agent_are_not_found"),
    ),
    Guard(
        "evaluations: runs of another agent are not listed",
        f"{CLOUD}/evaluation/runs.py",
        "select(EvaluationRun).where(EvaluationRun.agent_id == tenant.scope.agent_id)",
        "select(EvaluationRun)",
        (EVALUATION_RUNS, "-k", "sqlite and test_runs_of_another_agent_are_not_found"),
    ),
    Guard(
        "evaluations: a copied case belongs to its caller",
        f"{CLOUD}/evaluation/case_copying.py",
        "            row.user_id = draft.user_id\n",
        "",
        (EVALUATION_SUITES, "-k", "sqlite and test_a_copied_case_goes_with_its_caller_unless_its_text_is_kept"),
    ),
    Guard(
        "evaluations: a copied case is redacted",
        f"{CLOUD}/evaluation/case_copying.py",
        "return redact_case(parse_content(content)),",
        "return parse_content(content),",
        (EVALUATION_SUITES, "-k", "sqlite and test_a_copied_case_has_what_was_known_then_without_numbers"),
    ),
    Guard(
        "evaluations: copying a case is in the audit log",
        f"{CLOUD}/evaluation/case_copying.py",
        "        record_change(session, AuditAction.COPIED_CASE, draft.user_id, draft.session_id)\n",
        "",
        (EVALUATION_SUITES, "-k", "sqlite and test_a_copied_case_has_what_was_known_then_without_numbers"),
    ),
    Guard(
        "evaluations: a case has no later facts",
        f"{CLOUD}/evaluation/known_then.py",
        "        Memory.said_at < at,\n",
        "",
        (EVALUATION_SUITES, "-k", "sqlite and test_a_copied_case_has_what_was_known_then_without_numbers"),
    ),
    Guard(
        "evaluations: a case has no facts of its own call",
        f"{CLOUD}/evaluation/known_then.py",
        "        Memory.session_id != session_id,\n",
        "",
        (EVALUATION_SUITES, "-k", "sqlite and test_a_copied_case_has_no_facts_of_its_own_call"),
    ),
    Guard(
        "evaluations: a case has no later turns",
        f"{CLOUD}/evaluation/known_then.py",
        "CallEvent.session_id != session_id, CallEvent.occurred_at < row.occurred_at",
        "CallEvent.session_id != session_id",
        (EVALUATION_SUITES, "-k", "sqlite and test_a_copied_case_has_what_was_known_then_without_numbers"),
    ),
    Guard(
        "evaluations: a worker that lost its claim writes nothing",
        f"{CLOUD}/evaluation/run_claims.py",
        "is_mine = EvaluationRun.id == self.run.id, EvaluationRun.claim == self.claim",
        "is_mine = (EvaluationRun.id == self.run.id,)",
        (EVALUATION_RUNS, "-k", "sqlite and test_a_worker_that_comes_back_too_late_changes_nothing"),
    ),
    Guard(
        "evaluations: a result takes the place of its pending case",
        f"{CLOUD}/evaluation/suite_run.py",
        "        session.execute(delete(PendingCase).where(*is_meant), execution_options=_UNSYNCHRONIZED)\n",
        "",
        (EVALUATION_RUNS, "-k", "sqlite and test_a_run_survives_a_killed_worker_and_counts_each_case_once"),
    ),
    Guard(
        "evaluations: no result of an erased caller",
        f"{CLOUD}/evaluation/suite_run.py",
        'kept = [row for row in results if row["case_id"] in left]',
        "kept = list(results)",
        (EVALUATION_RUNS, "-k", "sqlite and test_a_run_ends_although_a_caller_of_its_cases_is_erased"),
    ),
    Guard(
        "evaluations: a hold keeps runs",
        f"{CLOUD}/evaluation/run_worker.py",
        ", ~has_held)",
        ")",
        (EVALUATION_RUNS, "-k", "sqlite and test_old_runs_are_dropped_unless_a_hold_covers_their_callers"),
    ),
    Guard(
        "evaluations: a part of a set is recorded before it is written",
        f"{CLOUD}/evaluation/document_sets.py",
        "        row.part_count += 1  # before the part is written\n",
        "",
        (EVALUATION_SETS, "-k", "sqlite and test_a_set_is_sent_in_parts"),
    ),
    Guard(
        "evaluations: a set that a run searches is not removed",
        f"{CLOUD}/evaluation/document_sets.py",
        "if find_open_run(session, set_id) is not None:",
        "if False:",
        (EVALUATION_SETS, "-k", "sqlite and test_a_set_that_a_run_searches_is_not_deleted"),
    ),
    Guard(
        "evaluations: the files of a removed set are removed again",
        f"{CLOUD}/evaluation/document_set_builder.py",
        "            remove_files(tenant, blobs, each)\n",
        "            pass\n",
        (EVALUATION_SETS, "-k", "sqlite and test_abandoned_sets_and_unused_copies_are_removed"),
    ),
)

REPLAYS = (
    Guard(
        "a question of a replay knows nothing that was said after it",
        "memoair_evaluation/past_talk.py",
        "sorted(placed, key=lambda place: place[:-1])",
        "sorted(placed, key=lambda place: place[:-1], reverse=True)",
        ("tests/evaluation/test_replaying.py",),
    ),
    Guard(
        "a replay reads calls of its agent only",
        "memoair_cloud/evaluation/replay_questions.py",
        "            CallSession.agent_id == agent_id,\n",
        "",
        REPLAYS_TESTS,
    ),
    Guard(
        "a question is asked once, whichever worker asks it",
        "memoair_cloud/evaluation/replay.py",
        "    session.execute(delete(PendingCase).where(*is_meant), execution_options=_UNSYNCHRONIZED)\n",
        "",
        REPLAYS_TESTS,
    ),
    Guard(
        "a result does not come back after its caller was erased",
        "memoair_cloud/evaluation/replay.py",
        "for row, result in results if row.case_id in left]",
        "for row, result in results]",
        REPLAYS_TESTS,
    ),
    Guard(
        "the audit log says which period was replayed",
        "memoair_cloud/evaluation/replays.py",
        "        record_agent_change(session, AuditAction.REPLAYED_CALLS, agent_id, run.id, period)\n",
        "",
        REPLAYS_TESTS,
    ),
    Guard(
        "a candidate that changes no context is refused",
        "memoair_cloud/evaluation/replays.py",
        "    _check_changes_something(parsed)\n",
        "",
        REPLAYS_TESTS,
    ),
    Guard(
        "what replays quote goes with dropped turns",
        "memoair_cloud/retention/enforcement.py",
        "    delete_replay_results(session, user.id)\n",
        "",
        REPLAYS_TESTS,
    ),
    Guard(
        "a read change is in the audit log",
        "memoair_cloud/http/routes/replays.py",
        "    services.reads.record_all(tenant, AuditAction.READ_CALL, read)\n",
        "",
        REPLAYS_TESTS,
    ),
)
