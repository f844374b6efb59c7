"""Write the files of a release: an agent machine's storage root, a cloud's database and files, and an import state.

    python tools/make_release_data.py OUT.tar.xz

Run it in the environment of the release, before the next release changes anything. The test
``tests/e2e/test_earlier_data.py`` opens the archive with the present code.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import urllib3

from memoair_voice_sync import MemoAirVoiceClientSync

# A machine's storage belongs to the cloud at one address, so the test serves the cloud at the same one.
HOST, PORT = "127.88.40.14", 20567
URL = f"http://{HOST}:{PORT}"
MEMOAIR = Path(sys.executable).parent / "memoair"
ADA = {"id": "caller/ada ü", "name": "Ada", "metadata": {"plan": "premium"}}
BOB = {"id": "caller_bob", "name": "Bob"}
# Enough turns for the memory to write an index file.
OLD_TURNS = 205
DOCUMENTS = [
    ("returns", "Returns are accepted within 30 days with a receipt.", "returns"),
    ("boots", "Boots come back in their original box only.", "returns"),
    ("express", "Express ships in one to two business days.", "shipping"),
]


def main() -> None:
    """Make the data and write the archive."""
    parser = argparse.ArgumentParser(description="Write the files that this release keeps on disk.")
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        os.environ["HOME"] = work
        data = Path(work, "data")
        data.mkdir()
        _make_data(data)
        with tarfile.open(out, "w:xz") as archive:
            archive.add(data, "data", filter=_strip_owner)
    print(f"{out}: {out.stat().st_size} bytes")


def _strip_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _make_data(data: Path) -> None:
    database = f"sqlite:///{data / 'cloud.db'}"
    output = _run_memoair("cloud", "init", "--database-url", database, "--account", "Fundamento", "--json")
    account = {"url": URL, "apiKey": json.loads(output)["apiKey"]}
    with _run_cloud(data, database):
        account["projectId"] = _post(account, "/v1/projects", name="Acme", slug="acme")["id"]
        agents = f"/v1/projects/{account['projectId']}/agents"
        account["agentId"] = _post(account, agents, name="Returns", agentType="voice")["id"]
        _make_calls(data, account)
    with _make_client(data, account) as client:  # the cloud is down
        client.load_index(user=BOB)
        client.save_response(
            user=BOB,
            user_text="The cloud is away, and the word is quince.",
            assistant_text="Noted.",
            turn_id="turn-away",
        )
    with _run_cloud(data, database):
        _import_calls(data, account)
    with closing(sqlite3.connect(data / "cloud.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
    (data / "about.json").write_text(json.dumps(account))


def _make_calls(data: Path, account: dict[str, str]) -> None:
    with _make_client(data, account) as client:
        client.create_index(
            "faq", [{"id": id_, "text": text, "metadata": {"topic": topic}} for id_, text, topic in DOCUMENTS]
        )
        client.load_index(user=ADA)
        client.save_response(
            user=ADA, user_text="I'm allergic to strapping tape.", assistant_text="I will note that.", turn_id="turn-1"
        )
        client.save_response(
            user=ADA,
            user_text="The boots I ordered are blue.",
            assistant_text="Thank you, I can see the blue boots here.",
            turn_id="turn-2",
            metadata={"interrupted": True, "heard": "Thank you, I can see"},
        )
        client.import_call(user=ADA, session_id="call-2025-11-03", turns=[_make_old_turn(n) for n in range(OLD_TURNS)])
        client.load_index(user=BOB)
        client.save_response(
            user=BOB, user_text="Please call me Bobby.", assistant_text="Of course, Bobby.", turn_id="turn-1"
        )
    with _make_client(data, account) as client:
        _wait_for(lambda: client.list_memories(user=ADA) and client.list_memories(user=BOB))
        client.load_index(user=ADA)
        client.load_index(user=BOB)
        folder = data / "storage" / account["projectId"]
        _wait_for(lambda: list(folder.rglob("permanent-*.index")) and list(folder.glob("org-cloud-*.index")))


def _make_old_turn(number: int) -> dict[str, Any]:
    return {
        "turn_id": f"month-{number}",
        "user_text": f"In month {number} I asked about parcel number {7000 + number}.",
        "assistant_text": f"Parcel {7000 + number} went out on day {number % 28 + 1}.",
        "metadata": {"occurredAt": "2025-11-03T09:30:00Z"},
    }


def _import_calls(data: Path, account: dict[str, str]) -> None:
    calls = data / "calls.jsonl"
    lines = [
        {"userId": "caller_cleo", "sessionId": "imported-1", "turnId": f"t{number}", "assistantText": "Fine."}
        | {"userText": f"Line {number} about the green lamp.", "occurredAt": f"2025-12-01T10:0{number}:00Z"}
        for number in range(5)
    ]
    calls.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _run_memoair(
        *("import", calls, "--state", data / "import-state.json", "--json"),
        MEMOAIR_API_KEY=account["apiKey"],
        MEMOAIR_PROJECT_ID=account["projectId"],
        MEMOAIR_AGENT_ID=account["agentId"],
        MEMOAIR_BASE_URL=URL,
    )


def _make_client(data: Path, account: dict[str, str]) -> MemoAirVoiceClientSync:
    return MemoAirVoiceClientSync(
        api_key=account["apiKey"],
        project_id=account["projectId"],
        agent_id=account["agentId"],
        cloud_base_url=URL,
        storage_root=str(data / "storage"),
    )


def _run_memoair(*arguments: str | Path, **variables: str) -> str:
    command, environment = [MEMOAIR, *arguments], os.environ | variables
    completed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    return completed.stdout


@contextmanager
def _run_cloud(data: Path, database: str) -> Iterator[None]:
    address = ("--host", HOST, "--port", str(PORT))
    stores = ("--database-url", database, "--blob-url", (data / "blobs").as_uri())
    command = [MEMOAIR, "cloud", "serve", *address, *stores]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own program
    try:
        _wait_for(_is_ready)
        yield
    finally:
        server.terminate()
        server.wait()


def _is_ready() -> bool:
    try:
        return urllib3.request("GET", f"{URL}/readyz", retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _post(account: dict[str, str], path: str, **body: str) -> Any:
    headers = {"Authorization": f"Bearer {account['apiKey']}"}
    return urllib3.request("POST", URL + path, json=body, headers=headers).json()


def _wait_for(check: Callable[[], Any], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit(f"a condition was not met within {timeout_s:.0f} s")
        time.sleep(0.1)


if __name__ == "__main__":
    if shutil.which(MEMOAIR) is None:
        raise SystemExit(f"{MEMOAIR} is missing: run this in the environment of the release")
    main()
