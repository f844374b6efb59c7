"""A LiveKit worker with memory: the ready-made agent, without further wiring.

pip install . ./integrations/livekit   # in the root of the checkout
export MEMOAIR_API_KEY=... MEMOAIR_PROJECT_ID=... MEMOAIR_AGENT_ID=...   # MEMOAIR_BASE_URL= means no cloud
export LIVEKIT_URL=... LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=...
python memoair_agent.py dev
"""

from typing import Any

from livekit.agents import AgentSession, JobContext, WorkerOptions, cli
from memoair_livekit import MemoAirLiveKitAgent

INSTRUCTIONS = "You are the returns concierge of a shoe shop. Answer in one or two spoken sentences."


def make_agent(user_id: str, **options: Any) -> MemoAirLiveKitAgent:
    """Create the agent of one call for a caller. Everything else comes from the environment."""
    return MemoAirLiveKitAgent.from_env(user_id=user_id, instructions=INSTRUCTIONS, **options)


async def entrypoint(ctx: JobContext) -> None:
    """Serve one call."""
    await ctx.connect()
    caller = await ctx.wait_for_participant()
    session: AgentSession[None] = AgentSession(stt="deepgram/nova-3", llm="openai/gpt-4.1-mini", tts="cartesia/sonic-3")
    # The agent opens the memory, recalls before each answer, saves each turn, and closes with the session.
    await session.start(agent=make_agent(caller.identity, name=caller.name), room=ctx.room)
    session.generate_reply(instructions="Greet the caller.")


if __name__ == "__main__":
    cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint))
