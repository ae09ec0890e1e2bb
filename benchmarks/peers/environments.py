"""An environment for each peer: `python -m benchmarks.peers.environments circuit_tracer` builds one, once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("OTOSCOPE_PEERS", Path(__file__).parents[2] / ".venv" / "peers"))

REQUIREMENTS = {
    "circuit_tracer": ["torch==2.13.0", "circuit-tracer==0.5.0", "transformers==4.57.3"],
    "sae_lens": ["torch==2.13.0", "sae-lens==6.54.12"],
    "sparsify": ["torch==2.13.0", "eai-sparsify==1.3.3"],
}
"""What each environment holds; everything else as these ask for."""


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, built now if it is not there."""
    folder = FOLDER / peer
    done = folder / "built"
    if not done.exists() or done.read_text() != "\n".join(REQUIREMENTS[peer]):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(
            [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]], check=True
        )
        done.write_text("\n".join(REQUIREMENTS[peer]))
    return folder / "bin/python"


if __name__ == "__main__":
    for name in sys.argv[1:] or REQUIREMENTS:
        print(python_of(name))
