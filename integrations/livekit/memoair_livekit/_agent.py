"""The agent: a LiveKit ``Agent`` whose hooks recall from memory and save turns."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from livekit.agents import Agent, llm

from memoair_livekit._arguments import check_milliseconds, choose_client, resolve_caller
from memoair_livekit._context import RecallRole, insert_recall
from memoair_livekit._holder import AgentWithMemory, enter, wait_for_prompt
from memoair_livekit._hooks import wrap_hooks
from memoair_livekit._listener import add_message
from memoair_livekit._log import log, log_failures
from memoair_livekit._memory import CallMemory
from memoair_livekit._realtime import has_search_tool, is_speech_model, make_search_tool, vars_of_class
from memoair_livekit._start import find_model
from memoair_voice import MemoAirVoiceClient, RecallRecord
from memoair_voice.integration import (
    CLOUD_BASE_URL,
    IDENTITY_FIELDS,
    RUNTIME_PORT_RANGE,
    find_missing,
    make_agent_prompt,
    read_environment,
)

if TYPE_CHECKING:
    from livekit.agents import ModelSettings
    from typing_extensions import Self

_REQUIRED_ARGUMENTS = (*IDENTITY_FIELDS, "user_id")


class MemoAirLiveKitAgent(AgentWithMemory):
    """A LiveKit ``Agent`` with memory: it recalls before each answer and saves each turn, without further wiring.

    The agent learns of turns from the events of its session. Saving happens in the background and never delays an
    answer. After construction, no failure of the memory raises into the session: it is logged (logger
    ``memoair_livekit``) with a code and without the words of caller or agent, and the call continues without memory.

    Use an instance only in the thread of the session's event loop. It may serve one session after another.

    Subclasses can override every hook. Their `on_enter` and `on_exit` do not need to call ``super()``. A subclass that
    overrides both `on_user_turn_completed` and `llm_node` must call one of them through ``super()``; otherwise
    nothing is recalled.

    Example:
        ```python
        agent = MemoAirLiveKitAgent(
            api_key="memoair_pk_...",
            project_id="proj_acme",
            agent_id="agent_acme_returns",
            user_id=caller.identity,
            instructions="You are the returns concierge of a shoe shop.",
        )
        await session.start(agent=agent, room=ctx.room)
        ```
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        project_id: str | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        instructions: str | None = None,
        search_timeout_ms: float = 250,
        cloud_base_url: str | None = CLOUD_BASE_URL,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        client: MemoAirVoiceClient | None = None,
        start_timeout_ms: float = 2_000,
        recall_role: RecallRole = "system",
        search_tool: bool | None = None,
        key_terms: bool = True,
        agent: Any = None,
        storage_root: str | None = None,
        runtime_binary: str | None = None,
        runtime_port_range: tuple[int, int] = RUNTIME_PORT_RANGE,
        org_file: str | None = None,
        org_only: bool = False,
        redact: Callable[[str], str] | None = None,
        recall_traces: str | None = None,
        on_recall: Callable[[RecallRecord], object] | None = None,
        prompt_label: str | None = None,
        prompt_values: Mapping[str, object] | None = None,
        prompt_default: str | None = None,
        prompt_fresh_s: float | None = None,
        **agent_kwargs: Any,
    ) -> None:
        """Create an agent for one caller. No process is started before the agent enters a session.

        Args:
            api_key: The API key of the account.
            project_id: The project that the memory belongs to.
            agent_id: The agent within the project.
            user_id: The id of the caller.
            instructions: The instructions of the ``Agent``.
            search_timeout_ms: How long a search may delay an answer, in milliseconds.
            cloud_base_url: The URL of the cloud, or None for no cloud: then nothing leaves this machine.
            name: The name of the caller.
            metadata: What else to keep about the caller, a JSON object.
            client: A client that serves many calls, which its owner closes. The identity and the arguments from
                ``storage_root`` on are then those of the client.
            start_timeout_ms: How long after entering a session a search waits for the caller's memory to be loaded, in
                milliseconds.
            recall_role: The role of the message with the recalled text: ``system`` or ``user``.
            search_tool: Whether the model gets the tool ``search_memory``. None means only if it is a speech model.
            key_terms: Whether names that the caller uses are handed to the speech recognizer, if it accepts terms.
            agent: An object with the attributes ``api_key``, ``project_id``, ``agent_id`` and ``user_id``, such as
                ``memoair_voice.MemoAirVoiceAgent``. Arguments that are passed directly take precedence.
            storage_root: The folder for memories on this machine. None means the user data folder of the platform.
            runtime_binary: A runtime program to use instead of the installed one.
            runtime_port_range: The first and the last loopback port that runtimes may listen on.
            org_file: A file with the organization's documents as JSON lines, if no cloud has them.
            org_only: Search only the organization's documents, and save nothing.
            redact: A function that receives each text of a turn before any of it is saved, and returns the text to
                keep. It must be safe to call from any thread.
            recall_traces: What is kept of each search: ``ids``, ``text`` or ``off``, as in ``MemoAirVoiceClient``.
            on_recall: A function that receives a ``RecallRecord`` of each search, in a background thread.
            prompt_label: The label of a prompt to use as instructions, such as ``production``, instead of
                ``instructions``. What this machine knows of it is used at once; when the agent enters a session, the
                cloud is asked if it is stale, and the version is recorded on the call.
            prompt_values: The values of the prompt's placeholders.
            prompt_default: The text to use, with the same placeholders, if this machine does not know the prompt and
                the cloud does not have it in time. Without it, such an agent has no instructions, and an error is
                logged.
            prompt_fresh_s: How long a prompt is used without asking the cloud, in seconds, as in
                ``MemoAirVoiceClient``.
            **agent_kwargs: Passed to ``livekit.agents.Agent``.

        Raises:
            TypeError: If a part of the identity is missing or not a string.
            ValueError: If an argument is invalid.
        """
        check_milliseconds(search_timeout_ms=search_timeout_ms, start_timeout_ms=start_timeout_ms)
        if recall_role not in ("system", "user"):
            raise ValueError(f"recall_role must be 'system' or 'user', not {recall_role!r}")
        agent_prompt = make_agent_prompt(instructions, prompt_label, prompt_values, prompt_default, log)
        take_client, memory_key, identity, checked_client = choose_client(
            client,
            agent,
            cloud_base_url=cloud_base_url,
            org_only=org_only,
            identity={
                "api_key": api_key,
                "project_id": project_id,
                "agent_id": agent_id,
                "recall_traces": recall_traces,
                "prompt_fresh_s": prompt_fresh_s,
            },
            runtime_port_range=runtime_port_range,
            options={
                "storage_root": storage_root,
                "runtime_binary": runtime_binary,
                "org_file": org_file,
                "redact": redact,
                "on_recall": on_recall,
            },
        )
        user = resolve_caller(agent, user_id, name, metadata, required=not identity["org_only"])
        tool = make_search_tool(self._memoair_use_tool)
        is_offered = is_speech_model(agent_kwargs.get("llm")) if search_tool is None else search_tool
        tools = list(agent_kwargs.pop("tools", None) or [])
        if is_offered and not has_search_tool([*tools, *vars_of_class(type(self))]):
            tools.append(tool)
        known = agent_prompt.find_known(checked_client) if agent_prompt is not None else None
        super().__init__(instructions=instructions or (known.text if known else ""), tools=tools, **agent_kwargs)
        self._memoair_prompt = agent_prompt
        self._memoair_search_tool = tool  # only now: LiveKit offers each tool that it finds in an attribute
        self._memoair_offers_tool = search_tool
        self._memoair_recall_role: RecallRole = recall_role
        self._memoair_caller_name = name
        self._memoair_hands_over_terms = key_terms
        self._memoair_make_memory = partial(CallMemory, take_client, user, search_timeout_ms, start_timeout_ms)
        self._memoair_memory_key = (memory_key, repr(user), search_timeout_ms, start_timeout_ms)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap the hooks of a subclass, so that entering and leaving are noticed even without ``super()``."""
        super().__init_subclass__(**kwargs)
        wrap_hooks(cls, enter, wait_for_prompt, MemoAirLiveKitAgent.on_exit)

    @classmethod
    def from_env(cls, **overrides: Any) -> "Self":
        """Create an agent from environment variables.

        Reads ``MEMOAIR_API_KEY``, ``MEMOAIR_PROJECT_ID``, ``MEMOAIR_AGENT_ID``, ``MEMOAIR_USER_ID``,
        ``MEMOAIR_BASE_URL`` (empty means no cloud) and ``MEMOAIR_ORG_ONLY`` (``1`` or ``0``), unless ``agent=`` is
        passed.

        Args:
            **overrides: Arguments of the constructor, which take precedence over the environment.

        Returns:
            The agent.

        Raises:
            ValueError: If required variables are missing (the message names all of them) or a value is invalid.
        """
        arguments = read_environment(overrides)
        if overrides.get("agent") is None and (missing := find_missing(arguments, _REQUIRED_ARGUMENTS)):
            raise ValueError(f"{', '.join(f'MEMOAIR_{name.upper()}' for name in missing)} must be set")
        return cls(**arguments)

    # Hooks that LiveKit calls

    async def on_enter(self) -> None:
        """Open the memory and wait until it is ready.

        LiveKit does not wait for this hook: what is said in the meantime is recalled for and saved as well. The memory
        opens in the background, so a subclass whose own `on_enter` greets immediately is not delayed, whether or not it
        calls this one.
        """
        enter(self)
        with log_failures("enter_failed"):
            await self._memoair_apply_prompt()
            if self._memoair_memory is not None:
                await self._memoair_memory.wait_opened()

    async def prepare_memory(self) -> None:
        """Load the caller's memory before the session starts, and brief a speech model with it.

        A speech model that accepts no other instructions while it runs needs this: nothing can be recalled for its
        turns. It learns who the caller is and what was said in earlier calls, and gets the tool ``search_memory``.
        An agent that is not started afterwards needs `on_exit`.
        """
        with log_failures("prepare_failed"):
            if self._memoair_ensure_memory() and self._memoair_memory is not None:
                await self._memoair_apply_prompt()
                model = find_model(self)
                # The model of a session that has not started is unknown.
                await self._memoair_start(model, is_speech=model is None or is_speech_model(model))
                await self._memoair_memory.wait_opened()

    async def on_user_turn_completed(self, turn_ctx: llm.ChatContext, new_message: llm.ChatMessage) -> None:
        """Recall for the caller's message and insert the result before it, for this turn only.

        If an answer to the same words is already being generated (preemptive generation), it already has the recalled
        text. In that case the context stays unchanged, because LiveKit would otherwise discard that answer.

        Args:
            turn_ctx: The context of this turn; changed in place.
            new_message: What the caller has said.
        """
        with log_failures("recall_failed"):
            if not self._memoair_ensure_memory():
                return
            if self._memoair_listener is None:
                add_message(self._memoair_turn_assembler, new_message)
            else:
                self._memoair_listener.end_turn()
            await self._memoair_apply_prompt()
            # A speech model does not read the context of a turn.
            if is_speech_model(find_model(self)):
                return
            has_early_answer = self._memoair_recall_cache.has_early_answer(new_message, turn_ctx)
            context_text = await self._memoair_recall_cache.recall(new_message, turn_ctx)
            if context_text and not has_early_answer:
                insert_recall(turn_ctx, context_text, new_message, self._memoair_recall_role)

    async def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[Any], model_settings: "ModelSettings"
    ) -> AsyncGenerator[Any, None]:
        """Call the language model with the recalled text. This also covers typed input and early answers.

        Args:
            chat_ctx: The conversation. It is copied before the recalled text is inserted.
            tools: The tools that the model may call.
            model_settings: The settings of the model.

        Yields:
            The chunks of the model's answer.
        """
        with log_failures("prompt_failed"):
            chat_ctx = await self._memoair_insert_prompt(chat_ctx)
        with log_failures("recall_failed"):
            chat_ctx = await self._memoair_insert_recall(chat_ctx)
        async with aclosing(Agent.default.llm_node(self, chat_ctx, tools, model_settings)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def on_agent_response_completed(
        self,
        chat_ctx: llm.ChatContext,  # noqa: ARG002 - the signature of LiveKit's hooks; the message is enough
        new_message: llm.ChatMessage,
    ) -> None:
        """Save an answer with the words it answers.

        Within a session this happens automatically; calling it as well does no harm. LiveKit itself does not call it.
        An application may, with the assistant items of the event ``conversation_item_added``: each item is saved once.
        Without a session, this waits until the turn is saved.

        Args:
            chat_ctx: Not used.
            new_message: The answer. Messages of other roles are ignored.
        """
        with log_failures("keep_failed"):
            if new_message.role != "assistant" or not self._memoair_ensure_memory():
                return
            if self._memoair_listener is not None:
                self._memoair_listener.add_message(new_message)
            elif self._memoair_memory is not None:
                add_message(self._memoair_turn_assembler, new_message)
                self._memoair_turn_assembler.flush()
                await self._memoair_memory.wait_drained()

    async def on_exit(self) -> None:
        """Leave the session. Calling it again does no harm.

        While the session runs, this returns immediately: the last words arrive afterwards and are saved in the
        background.
        After the session has closed, this waits until everything is saved and the memory is closed.
        """
        with log_failures("exit_failed"):
            self._memoair_has_left = True
            listener = self._memoair_listener
            if listener is not None and not listener.is_closed:
                if self._memoair_memory is not None:
                    self._memoair_memory.release_waiters()  # LiveKit goes on only when on_enter has returned
            else:
                await self._memoair_close()
