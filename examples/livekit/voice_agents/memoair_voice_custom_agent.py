"""Memory in an agent of your own, with ``MemoAirVoiceClient`` alone: one client per process, one user per call.

Without the LiveKit code, what remains is ``search_memory`` before the answer and ``save_response`` after it. This works
in any framework that has these two moments (Pipecat, Vapi, Retell, a WebRTC bridge). For LiveKit, ``memoair_agent.py``
is shorter and also handles typed input, tool calls, early answers and hang-ups.

    pip install '.[livekit]'   # in the root of the checkout
    export MEMOAIR_API_KEY=... MEMOAIR_PROJECT_ID=... MEMOAIR_AGENT_ID=...
    python memoair_voice_custom_agent.py dev
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from livekit.agents import Agent, AgentSession, JobContext, WorkerOptions, cli, llm

from memoair_voice import MemoAirVoiceClient, MemoAirVoiceMemoryError
from memoair_voice.integration import fence_text

INSTRUCTIONS = "You are the returns concierge of a shoe shop. Answer in one or two spoken sentences."


def make_client(**options: Any) -> MemoAirVoiceClient:
    """Create the client of this process, which serves all callers."""
    return MemoAirVoiceClient(
        api_key=os.environ["MEMOAIR_API_KEY"],
        project_id=os.environ["MEMOAIR_PROJECT_ID"],
        agent_id=os.environ["MEMOAIR_AGENT_ID"],
        **options,
    )


class RememberingAgent(Agent):
    """An agent that recalls before each answer and saves each turn of one call."""

    def __init__(self, client: MemoAirVoiceClient, user: Mapping[str, Any], call_id: str | None = None) -> None:
        super().__init__(instructions=INSTRUCTIONS)
        self.client = client
        self.user = user
        self.call_id = call_id

    async def on_user_turn_completed(self, turn_ctx: llm.ChatContext, new_message: llm.ChatMessage) -> None:
        """Recall before the answer, and add the result to the context of this turn."""
        try:
            recall = await self.client.search_memory(
                new_message.text_content or "", user=self.user, session_id=self.call_id, timeout_ms=250
            )
        except MemoAirVoiceMemoryError:  # the pool is full: continue without memory
            return
        if recall.contextText:
            turn_ctx.add_message(
                role="system",
                content=fence_text(recall.contextText),
                created_at=new_message.created_at - 1e-6,  # LiveKit sorts by time: right before the caller's message
            )

    async def save_turn(self, user_text: str, reply: llm.ChatMessage) -> None:
        """Save the turn after the answer, with the part of it that the caller heard."""
        await self.client.save_response(
            user_text=user_text,
            assistant_text=reply.text_content or "",
            user=self.user,
            session_id=self.call_id,
            turn_id=reply.id,
            metadata={"framework": "livekit", "interrupted": reply.interrupted},
        )


async def serve(session: AgentSession[None], agent: RememberingAgent, **start_options: Any) -> None:
    """Start the session, and save each answer with the words that it answers."""
    unanswered: list[str] = []
    save_tasks: set[asyncio.Task[None]] = set()  # asyncio keeps only weak references to tasks

    @session.on("conversation_item_added")
    def on_item(event: Any) -> None:
        item = event.item
        if not isinstance(item, llm.ChatMessage):  # a handoff has no role
            return
        if item.role == "user":
            unanswered.append(item.text_content or "")
        elif item.role == "assistant":
            task = asyncio.create_task(agent.save_turn("\n".join(unanswered), item))
            save_tasks.add(task)
            task.add_done_callback(save_tasks.discard)
            unanswered.clear()

    await session.start(agent=agent, **start_options)


async def entrypoint(ctx: JobContext) -> None:
    """Serve one call."""
    await ctx.connect()
    caller = await ctx.wait_for_participant()
    client = make_client()
    user = {"id": caller.identity, "name": caller.name, "metadata": {"source": "voice"}}
    call_id = ctx.job.id  # the caller who rings back has another job

    async def hang_up() -> None:
        await client.end_call(user=user, session_id=call_id)
        await client.aclose()

    ctx.add_shutdown_callback(hang_up)
    await client.load_index(user=user, session_id=call_id)  # start the runtime and load the caller's memory
    session: AgentSession[None] = AgentSession(stt="deepgram/nova-3", llm="openai/gpt-4.1-mini", tts="cartesia/sonic-3")
    await serve(session, RememberingAgent(client, user, call_id), room=ctx.room)
    session.generate_reply(instructions="Greet the caller.")


if __name__ == "__main__":
    cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint))
