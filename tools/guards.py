"""The guards of the code, each with a way to break it and the tests that must notice. See tools/break_guards.py."""

from typing import NamedTuple

CRASH_LOGS = ("tests/crash/test_session_logs.py",)
CRASH_USER = ("tests/crash/test_user_files.py",)
CRASH_STORES = ("tests/crash/test_stores.py",)
RUNTIME, CLOUD, STORE = "memoair_runtime", "memoair_cloud", "memoair_runtime_store"
ACCESS = "tests/dashboard/test_access.py"
REPORTS = ("tests/cloud/test_outcomes.py",)
FIGURES = ("tests/cloud/test_prompt_figures.py",)


class Guard(NamedTuple):
    """One guard.

    Attributes:
        name: What it guards.
        file: The module that it is in.
        text: A text that is in the module exactly once.
        broken: What takes its place.
        tests: Arguments of pytest: tests of which at least one must fail then.
    """

    name: str
    file: str
    text: str
    broken: str
    tests: tuple[str, ...]


DURABILITY = (
    Guard(
        "a turn is synced before it is acknowledged",
        f"{RUNTIME}/storage/session_log.py",
        "os.strerror(errno.ENOSPC))\n            sync_data(fd)",
        "os.strerror(errno.ENOSPC))",
        CRASH_LOGS,
    ),
    Guard(
        "another's turn is synced before its repetition is acknowledged",
        f"{RUNTIME}/storage/session_log.py",
        "                    sync_data(fd)\n                    self._synced_offset",
        "                    self._synced_offset",
        CRASH_LOGS,
    ),
    Guard(
        "the folders of a log are synced",
        f"{RUNTIME}/storage/session_log.py",
        "            self._sync_folders()\n",
        "",
        CRASH_LOGS,
    ),
    Guard(
        "a torn line is cut off",
        f"{RUNTIME}/storage/session_log.py",
        "                    self._truncate_torn_line(fd)",
        "                    pass",
        CRASH_LOGS,
    ),
    Guard(
        "a durable file is synced",
        "memoair_protocol/durable.py",
        "                    file.flush()\n                    os.fsync(file.fileno())",
        "                    pass",
        (*CRASH_LOGS, *CRASH_USER),
    ),
    Guard(
        "the name of a durable file is synced",
        "memoair_protocol/durable.py",
        "        if durable:\n            sync_folder(path.parent)",
        "        pass",
        (*CRASH_LOGS, *CRASH_USER),
    ),
    Guard(
        "a position is not ahead of its log",
        f"{RUNTIME}/sync/outbox.py",
        "                    self._sync_log(session_id)",
        "                    pass",
        CRASH_USER,
    ),
    Guard(
        "an erased session is renamed before it is deleted",
        f"{RUNTIME}/storage/erasure.py",
        '[path.rename(path.with_name(f"{DELETED_PREFIX}{uuid.uuid4().hex}")) for path in erased]',
        "erased",
        ("tests/runtime/test_erased_turns.py",),
    ),
    Guard(
        "an erasure is durable",
        f"{RUNTIME}/storage/erasure.py",
        "        sync_folder(folder.path)  # a power failure must not bring them back",
        "        pass",
        CRASH_USER,
    ),
    Guard(
        "an erasure is recorded",
        f"{RUNTIME}/storage/erasure.py",
        "    record_erasure(folder, erased_at, events, in_cloud, clock)  # before the first of them is gone\n",
        "",
        ("tests/runtime/test_erased_turns.py",),
    ),
    Guard(
        "the record of an erasure is durable",
        f"{RUNTIME}/storage/erasure_record.py",
        "msgspec.json.encode(record), durable=True)",
        "msgspec.json.encode(record), durable=False)",
        CRASH_USER,
    ),
    Guard(
        "an index file is synced",
        "memoair_index/container.py",
        "            os.fsync(file.fileno())\n        temporary_path.replace(path)",
        "        temporary_path.replace(path)",
        CRASH_STORES,
    ),
    Guard(
        "a downloaded index file is synced",
        f"{RUNTIME}/org/pull.py",
        "            sync_file(temporary)",
        "            pass",
        CRASH_STORES,
    ),
    Guard(
        "a blob is synced",
        f"{CLOUD}/indexes/blob_folder.py",
        "            sync_data(fd)",
        "            pass",
        CRASH_STORES,
    ),
    Guard(
        "the name of a blob is synced",
        f"{CLOUD}/indexes/blobs.py",
        "        self._sync_name(self._path(sha256))",
        "        pass",
        CRASH_STORES,
    ),
    Guard(
        "an unpacked program is synced",
        f"{STORE}/archive.py",
        "            out.flush()\n            os.fsync(out.fileno())",
        "            out.flush()",
        CRASH_STORES,
    ),
    Guard(
        "the names of unpacked files are synced",
        f"{STORE}/archive.py",
        "                os.fsync(descriptor)",
        "                pass",
        CRASH_STORES,
    ),
    Guard(
        "a damaged manifest of documents is pulled again",
        f"{RUNTIME}/storage/state_file.py",
        "    except (ValueError, RecursionError) as error:",
        "    except RecursionError as error:",
        (*CRASH_STORES, "tests/crash/test_runtimes.py"),
    ),
    Guard(
        "a page of the cloud's copy has its checksum",
        f"{RUNTIME}/storage/replica_file.py",
        "            if zlib.crc32(content[begin:at]) != line.crc:",
        "            if False:",
        ("tests/runtime/test_sync_files.py", "-k", "replica or page"),
    ),
    Guard(
        "SQLite waits for the disk",
        f"{CLOUD}/database/engine.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=NORMAL",
        ("tests/cloud/test_database.py",),
    ),
    Guard(
        "the queue waits for the disk",
        f"{CLOUD}/queue.py",
        "fsync=True",
        "fsync=False",
        ("tests/cloud/test_database.py",),
    ),
    Guard(
        "deleted rows are overwritten",
        f"{CLOUD}/database/engine.py",
        "PRAGMA secure_delete=ON",
        "PRAGMA secure_delete=OFF",
        ("tests/cloud/test_database.py",),
    ),
)
LIMITS = (
    Guard(
        "a compressed body is limited while it is expanded",
        f"{CLOUD}/http/body_parsing.py",
        "decompressor.decompress(block, self.max_bytes + 1 - len(content))",
        "decompressor.decompress(block)",
        ("tests/cloud/test_bodies.py",),
    ),
    Guard(
        "a compressed archive is limited while it is expanded",
        f"{STORE}/archive.py",
        "                self._check_size(total)\n",
        "",
        ("tests/voice_sync/test_runtime_archive.py", "-k", "bomb"),
    ),
    Guard(
        "the body of a runtime's request is limited",
        f"{RUNTIME}/http/server.py",
        "        if length > MAX_RUNTIME_BODY_BYTES:",
        "        if False:",
        ("tests/runtime/test_http_bad_input.py", "-k", "megabyte or 413"),
    ),
    Guard(
        "the reply of a cloud is limited",
        "memoair_protocol/cloud_http.py",
        "        if len(content) > MAX_REPLY_BYTES:",
        "        if False:",
        ("tests/protocol/test_cloud_http.py", "-k", "too_long"),
    ),
    Guard(
        "the requests of a key are limited",
        f"{CLOUD}/http/dependencies.py",
        "    services.rate_limit.acquire(credentials.key_id)\n",
        "",
        ("tests/cloud/test_http.py", "-k", "rate_limit"),
    ),
)
FILES = (
    Guard(
        "a path in an archive stays in its folder",
        f"{STORE}/archive.py",
        '        or ".." in steps\n',
        "",
        ("tests/voice_sync/test_runtime_archive.py", "-k", "unsafe_path"),
    ),
    Guard(
        "a link in an archive stays in its folder",
        f"{STORE}/archive.py",
        " or parent_steps > len(path.parts) - 1:",
        ":",
        ("tests/voice_sync/test_runtime_archive.py", "-k", "unsafe_link or outside"),
    ),
    Guard(
        "a runtime has the expected digest",
        f"{STORE}/pull.py",
        "    if found != expected:",
        "    if False:",
        ("tests/voice_sync/test_runtime_pulls.py", "-k", "checksum or digest"),
    ),
    Guard(
        "a cached runtime is not of another user",
        f"{STORE}/cache.py",
        "    if info.st_uid not in (0, os.geteuid()):",
        "    if False:",
        ("tests/voice_sync/test_runtime_pulls.py", "-k", "another_user"),
    ),
    Guard(
        "a cached runtime cannot be written by others",
        f"{STORE}/cache.py",
        "    if info.st_mode & _WRITABLE_BY_OTHERS:",
        "    if False:",
        ("tests/voice_sync/test_runtime_pulls.py", "-k", "other_users"),
    ),
)
IDENTITY = (
    Guard(
        "a runtime answers only under loopback names",
        f"{RUNTIME}/http/server.py",
        "        if hosts and not _is_loopback_host(hosts[0]):",
        "        if False:",
        ("tests/runtime/test_http_bad_input.py", "-k", "host"),
    ),
    Guard(
        "a runtime does not answer web pages",
        f"{RUNTIME}/http/server.py",
        '        if "Origin" in self.headers:',
        "        if False:",
        ("tests/runtime/test_http_bad_input.py", "-k", "origin"),
    ),
    Guard(
        "a runtime compares the token",
        f"{RUNTIME}/http/token_check.py",
        'hmac.compare_digest(token.strip().encode("latin-1"), self._token_bytes)',
        "bool(token)",
        ("tests/runtime/test_http_bad_input.py", "-k", "token"),
    ),
    Guard(
        "a runtime serves one user",
        f"{RUNTIME}/memory/session_writer.py",
        "        if known_metadata.user and known_metadata.user.id not in (None, self._folder.user_id):",
        "        if False:",
        ("tests/runtime/test_http_contract.py", "-k", "another"),
    ),
    Guard(
        "a dead holder has no lease",
        f"{RUNTIME}/storage/lease.py",
        "    return holder if holder is not None and holder.is_valid() and holder.is_alive() else None",
        "    return holder if holder is not None and holder.is_valid() else None",
        ("tests/runtime/test_lease.py",),
    ),
    Guard(
        "the cloud's client follows no redirects",
        "memoair_protocol/cloud_http.py",
        "            return self.adapter.send(request, stream=True, timeout=timeouts, proxies=self._find_proxies(url))",
        "            session = requests.Session()\n"
        '            session.mount("http://", self.adapter)\n'
        "            return session.send(request, stream=True, timeout=timeouts, proxies=self._find_proxies(url))",
        ("tests/protocol/test_cloud_http.py", "-k", "redirect or another_host"),
    ),
    Guard(
        "an identity header is sent once",
        f"{CLOUD}/http/request_guard.py",
        "            if repeated is not None:",
        "            if repeated is not None and False:",
        ("tests/cloud/test_http.py", "-k", "repeated"),
    ),
)
TENANCY = (
    Guard(
        "a query reaches one project",
        f"{CLOUD}/tenancy/scoped.py",
        "lambda model: model.project_id == project_id",
        "lambda model: model.project_id != None",
        ("tests/cloud/test_tenancy.py", "-k", "query or scope"),
    ),
    Guard(
        "a query reaches one account",
        f"{CLOUD}/tenancy/scoped.py",
        "lambda model: model.account_id == account_id",
        "lambda model: model.account_id != None",
        ("tests/cloud/test_tenancy.py", "-k", "another_account or query or lists"),
    ),
    Guard(
        "a row that is written belongs to the tenant",
        f"{CLOUD}/tenancy/scoped.py",
        "        session.check_owner(row)",
        "        pass",
        ("tests/cloud/test_tenancy.py", "-k", "scope or rejected or query"),
    ),
    Guard(
        "a key for one project reads no other",
        f"{CLOUD}/tenancy/scoped.py",
        "    if session.scope.only_project_id is not None:",
        "    if False:",
        (ACCESS, "-k", "one_project"),
    ),
    Guard(
        "a key for one project changes no other",
        f"{CLOUD}/tenancy/grants.py",
        "        if project_id or action is not Action.READ:",
        "        if False:",
        (ACCESS, "-k", "one_project"),
    ),
    Guard(
        "the scope of a key is checked",
        f"{CLOUD}/tenancy/grants.py",
        "        if not self.allows(action):",
        "        if False:",
        (ACCESS, "-k", "only"),
    ),
    Guard(
        "a revoked key is refused",
        f"{CLOUD}/tenancy/access.py",
        "select(ApiKey).where(is_key, ApiKey.revoked_at.is_(None))",
        "select(ApiKey).where(is_key)",
        ("tests/cloud/test_tenancy.py", "-k", "revoked"),
    ),
)
DASHBOARD = (
    Guard(
        "a form has the token of its person",
        f"{CLOUD}/dashboard/page_route.py",
        "        if not form_key or digest != hashlib.sha256(form_key.encode()).hexdigest():",
        "        if False:",
        (ACCESS, "-k", "form"),
    ),
    Guard(
        "a form of another site is refused",
        f"{CLOUD}/dashboard/page_route.py",
        'not in ("same-origin", "none")',
        "in ()",
        (ACCESS, "-k", "form"),
    ),
    Guard(
        "a form of evaluations is refused to readers before it is read",
        f"{CLOUD}/dashboard/project_page.py",
        "        self.tenant.grant.check(Action.WRITE, self.project.id)",
        "        pass",
        (ACCESS, "-k", "may_only_read"),
    ),
    Guard(
        "a context is text around its marks, too",
        f"{CLOUD}/dashboard/evaluated.py",
        "escape(context[position:start])",
        "Markup(context[position:start])",
        ("tests/dashboard/test_evaluated.py",),
    ),
    Guard(
        "a case that someone else has changed is not overwritten",
        f"{CLOUD}/dashboard/pages/evaluation_cases.py",
        'if row is not None and clean_text(fields.get("updated_at")) != row.updated_at.isoformat():',
        "if False:",
        ("tests/dashboard/test_evaluations.py", "-k", "wrong_as_json"),
    ),
    Guard(
        "attempts to sign in are throttled",
        f"{CLOUD}/http/key_throttle.py",
        "        limit.acquire(address)",
        "        pass",
        (ACCESS, "-k", "throttled"),
    ),
    Guard(
        "only a proxy of the settings names people",
        f"{CLOUD}/dashboard/visitor.py",
        " or not self.is_from_proxy(request):",
        ":",
        (ACCESS, "-k", "proxy"),
    ),
)
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
EVALUATION_TESTS = "tests/evaluation"
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
PROMPTS_TESTS = ("tests/cloud/test_prompts.py", "-k", "sqlite")
PROMPTS = (
    Guard(
        "writers of an agent's prompts wait for each other",
        f"{CLOUD}/prompts/agents.py",
        ".with_for_update(key_share=True)",
        "",
        ("tests/cloud/test_prompts.py", "-k", "at_once and postgresql"),
    ),
    Guard(
        "a prompt is that of the agent",
        f"{CLOUD}/prompts/versions.py",
        "select(PromptVersion).where(PromptVersion.agent_id == agent_id, PromptVersion.number == number)",
        "select(PromptVersion).where(PromptVersion.number == number)",
        PROMPTS_TESTS,
    ),
    Guard(
        "a label is that of the agent",
        f"{CLOUD}/prompts/labels.py",
        "            select(PromptLabel.number).where(PromptLabel.agent_id == agent_id, PromptLabel.name == label)",
        "            select(PromptLabel.number).where(PromptLabel.name == label)",
        PROMPTS_TESTS,
    ),
    Guard(
        "a label that someone else has moved is not overwritten",
        f"{CLOUD}/prompts/moves.py",
        "        if expected_version is not None and expected_version != actual:",
        "        if False:",
        PROMPTS_TESTS,
    ),
    Guard(
        "a rollback that is repeated goes further back",
        f"{CLOUD}/prompts/moves.py",
        "        back_to = self._find_move(before.back_to)\n        return self._record(self._find_label()",
        "        back_to = last\n        return self._record(self._find_label()",
        PROMPTS_TESTS,
    ),
    Guard(
        "a move is later than the one before it",
        f"{CLOUD}/prompts/moves.py",
        "max(self.now, last.moved_at + timedelta(microseconds=1))",
        "self.now",
        PROMPTS_TESTS,
    ),
    Guard(
        "a push knows the latest version if it says so",
        f"{CLOUD}/prompts/versions.py",
        "            if new.expected_version is not None and new.expected_version != number:",
        "            if False:",
        PROMPTS_TESTS,
    ),
    Guard(
        "the audit log says from which version to which a label moved",
        f"{CLOUD}/prompts/moves.py",
        'self.name, {"from": replaced, "to": number})',
        "self.name)",
        PROMPTS_TESTS,
    ),
    Guard(
        "a key for ingesting only fetches nothing but labeled prompts",
        f"{CLOUD}/prompts/labels.py",
        "    with tenant.begin_read() as session:\n        statement = select(PromptLabelMove)",
        "    with tenant.begin_read(Action.FETCH_PROMPT) as session:\n        statement = select(PromptLabelMove)",
        PROMPTS_TESTS,
    ),
    Guard(
        "a move on a page is confirmed",
        f"{CLOUD}/dashboard/pages/prompts.py",
        "    if not is_confirmed:",
        "    if False:",
        ("tests/dashboard/test_prompts.py",),
    ),
    Guard(
        "a value in a prompt is put in once",
        "memoair_protocol/prompt_template.py",
        "    return _TOKEN.sub(replace, text)",
        "    return _TOKEN.sub(replace, _TOKEN.sub(replace, text))",
        ("tests/protocol/test_prompt_template.py",),
    ),
    Guard(
        "a comparison takes bounded time",
        "memoair_protocol/text_diff.py",
        "        if _is_comparable(before, after):",
        "        if True:",
        ("tests/protocol/test_text_diff.py",),
    ),
    Guard(
        "a file with another text is kept",
        "memoair_cli/prompts/texts.py",
        "            if not overwrite:",
        "            if False:",
        ("tests/cli/test_prompts.py",),
    ),
)
SDK_PROMPTS = (
    Guard(
        "a prompt on this machine survives a power failure",
        "memoair_voice_sync/_prompts/prompt_file.py",
        ".encode(), durable=True)",
        ".encode(), durable=False)",
        ("tests/crash/test_prompt_files.py",),
    ),
    Guard(
        "a prompt on this machine is that of its agent, and whole",
        "memoair_voice_sync/_prompts/prompt_file.py",
        """            raise ValueError("another agent's, or damaged")""",
        "            pass",
        ("tests/voice_sync/test_prompts.py",),
    ),
    Guard(
        "a reply is a prompt of this agent",
        "memoair_voice_sync/_prompts/fetching.py",
        'body.get("agentId") == agent_id and',
        "",
        ("tests/voice_sync/test_prompts.py",),
    ),
    Guard(
        "a later answer of the cloud is not replaced by an earlier one",
        "memoair_voice_sync/_prompts/prompt_file.py",
        "if present is not None and present.checked_at > prompt.checked_at:",
        "if False:",
        ("tests/voice_sync/test_prompts.py",),
    ),
    Guard(
        "a known prompt is returned at once",
        "memoair_voice_sync/_prompts/store.py",
        "        if prompt is not None:\n            return prompt, True\n",
        "",
        ("tests/voice_sync/test_prompts.py",),
    ),
    Guard(
        "a cloud that fails is not asked with each call",
        "memoair_voice_sync/_prompts/store.py",
        "            if time.monotonic() < entry.failed_at + pause_s:",
        "            if False:",
        ("tests/voice_sync/test_prompts.py",),
    ),
    Guard(
        "an error of a value does not hold the value",
        "memoair_voice_sync/_prompts/calls.py",
        "    if failure is not None:  # raised here, without the error, which holds the value",
        "    if failure is not None and False:",
        ("tests/voice_sync/test_prompts.py",),
    ),
    Guard(
        "a call does not record the prompt of another agent",
        "memoair_voice_sync/_prompts/calls.py",
        "        if prompt.agent_id != self._prompts.agent_id:",
        "        if False:",
        ("tests/voice_sync/test_prompts.py",),
    ),
    Guard(
        "an agent greets with its prompt",
        "integrations/livekit/memoair_livekit/_hooks.py",
        "        await prepare(self)\n",
        "",
        ("tests/integrations/livekit/test_prompts.py",),
    ),
    Guard(
        "a typed turn waits for the prompt",
        "integrations/livekit/memoair_livekit/_agent.py",
        "            chat_ctx = await self._memoair_insert_prompt(chat_ctx)",
        "            pass",
        ("tests/integrations/livekit/test_prompts.py",),
    ),
    Guard(
        "the instructions of a processor never get into the context of the application",
        "integrations/pipecat/memoair_pipecat/_context.py",
        "messages[1:] if instructions is not None and messages[:1] == [instructions] else messages",
        "messages",
        ("tests/integrations/pipecat/test_prompts.py",),
    ),
)
REPLAYS_TESTS = ("tests/cloud/test_replays.py", "tests/cloud/test_replay_requests.py")
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
EVALUATION_SUITES = "tests/cloud/test_evaluation_suites.py"
EVALUATION_RUNS = "tests/cloud/test_evaluation_runs.py"
EVALUATION_SETS = "tests/cloud/test_document_sets.py"
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
GUARDS: tuple[Guard, ...] = (
    *(*DURABILITY, *LIMITS, *FILES, *IDENTITY, *TENANCY, *DASHBOARD, *CALLS, *WORDS),
    *(*PROMPTS, *SDK_PROMPTS, *EVALUATIONS, *SERVER_EVALUATIONS, *REPLAYS, *OUTCOMES),
)
