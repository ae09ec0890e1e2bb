"""An environment for each peer: `python -m benchmarks.peers.environments nnsight` builds one, once.

An environment sees the packages of the interpreter that builds it, so that torch, which is most of any of them, is there once
and is the same build on both sides. What a peer needs in another version is installed in its own environment and comes first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(os.environ.get("OTOSCOPE_PEERS", Path(__file__).parents[2] / ".venv" / "peers"))


class NotInstalledError(Exception):
    """A peer cannot be had on this machine; says why."""


@dataclass(frozen=True)
class Environment:
    """What a peer needs.

    Attributes:
        megabytes: About what is installed beside the packages that are there already.
        packages: Requirements, with all that they require.
        alone: Requirements without what they require: what that is must be in `packages`.
    """

    megabytes: int
    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What tells an environment from one that was built for other requirements or on other packages."""
        return "\n".join((*self.packages, *self.alone, sysconfig.get_path("purelib")))


ENVIRONMENTS = {
    "circuit_tracer": Environment(310, ("circuit-tracer==0.5.0", "transformers==4.57.3")),
    "faster_whisper": Environment(30, ("faster-whisper==1.2.1",)),
    "nnsight": Environment(50, ("nnsight==0.8.1",)),
    # Without triton, which it asks for and which a CPU cannot use (700 MB).
    "openai_whisper": Environment(
        250, ("numba==0.68.1", "tiktoken==0.14.0", "more-itertools"), ("openai-whisper==20250625",)
    ),
    "sae_lens": Environment(310, ("sae-lens==6.54.12",)),
    "sparsify": Environment(40, ("eai-sparsify==1.3.3",)),
    "transformer_lens": Environment(140, ("transformer-lens==4.3.0",)),
}


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, built now if it is not there.

    Raises:
        NotInstalledError: It could not be built.
    """
    folder, wanted = FOLDER / peer, ENVIRONMENTS[peer]
    python, done = folder / "bin/python", folder / "built"
    if done.exists() and done.read_text() == wanted.key:
        return python
    print(f"Installing {peer} (about {wanted.megabytes} MB) in {folder}", file=sys.stderr, flush=True)
    _run(peer, sys.executable, "-m", "venv", "--clear", folder)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for packages, more in ((wanted.packages, ()), (wanted.alone, ("--no-deps",))):
        if packages:
            _run(peer, python, "-m", "pip", "install", "--quiet", *more, *packages)
    done.write_text(wanted.key)
    return python


def _run(peer: str, *command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotInstalledError(f"{peer} could not be installed: {lines[-1]}")


if __name__ == "__main__":
    for name in sys.argv[1:] or ENVIRONMENTS:
        print(python_of(name))
