"""Training of dictionaries: its dense products beside the machine's peak, and steps a second beside sparsify and SAELens.

Every side trains a TopK autoencoder of one configuration on the same vectors in a process of its own, in turns; the peers in
their own environments (`benchmarks/peers`), with their own modules and losses, and Adam of torch as they call it. None has dead
features in this time, so no auxiliary loss is computed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

CLAIM = (
    "A step of a TopK autoencoder (384 to 4,096, k 32, 2,048 vectors): dense products at 60 % or more of the measured matmul "
    "peak, and at least as many steps a second as EleutherAI's sparsify 1.3.3 and SAELens 6.54.12"
)
FIGURES = (
    Figure("TopK training: dense products, share of the matmul peak", "dense_share_of_peak", at_least=0.6),
    Figure("a step, times faster than sparsify's", "times_faster_than/sparsify", at_least=1),
    Figure("a step, times faster than SAELens'", "times_faster_than/sae_lens", at_least=1),
    *(
        Figure(
            f"variance unexplained after the same steps, {name}", f"unexplained_after_the_same_steps/{key}"
        )
        for key, name in (("otoscope", "otoscope"), ("sparsify", "sparsify"), ("sae_lens", "SAELens"))
    ),
)
JOB = {"d": 384, "width": 4096, "k": 32, "batch": 2048, "steps": 24, "warm": 6, "lr": 1e-3, "blocks": 8}
TURNS = 3

OURS = """
import json, sys, time
import numpy as np, torch
from pathlib import Path
from otoscope.dictionaries.training.buffer import Vectors
from otoscope.dictionaries.training.config import TrainConfig
from otoscope.dictionaries.training.trainer import Trainer

job = json.loads(Path(sys.argv[1]).read_text())
data = torch.from_numpy(np.load(job["data"]))
batches = [Vectors(x[None]) for x in data]
config = TrainConfig(
    kind="sae", width=job["width"], steps=10**6, k=job["k"], batch=job["batch"], lr=job["lr"], warmup=0,
    calibration=job["batch"], checkpoint_every=0,
)
trainer = Trainer(config, [batches[0]] * 2, Path(job["folder"]))
times, told = [], None
for step in range(job["warm"] + job["steps"]):
    batch = batches[step % len(batches)]
    start = time.perf_counter()
    told = trainer.update(batch)
    times.append(time.perf_counter() - start)
unexplained = 1 - told["explained_variance"]

def peak(n=4096, times=5):
    a, b = torch.randn(n, n), torch.randn(n, n)
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9

with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True, record_shapes=True) as profile:
    for step in range(5):
        trainer.update(batches[step % len(batches)])
dense = [e for e in profile.events() if e.name in ("aten::mm", "aten::addmm") and e.flops]
flops, seconds = sum(e.flops for e in dense), sum(e.self_cpu_time_total for e in dense) / 1e6
print(json.dumps({
    "times": times[job["warm"]:], "unexplained": unexplained, "peak_gflops": peak(), "dense_gflops": flops / seconds / 1e9,
    "dense_flops_a_step": flops / 5, "dense_seconds_a_step": seconds / 5, "threads": torch.get_num_threads(),
}))
"""


def run() -> dict[str, Any]:
    import numpy as np

    from benchmarks.peers.environments import NotInstalledError, python_of
    from benchmarks.peers.workers import not_measured

    here, sides = Path(__file__).parent / "peers", {"otoscope": [sys.executable, "-c", OURS]}
    try:
        for peer in ("sparsify", "sae_lens"):
            sides[peer] = [str(python_of(peer)), str(here / f"{peer}_training.py")]
    except NotInstalledError as error:
        return not_measured(error)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "vectors.npy"
        np.save(data, _planted())
        for turn in range(TURNS):
            for name, command in sides.items():
                job = Path(folder) / f"{name}-{turn}.json"
                job.write_text(
                    json.dumps({**JOB, "data": str(data), "folder": str(Path(folder) / f"{name}-{turn}")})
                )
                done = subprocess.run([*command, str(job)], capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
                found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    steps = {name: [statistics.median(told["times"]) for told in each] for name, each in found.items()}
    median = {name: statistics.median(times) for name, times in steps.items()}
    ours = found["otoscope"]
    peak = statistics.median(told["peak_gflops"] for told in ours)
    dense = statistics.median(told["dense_gflops"] for told in ours)
    ratios = {name: median[name] / median["otoscope"] for name in ("sparsify", "sae_lens")}
    return {
        "seconds_a_step": median,
        "seconds_a_step_lowest_and_highest": {name: [min(t), max(t)] for name, t in steps.items()},
        "times_faster_than": ratios,
        "unexplained_after_the_same_steps": {name: each[-1]["unexplained"] for name, each in found.items()},
        "matmul_peak_gflops": peak,
        "dense_gflops": dense,
        "dense_share_of_peak": dense / peak,
        "dense_share_of_the_step": statistics.median(t["dense_seconds_a_step"] for t in ours)
        / median["otoscope"],
        "threads": ours[0]["threads"],
    }


def _planted() -> Any:
    """Vectors `(block, n, d)`: sums of a few of 2,000 planted directions, and noise."""
    import numpy as np

    rng = np.random.default_rng(0)
    directions = rng.standard_normal((2000, JOB["d"]), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    blocks = []
    for _ in range(JOB["blocks"]):
        codes = np.zeros((JOB["batch"], 2000), dtype=np.float32)
        which = rng.integers(2000, size=(JOB["batch"], 20))
        np.put_along_axis(codes, which, rng.exponential(1.0, which.shape).astype(np.float32), axis=1)
        noise = 0.02 * rng.standard_normal((JOB["batch"], JOB["d"]), dtype=np.float32)
        blocks.append(codes @ directions + noise)
    return np.stack(blocks)
