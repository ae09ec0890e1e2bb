"""One target under atheris: the process that `python -m fuzz` starts. Arguments are the target and libFuzzer's own."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

_COVERED = ["otoscope", "gguf", "yaml", "fuzz.targets"]
"""Packages whose branches guide the search: ours, and the parsers in Python that ours rest on."""


def main() -> None:
    """Fuzz until libFuzzer has enough."""
    name = sys.argv.pop(1)
    place = tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-")
    folder = Path(place.name)
    with atheris.instrument_imports(include=_COVERED):
        from fuzz.target import Target

        target = Target.of(name)
        for seed in target.seeds():  # modules that are imported when first used are instrumented, too
            if not target.once(seed, folder):
                raise SystemExit(f"a seed of {name} is refused")

    from fuzz.mutating import mutated

    def run(case: bytes) -> None:
        target.once(case, folder)

    def change(case: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        made = mutated(case, random) if random.random() < 0.5 else atheris.Mutate(case, most)
        return made[:most]

    atheris.Setup(sys.argv, run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
