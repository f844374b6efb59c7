"""Celery tasks with a memory. The broker and the results are files."""

import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_process_init
from servers import memory

FOLDER = Path(os.environ["CELERY_FOLDER"])
for name in ("queue", "results"):
    (FOLDER / name).mkdir(parents=True, exist_ok=True)

app = Celery("memory", broker="filesystem://", backend=f"file://{FOLDER / 'results'}")
app.conf.broker_transport_options = {
    name: str(FOLDER / "queue") for name in ("data_folder_in", "data_folder_out", "control_folder")
}


@worker_process_init.connect
def warm_up(**_: object) -> None:
    memory.client.warm_up(timeout_s=60)


@app.task
def say(user_id: str, text: str) -> tuple[int, str | None]:
    return os.getpid(), memory.say(user_id, text)


@app.task
def recall(user_id: str, query: str) -> tuple[int, str]:
    return os.getpid(), memory.recall(user_id, query)
