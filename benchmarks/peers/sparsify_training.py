"""sparsify at one training; runs in its own environment: `python sparsify_training.py JOB.json`.

Nothing of otoscope is imported.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sparsify import SparseCoder, SparseCoderConfig

job = json.loads(Path(sys.argv[1]).read_text())
data = torch.from_numpy(np.load(job["data"]))
torch.manual_seed(0)
config = SparseCoderConfig(num_latents=job["width"], k=job["k"], normalize_decoder=False)
coder = SparseCoder(job["d"], config)
coder.b_dec.data = data[0].mean(0)
optimizer = torch.optim.Adam(coder.parameters(), lr=job["lr"])
times, out = [], None
for step in range(job["warm"] + job["steps"]):
    x = data[step % len(data)]
    start = time.perf_counter()
    out = coder(x)
    out.fvu.backward()
    optimizer.step()
    optimizer.zero_grad()
    times.append(time.perf_counter() - start)
print(json.dumps({"times": times[job["warm"] :], "unexplained": float(out.fvu)}))
