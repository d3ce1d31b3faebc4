"""A worker of the broker without AiiDA: its processes are rows, and what it does to them is written down.

A process writes a line to `wrote` every few milliseconds until the test lets it end (a row in `may_end`). The session
it writes by stands for AiiDA's: named as a worker's, asked whether it is fenced, and its loss is the end.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import Future
from typing import Any

import psycopg

from aiida_byoc.brokers import worker
from aiida_byoc.brokers.communicator import PostgresCommunicator
from aiida_byoc.database.connection import connect

PAUSE_SECONDS = 0.02


def main() -> None:
    storage = json.loads(sys.argv[1])
    slots = int(sys.argv[2])
    communicator = PostgresCommunicator(
        lambda: connect(storage, application="broker"), joined=lambda: None, slots=slots
    )

    def begin(_: Any, task: dict[str, Any]) -> Future[Any]:
        outcome: Future[Any] = Future()
        pk = task["args"]["pid"]
        threading.Thread(target=process, args=(storage, pk, outcome), daemon=True).start()
        return outcome

    communicator.add_task_subscriber(begin)
    print(worker.me(), flush=True)
    sys.stdin.read()  # until the test closes it
    communicator.close()


def process(storage: dict[str, Any], pk: int, outcome: Future[Any]) -> None:
    try:
        with connect(storage, application=f"worker-{worker.me()}") as session:
            worker.check(session)
            while True:
                session.execute(
                    "INSERT INTO wrote (process_pk, worker_id) VALUES (%s, %s)", (pk, worker.me())
                )
                if session.execute("SELECT 1 FROM may_end WHERE process_pk = %s", (pk,)).fetchone():
                    break
                time.sleep(PAUSE_SECONDS)
            session.execute(
                'UPDATE db_dbnode SET attributes = \'{"process_state": "finished"}\' WHERE id = %s',
                (pk,),
            )
    except psycopg.Error:
        os._exit(70)
    outcome.set_result(True)


if __name__ == "__main__":
    main()
