"""A LiveKit agent that remembers who calls: the drop-in, and nothing else to wire.

pip install memoair-livekit
export MEMOAIR_API_KEY=... MEMOAIR_PROJECT_ID=... MEMOAIR_AGENT_ID=...   # MEMOAIR_BASE_URL= is no cloud
export LIVEKIT_URL=... LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=...
python memoair_agent.py dev
"""

from typing import Any

from livekit.agents import AgentSession, JobContext, WorkerOptions, cli
from memoair_livekit import MemoAirLiveKitAgent

INSTRUCTIONS = "You are the returns concierge of a shoe shop. Answer in one or two spoken sentences."


def make_agent(user_id: str, **options: Any) -> MemoAirLiveKitAgent:
    """The agent of one call; whom it remembers is said here, all else by the environment."""
    return MemoAirLiveKitAgent.from_env(user_id=user_id, instructions=INSTRUCTIONS, **options)


async def entrypoint(ctx: JobContext) -> None:
    """Serve one call."""
    await ctx.connect()
    caller = await ctx.wait_for_participant()
    session: AgentSession[None] = AgentSession(stt="deepgram/nova-3", llm="openai/gpt-4.1-mini", tts="cartesia/sonic-3")
    # Opens the memory when the caller is there, recalls before each answer, keeps each turn, closes with the session.
    await session.start(agent=make_agent(caller.identity), room=ctx.room)
    session.generate_reply(instructions="Greet the caller.")


if __name__ == "__main__":
    cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint))
