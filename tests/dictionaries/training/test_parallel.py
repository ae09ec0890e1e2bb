"""Two processes learn what one learns from batches of twice the size."""

from __future__ import annotations

import json
import os
import time
from itertools import islice

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.dictionaries.training.planted import Planted, config_of

from otoscope.dictionaries.training.buffer import Vectors
from otoscope.dictionaries.training.trainer import Trainer, train
from otoscope.errors import OtoscopeError, TrainingError

KINDS = [("transcoder", "topk"), ("clt", "topk"), ("sae", "jumprelu")]


def config(kind, activation, **more):
    return config_of(
        kind, activation=activation, steps=20, batch=64, calibration=128, layers=(0, 1), dtype="float64",
        decoder_start="random", dead_after=64, width=96, checkpoint_every=8, record_every=1,
        **more,
    )  # fmt: skip


def share(kind, rank, count):
    """Every batch, or this process's part of it."""
    for vectors in Planted(kind, 2, steps=20, batch=64):
        per = 64 // count
        yield Vectors(*(None if x is None else x[:, rank * per : (rank + 1) * per] for x in vectors))


def stopping(data, at):
    for number, vectors in enumerate(data):
        if number == at:
            raise InterruptedError
        yield vectors


def work(rank, folder, kinds):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for kind, activation in kinds:
        train(config(kind, activation), share(kind, rank, 2), folder / kind)
    kind, activation = kinds[0]
    for name, shard in (("killed", False), ("killed-sharded", True)):
        try:
            train(config(kind, activation, shard=shard), stopping(share(kind, rank, 2), 13), folder / name)
        except InterruptedError:
            train(config(kind, activation, shard=shard), share(kind, rank, 2), folder / name)
    held = held_by(kind, activation, rank, folder)
    (folder / f"held-{rank}").write_text(json.dumps(held))
    with pytest.raises(OtoscopeError, match="begun with k = 3"):
        train(config(*kinds[0], k=4), share(kind, rank, 2), folder / kind)
    with pytest.raises(TrainingError, match="ended at step 7"):
        train(config(*kinds[0]), islice(share(kind, rank, 2), 7 + 3 * rank), folder / "short")
    dist.barrier()
    leave_together(folder, rank)
    os._exit(0)  # gloo's threads now and then abort while they are taken down, which is none of our work


def held_by(kind, activation, rank, folder):
    """Numbers of Adam's state that this process holds after a step, and those that one process alone would."""
    trainer = Trainer(config(kind, activation, shard=True), share(kind, rank, 2), folder / f"scratch-{rank}")
    trainer.update(next(share(kind, rank, 2)))
    inner = trainer.optimizer.optim
    mine = sum(x.numel() for state in inner.state.values() for x in state.values() if x.dim())
    return mine, 2 * sum(p.numel() for p in trainer.coder.parameters())


def leave_together(folder, rank):
    """A process that goes while the other is still within the barrier takes its connection, and gloo aborts."""
    (folder / f"through-{rank}").touch()
    until = time.monotonic() + 60
    while not (folder / f"through-{1 - rank}").exists() and time.monotonic() < until:
        time.sleep(0.01)


def test_two_processes_learn_what_one_learns_from_their_batches_together(tmp_path):
    mp.spawn(work, args=(tmp_path, KINDS), nprocs=2)
    for kind, activation in KINDS:
        alone = train(config(kind, activation), share(kind, 0, 1), tmp_path / "alone" / kind)
        together = train(config(kind, activation), [], tmp_path / kind)
        for at in range(2):
            for out in alone.targets(at):
                torch.testing.assert_close(
                    together.decoder(at, out, None), alone.decoder(at, out, None), rtol=1e-7, atol=1e-9
                )
            torch.testing.assert_close(
                together.readings(at)[0].weight, alone.readings(at)[0].weight, rtol=1e-7, atol=1e-9
            )
        lines = [
            [json.loads(line) for line in (folder / kind / "loss.jsonl").read_text().splitlines()]
            for folder in (tmp_path, tmp_path / "alone")
        ]
        assert any(line["dead"] for line in lines[0])
        for a, b in zip(*lines, strict=True):
            assert a["dead"] == b["dead"]
            assert [a["loss"], a["l0"]] == pytest.approx([b["loss"], b["l0"]])
    resumed, whole = (tmp_path / name / "loss.jsonl" for name in ("killed", KINDS[0][0]))
    assert resumed.read_text() == whole.read_text()
    # Sharded, the same is learned, and the moments are shared out.
    assert (tmp_path / "killed-sharded" / "loss.jsonl").read_text() == whole.read_text()
    held = [json.loads((tmp_path / f"held-{rank}").read_text()) for rank in (0, 1)]
    assert sum(mine for mine, _ in held) == held[0][1]
    assert max(mine for mine, _ in held) < 0.7 * held[0][1]
