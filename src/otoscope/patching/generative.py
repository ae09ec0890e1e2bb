"""Writing again under a patch: many patches of many clips as rows of one batch.

The encoder runs once a clip; rows whose encoder is patched begin at the layer of the patch. Rows of one clip share its
cross-attention keys and values, rows that have finished leave, and a change that starts later than the text's beginning shares
the prefix that was written before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from otoscope.errors import OptionError
from otoscope.models.decoding import Decoded, DecoderSession, batches, decode
from otoscope.models.hearing import Heard
from otoscope.patching.changes import Change, Patcher

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.transcripts import DecodeOptions
    from otoscope.models.whisper import SpeechModel


@dataclass(frozen=True)
class Row:
    """One text to write.

    Attributes:
        clip: Which clip it hears.
        change: What is done meanwhile; None: nothing.
    """

    clip: int
    change: Change | None = None


class TwinSession(DecoderSession):
    """A session whose rows each have a twin that is given the same tokens and hears the reference sound.

    Args:
        model: The recogniser.
        encoded: What the rows hear `(clip, frame, d_model)`.
        clip_of_row: Which clip each row hears; None: row i hears clip i.
        reference: What the twins hear, in the same order.
        patcher: Takes the twins' activations.
    """

    def __init__(
        self,
        model: SpeechModel,
        encoded: Tensor,
        clip_of_row: Sequence[int] | None,
        reference: Tensor,
        patcher: Patcher,
    ) -> None:
        super().__init__(model, encoded, clip_of_row)
        self.twin = DecoderSession(model, reference, clip_of_row)
        self.patcher = patcher

    def read(self, tokens: Tensor) -> Tensor:
        """See `DecoderSession.read`; the twins read first."""
        with self.patcher.listening():
            self.twin.read(tokens)
        return super().read(tokens)

    def keep(self, local: Sequence[int]) -> None:
        """Go on with these rows and their twins."""
        self.twin.keep(local)
        super().keep(local)

    def rewind(self) -> None:
        """Forget every token."""
        self.twin.rewind()
        super().rewind()


def write_rows(
    model: SpeechModel,
    heard: Sequence[Heard],
    rows: Sequence[Row],
    prompts: Tensor,
    options: DecodeOptions,
    elsewhere: Sequence[Heard] | None = None,
    prefix: Sequence[int] = (),
) -> list[Decoded]:
    """Write the text of every row under its own change, in one batch.

    Args:
        model: The recogniser.
        heard: The clips.
        rows: What to write. All changes have the same reference.
        prompts: Prompt ids `(row, pos)`.
        options: How to decode.
        elsewhere: The reference sound of each clip; needed where the reference is one that is heard.
        prefix: Tokens that are given to every row before it writes on: those that no change reaches.

    Returns:
        One result a row; `ids` begin with the prefix, the other fields with what was written after it.

    Raises:
        OptionError: References differ, or one that is heard was not heard.
    """
    patcher = Patcher(model, [row.change for row in rows], prompts.shape[1])
    if patcher.reference.is_heard and elsewhere is None:
        raise OptionError("Nobody hears the reference.", "Give what the second copy hears as `elsewhere`.")
    with torch.no_grad():
        encoded, clip_of_row = _encoded(model, heard, rows, elsewhere, patcher)
        given = torch.tensor(list(prefix), dtype=torch.long, device=prompts.device).expand(len(rows), -1)
        with model.hooks(patcher.hooks("decoder")):
            session = _session(model, encoded, clip_of_row, rows, elsewhere, patcher)
            asked = torch.cat([prompts, given], dim=1)
            decoded = decode(model, session, asked, options, written=len(prefix))
    length = prompts.shape[1]
    return [replace(d, prompt=d.prompt[:length], ids=[*prefix, *d.ids]) for d in decoded]


def _session(
    model: SpeechModel,
    encoded: Tensor,
    clip_of_row: list[int] | None,
    rows: Sequence[Row],
    elsewhere: Sequence[Heard] | None,
    patcher: Patcher,
) -> DecoderSession:
    if elsewhere is None or not patcher.hooks("decoder"):
        return DecoderSession(model, encoded, clip_of_row)
    clips = {row.clip for row in rows}
    if clip_of_row is not None and len(clips) == 1:
        return TwinSession(model, encoded, clip_of_row, elsewhere[clips.pop()].encoded, patcher)
    reference = torch.cat([elsewhere[row.clip].encoded for row in rows])
    own = encoded if clip_of_row is None else encoded[clip_of_row]
    return TwinSession(model, own, None, reference, patcher)


def _encoded(
    model: SpeechModel,
    heard: Sequence[Heard],
    rows: Sequence[Row],
    elsewhere: Sequence[Heard] | None,
    patcher: Patcher,
) -> tuple[Tensor, list[int] | None]:
    """Encoder output of every clip or row, and which of them each row hears (None: row i its own)."""
    points = [name for name, _ in patcher.hooks("encoder")]
    clips = sorted({row.clip for row in rows})
    if not points:
        return torch.cat([heard[c].encoded for c in clips]), [clips.index(row.clip) for row in rows]
    out: dict[int, Tensor] = {}
    with model.hooks(patcher.hooks("encoder")):
        for clip in clips:
            of_clip = [i for i, row in enumerate(rows) if row.clip == clip]
            if elsewhere is not None:
                with patcher.listening():
                    first = min(model.points[name].layer or 0 for name in points)
                    elsewhere[clip].audio.run(first, 1)
            out |= _patched_encodings(model, heard[clip], rows, of_clip)
    return torch.cat([out[i] for i in range(len(rows))]), None


def _patched_encodings(
    model: SpeechModel, heard: Heard, rows: Sequence[Row], of_clip: Sequence[int]
) -> dict[int, Tensor]:
    """Encoder output `(1, frame, d_model)` of rows of one clip; rows that begin at the same layer run together."""
    by_layer: dict[int | None, list[int]] = {}
    for i in of_clip:
        by_layer.setdefault(_first_encoder_layer(rows[i].change), []).append(i)
    out: dict[int, Tensor] = {}
    for layer, together in by_layer.items():
        if layer is None:
            out |= dict.fromkeys(together, heard.encoded)
            continue
        with model.rows(together):
            normed = model.normed(heard.audio.run(layer, len(together)))
        out |= dict(zip(together, normed.split(1), strict=True))
    return out


def _first_encoder_layer(change: Change | None) -> int | None:
    return min((c.layer for c in change.components if c.stack == "encoder"), default=None) if change else None


def write_changes(
    model: SpeechModel,
    heard: Heard,
    changes: Sequence[Change],
    prompt: Sequence[int],
    options: DecodeOptions,
    elsewhere: Heard | None = None,
    written: Sequence[int] = (),
    batch: int = 16,
) -> Iterable[tuple[int, Decoded]]:
    """Write one clip again under each of many changes, batch by batch.

    Changes of one stack and start ride together, encoder changes sorted by layer, so that as little as possible is computed
    twice.

    Args:
        model: The recogniser.
        heard: The clip.
        changes: The changes, all with the same reference.
        prompt: Prompt ids.
        options: How to decode.
        elsewhere: The reference sound, where it is one that is heard.
        written: What was written without a change: changes with a `start` go on from it.
        batch: Changes at once.

    Yields:
        Number of the change, and what was written, in the order of the work.
    """
    order = sorted(range(len(changes)), key=lambda i: (changes[i].start, *_place(changes[i])))
    groups: dict[tuple, list[int]] = {}
    for i in order:
        groups.setdefault((changes[i].start, _first_encoder_layer(changes[i]) is None), []).append(i)
    prompts = torch.tensor([list(prompt)], device=model.device)
    for (start, _), members in groups.items():
        for chunk in batches(members, batch):
            rows = [Row(0, changes[i]) for i in chunk]
            decoded = write_rows(
                model,
                [heard],
                rows,
                prompts.expand(len(chunk), -1),
                options,
                None if elsewhere is None else [elsewhere],
                list(written[:start]),
            )
            yield from zip(chunk, decoded, strict=True)


def _place(change: Change) -> tuple:
    """Sorts by first encoder layer; without one, as given."""
    layer = _first_encoder_layer(change)
    return (0, -1) if layer is None else (1, layer)
