"""SAELens at one training; runs in its own environment: `python sae_lens_training.py JOB.json`.

Nothing of otoscope is imported.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput

job = json.loads(Path(sys.argv[1]).read_text())
data = torch.from_numpy(np.load(job["data"]))
torch.manual_seed(0)


def trained(sparse):
    config = TopKTrainingSAEConfig(
        d_in=job["d"],
        d_sae=job["width"],
        k=job["k"],
        use_sparse_activations=sparse,
        rescale_acts_by_decoder_norm=False,
    )
    sae = TopKTrainingSAE(config)
    sae.b_dec.data = data[0].mean(0)
    optimizer = torch.optim.Adam(sae.parameters(), lr=job["lr"])
    dead = torch.zeros(job["width"], dtype=torch.bool)
    times, out, x = [], None, data[0]
    for step in range(job["warm"] + job["steps"]):
        x = data[step % len(data)]
        start = time.perf_counter()
        told = TrainStepInput(
            sae_in=x, coefficients={}, dead_neuron_mask=dead, n_training_steps=step, is_logging_step=False
        )
        out = sae.training_forward_pass(told)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    missed = (x - out.sae_out.detach()).square().sum() / (x - x.mean(0)).square().sum()
    return times[job["warm"] :], float(missed)


ways = [trained(sparse) for sparse in (False, True)]
best = min(ways, key=lambda way: sorted(way[0])[len(way[0]) // 2])
print(json.dumps({"times": best[0], "unexplained": best[1]}))
