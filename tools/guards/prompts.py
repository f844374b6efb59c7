"""Guards of prompts of agents, on the server and in the SDK."""

from guards.guard import Guard

PROMPTS_TESTS = ("tests/cloud/test_prompts.py", "-k", "sqlite")
CLOUD = "memoair_cloud"

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
