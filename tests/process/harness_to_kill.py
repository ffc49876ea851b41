"""A harness with two lanes that take turns until it is killed. Arguments: folder, mark, fork or no-fork, action.

An action is what a lane does in its third turn. Without one, hosts that fork get a new cell, and so a new process,
after every turn; with one, no process starts or ends once ``open`` is said.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.core.messages import Train
from harness.workers import Worker
from tests.process.small_cell import Place


def main(folder: str, mark: str, how: str, action: str) -> None:
    place = Place(Path(folder), mark)
    workers = [Worker(place.launch(fork=how == "fork")) for _ in range(2)]
    for worker in workers:
        worker.open(place.request(("train", 3, action)), 60)
    print("open", flush=True)
    while True:
        for worker in workers:
            worker.ask(Train(1), 60)
        for worker in workers if how == "fork" and action == "nothing" else ():
            worker.finish(60)
            worker.open(place.request(("train", 3, action)), 60)


if __name__ == "__main__":
    main(*sys.argv[1:])
