"""Kills every kind of long job again and again, lets it go on, and compares: `python -m tests.faults.loop --kills 56 --seed 0`.

A round is a new folder in which one job is killed up to four times and then left to end. Half of the kills fall at a random
moment, half before a random change of a file, where a half-written file could come from. Each round is compared with a run that
nothing disturbed: the same files with the same bytes, or, where a file holds measured times, the same but for those.
"""

from __future__ import annotations

import argparse
import bisect
import json
import random
import re
import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import commit
from tests.faults.jobs import LIBRARY, Job, commands, prepare
from tests.faults.killing import End, contents, run, unfinished

from otoscope.files import atomic_write

_A_ROUND = 4
_PARTS = re.compile(r"(-\d{5,}\.(parquet|safetensors)|\.flac|\.srt)$")
_MEASURED = {"tokens_per_second", "seconds_a_token", "seconds"}


@dataclass
class Account:
    """What happened to one job.

    Attributes:
        kills: Each with how it was chosen, how many of the undisturbed run's files were there, and what was half-written.
        resumes: Runs that began with what an earlier one had left.
        twice: Parts, or checkpoints, that took their final name again, though they had had it: a kill came before what makes them
            count.
        lost: Seconds of work after the last finished file, over all kills.
        rounds: Folders that were killed and then left to end.
        equal: How many of them were byte-equal, equal but for measured times, or different.
    """

    seconds: float
    times: list[float]
    kills: list[dict[str, Any]] = field(default_factory=list)
    resumes: int = 0
    twice: int = 0
    lost: float = 0.0
    rounds: int = 0
    equal: dict[str, int] = field(default_factory=dict)
    different: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def disturb(name: str, job: Job, place: Path, kills: int, rng: random.Random) -> Account:
    """Kill a job so often, in as many folders as it takes."""
    whole = place / "whole" / "run"
    undisturbed = _ended(name, run(job, whole), whole)
    account = Account(undisturbed.seconds, [seconds for seconds, _, _ in undisturbed.changes])
    while len(account.kills) < kills:
        account.rounds += 1
        folder = place / f"round-{account.rounds}" / "run"
        _round(name, job, folder, contents(whole), account, min(_A_ROUND, kills - len(account.kills)), rng)
        shutil.rmtree(folder.parent)
    return account


def _round(
    name: str,
    job: Job,
    folder: Path,
    wanted: dict[str, bytes],
    account: Account,
    kills: int,
    rng: random.Random,
) -> None:
    named: list[str] = []
    for attempt in range(kills):
        moment = len(account.kills) % 2 == 0
        share = rng.uniform(0.0, 1.0 if attempt == 0 else 0.7)  # of the work, some of which is done
        change, wait = _moment(account, share) if moment else (int(share * len(account.times)), 0.0)
        end = run(job, folder, at_change=change, wait=wait)
        account.resumes += attempt > 0
        named += end.named()
        if not end.killed:  # it was over first
            _ended(name, end, folder)
            break
        there = contents(folder).keys()
        account.lost += end.seconds - max([0.0, *(s for s, event, _ in end.changes if event == "os.rename")])
        account.kills.append(
            {"change": change, "and_seconds": round(wait, 3), "files": len(wanted.keys() & there), "of": len(wanted),
             "half_written": len(unfinished(folder))}
        )  # fmt: skip
    else:
        end = _ended(name, run(job, folder), folder)
        account.resumes += 1
        named += end.named()
    parts = [path for path in named if _PARTS.search(path)]
    account.twice += len(parts) - len(set(parts))
    account.left += unfinished(folder)
    verdict, different = compared(wanted, contents(folder))
    account.equal[verdict] = account.equal.get(verdict, 0) + 1
    account.different += different
    print(f"{name}: {len(account.kills)} kills, {verdict} {different[:3] or ''}", flush=True)


def _moment(account: Account, share: float) -> tuple[int, float]:
    """A moment of the undisturbed run, as a change of a file and the seconds after it: a busy machine does not shift it."""
    at = share * account.seconds
    change = max(0, bisect.bisect(account.times, at) - 1)
    return change, max(0.001, at - account.times[change])


