"""One side of a comparison: a process that loads its model once and then works when it is told to.

It runs in a peer's environment, so nothing but the standard library and NumPy is imported. A script beside this one defines
`load(job) -> {piece of work: function}` and calls `serve(load)`; `workers.Side` is the other end. Orders come line by line:

    check NAME   do it once, watched; answer with what came out (a `.npz`), the seconds and the most memory above the loaded model
    time NAME    do it; answer with the seconds it took
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np


def resident_gb():
    """Memory of the process's own; file pages are the system's."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024 / 1e9


class Watch(threading.Thread):
    """The most that was resident while it ran, in GB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.running = resident_gb(), True

    def run(self):
        """Look every 5 ms."""
        while self.running:
            self.most = max(self.most, resident_gb())
            time.sleep(0.005)


def serve(load):
    """Answer orders from standard input until it ends; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.loads(Path(sys.argv[1]).read_text())
    works = load(job)
    loaded = resident_gb()
    _say(answers, {"works": sorted(works), "versions": {name: version(name) for name in job["versions"]}})
    for line in sys.stdin:
        order, name = line.split()
        gc.collect()
        if order == "time":
            start = time.perf_counter()
            works[name]()
            _say(answers, {"seconds": time.perf_counter() - start})
        else:
            watch = Watch()
            watch.start()
            start = time.perf_counter()
            found = works[name]()
            seconds = time.perf_counter() - start
            watch.running = False
            watch.join()
            out = Path(job["folder"]) / f"{job['side']}-{name}.npz"
            np.savez(out, **{key: np.asarray(value) for key, value in found.items()})
            gb = max(0.0, watch.most - loaded)
            _say(answers, {"answer": str(out), "seconds": seconds, "gb_above_loaded": gb})


def padded(rows):
    """Token ids of different lengths as one array, filled up with -1."""
    width = max(len(row) for row in rows)
    return np.array([[*row, *[-1] * (width - len(row))] for row in rows])


def _say(answers, told):
    answers.write(json.dumps(told) + "\n")
    answers.flush()
