"""What the untouched model writes for a discovery corpus, kept part by part in a run's directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from otoscope.mending.lessons import HeardItem, alike_first, write_heard
from otoscope.models.decoding import batches
from otoscope.progress import track
from otoscope.runs import Run

if TYPE_CHECKING:
    from otoscope.models.whisper import SpeechModel

PART = "baseline"
_SHARD = 16  # recordings a part, whatever the batch, so that a job may go on with another


class Baseline(NamedTuple):
    """Ids that were written for a recording.

    Attributes:
        prompt: The prompt.
        ids: What follows it, without the end token.
    """

    prompt: list[int]
    ids: list[int]


def baseline(
    model: SpeechModel, heard: Sequence[HeardItem], max_tokens: int, batch: int | None, run: Run
) -> list[Baseline]:
    """Write every recording once; a job that was stopped goes on where it was.

    Args:
        model: The untouched model.
        heard: The recordings.
        max_tokens: Tokens written at most.
        batch: Recordings at once.
        run: Where the parts are kept.
    """
    import pandas as pd

    with track("Writing without a repair", len(heard), "recordings") as task:
        for number, chunk in enumerate(batches(alike_first(heard), _SHARD)):
            if not run.has_part(PART, number):
                decoded = write_heard(model, [heard[i] for i in chunk], max_tokens, batch)
                rows = [(i, d.prompt, d.ids) for i, d in zip(chunk, decoded, strict=True)]
                run.write_part(PART, number, pd.DataFrame(rows, columns=["recording", "prompt", "ids"]))
            task.advance(len(chunk))
    table = run.table(PART)
    found = {
        int(i): Baseline([int(token) for token in prompt], [int(token) for token in ids])
        for i, prompt, ids in zip(table["recording"], table["prompt"], table["ids"], strict=True)
    }
    return [found[i] for i in range(len(heard))]