def _ended(name: str, end: End, folder: Path) -> End:
    if end.code != 0:
        said = folder.with_name(f"{folder.name}.said").read_text(errors="replace")
        raise RuntimeError(f"{name} ended with {end.code}: {said[-1500:]}")
    return end


def compared(wanted: dict[str, bytes], found: dict[str, bytes]) -> tuple[str, list[str]]:
    """Whether two folders hold the same, and the files that differ."""
    odd = sorted(wanted.keys() ^ found.keys())
    odd += [
        path
        for path in wanted.keys() & found.keys()
        if _plain(path, wanted[path]) != _plain(path, found[path])
    ]
    if odd:
        return "different", odd
    return ("byte-equal" if wanted == found else "equal but for measured times"), []


def _plain(path: str, data: bytes) -> Any:
    """A file without what is measured by the clock."""
    if path.endswith(".json"):
        return _timeless(json.loads(data))
    if path.endswith(".parquet"):
        import io

        import pandas as pd

        table = pd.read_parquet(io.BytesIO(data))
        return table.drop(columns=[c for c in table if c in _MEASURED]).to_json()
    if path.endswith("trials.jsonl") or path.endswith(".log"):
        return None  # a journal tells every trial's begin and end, and every stop
    return data


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _MEASURED}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def table(accounts: dict[str, dict[str, Any]]) -> str:
    """The accounts as Markdown."""
    head = (
        "job", "kills", "before the first file", "between", "after the last file", "half-written then", "resumed",
        "files written again", "seconds lost a kill", "folders compared", "equal",
    )  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for name, told in accounts.items():
        kills = told["kills"]
        first, last = sum(k["files"] == 0 for k in kills), sum(k["files"] == k["of"] for k in kills)
        lines.append(
            (name, len(kills), first, len(kills) - first - last, last, sum(k["half_written"] for k in kills),
             told["resumes"], told["twice"], f"{told['lost'] / max(1, len(kills)):.1f} of {told['seconds']:.1f}",
             told["rounds"], ", ".join(f"{count} {verdict}" for verdict, count in told["equal"].items()))
        )  # fmt: skip
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    """Accounts of jobs that the file holds already: a loop over some jobs replaces those alone."""
    return json.loads(path.read_text(encoding="utf-8"))["jobs"] if path.exists() else {}


def _keep(path: Path, seed: int, accounts: dict[str, dict[str, Any]]) -> None:
    told = {"kills": sum(len(a["kills"]) for a in accounts.values()), "seed": seed, "jobs": accounts}
    with atomic_write(path) as file:
        json.dump(told, file, indent=1)
        file.write("\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=56, help="in all, shared out among the jobs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where the account is written")
    parser.add_argument("--at-once", type=int, default=1, help="jobs that run beside each other")
    parser.add_argument("--only", nargs="*", help="names of jobs")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        shared = Path(place) / "shared"
        shared.mkdir()
        for name, job in prepare(shared).items():
            _ended(name, run(job, shared), shared)
        jobs = {
            name: job
            for name, job in (LIBRARY | commands(shared)).items()
            if not asked.only or name in asked.only
        }
        share, rest = divmod(asked.kills, len(jobs))
        accounts = _kept(asked.json) if asked.json else {}
        writing = threading.Lock()

        def account(number: int, name: str) -> None:
            own, rng = Path(place) / name.replace(" ", "-"), random.Random(f"{asked.seed} {name}")
            code = commit()
            told = vars(disturb(name, jobs[name], own, share + (number < rest), rng))
            with writing:
                accounts[name] = {k: v for k, v in told.items() if k != "times"} | {
                    "changes": len(told["times"]),
                    "commit": code,
                }
                if asked.json:
                    _keep(asked.json, asked.seed, accounts)

        with ThreadPoolExecutor(asked.at_once) as pool:
            list(pool.map(account, range(len(jobs)), jobs))
    print(table(accounts))
    return int(any(told["different"] or told["left"] for told in accounts.values()))


if __name__ == "__main__":
    sys.exit(main())
