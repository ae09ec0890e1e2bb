"""Which sound made each word: the account of every written token, and features of the encoder under the sound.

One pass of the decoder over the whole text serves all tokens: it is causal, so that each token's account is what a pass up to
that token would give. The encoder's output is taken from the clip that was heard; the encoder does not run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from otoscope.circuits.heard import spoken_words
from otoscope.circuits.segments import PADDING, Segments, of_words
from otoscope.circuits.speech_tracing import SpeechSettings, SpeechTracer
from otoscope.circuits.tape import frozen_norm
from otoscope.circuits.targets import Target, contrast_target, target_seeds
from otoscope.circuits.totals import Totals, totals
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.documents.base import Array
from otoscope.documents.bench import Accounts, Carried, FeatureRow, HeadShare, TokenAccount
from otoscope.errors import DictionaryError, OptionError
from otoscope.models.transcribing import frames_of
from otoscope.models.wiring import stack_wiring

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations import ActivationCache
    from otoscope.audio import Clip
    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.hearing import Heard
    from otoscope.models.transcripts import Transcript
    from otoscope.models.whisper import SpeechModel

PIECE = 0.08
"""Seconds of the pieces that words are cut into."""

_CARRIED = 2**29
"""Bytes that what each piece put into each head may take; where it would be more, words are not cut."""

HALF, _HEADS = 0.5, 3


@dataclass(frozen=True, eq=False)
class Told:
    """The decoder's pass over a whole text, and what is asked of it.

    Attributes:
        tracer: Of the whole text.
        targets: The logit of each written token.
        accounts: What goes into the document.
    """

    tracer: SpeechTracer
    targets: list[Target]
    accounts: Accounts


def sound_accounts(model: SpeechModel, clip: Clip, heard: Heard, transcript: Transcript) -> Told:
    """Where the logit of every written token comes from.

    Args:
        model: A Whisper model in float32 or float64.
        clip: The sound.
        heard: It, once it was heard.
        transcript: What was written, at least one token.

    Raises:
        OptionError: The model runs in half precision.
        ModelError: This kind of model cannot be traced.
    """
    prompt, written = transcript.prompt, transcript.ids
    ids = torch.tensor([*prompt, *written][:-1], device=model.device)
    segments = pieces_of(model, clip, transcript, len(ids))
    settings = SpeechSettings(nodes=1)
    tracer = SpeechTracer(model, heard.features, ids, segments, settings=settings, encoded=heard.encoded)
    targets = [
        contrast_target(model, tracer.tape, token, None, len(prompt) + i - 1)
        for i, token in enumerate(written)
    ]
    with torch.no_grad():
        found = totals(tracer, targets)
    return Told(tracer, targets, _accounts(found, segments, len(prompt), len(written)))


def pieces_of(model: SpeechModel, clip: Clip, transcript: Transcript, positions: int) -> Segments:
    """Words and pauses, cut into pieces of `PIECE` seconds where memory allows."""
    words = words_segments(model, clip, transcript)
    finer = words.finer(PIECE, model.frame_seconds)
    config = model.config
    taken = 4 * config.decoder_layers * positions * config.d_model * len(finer)
    return finer if taken <= _CARRIED else words


def words_segments(model: SpeechModel, clip: Clip, transcript: Transcript) -> Segments:
    """A segment for each written word, one for each pause, one for the padding."""
    words = spoken_words(transcript, clip)
    every = model.config.max_source_positions
    return of_words(words, every, frames_of(model, clip), model.frame_seconds)


def _accounts(found: Totals, segments: Segments, prompt: int, count: int) -> Accounts:
    text = torch.zeros(count, count)
    text[:, : count - 1] = found.tokens[:, prompt:]
    tokens = [
        TokenAccount(
            value=float(found.value[i]),
            sound=float(found.sound[i].sum()),
            text=float(text[i].sum()),
            prompt=float(found.tokens[i, :prompt].sum()),
            positions=float(found.positions[i]),
            biases=float(found.biases[i]),
            errors=float(found.errors[i]),
            carried=carried(found.sound[i], found.heads[i], segments),
        )
        for i in range(count)
    ]
    return Accounts(
        spans=list(segments.spans),
        sound=Array.pack(found.sound.cpu().numpy(), "f16"),
        text=Array.pack(text.numpy(), "f16"),
        tokens=tokens,
    )


def carried(sound: Tensor, heads: Tensor, segments: Segments) -> Carried | None:
    """The shortest stretch of the clip that holds at least half of what the sound said for a token.

    Args:
        sound: `(segment,)` what each segment supplied.
        heads: `(layer, head, segment)` by which head of cross-attention it came.
        segments: The segments, in the order of time.

    Returns:
        None where the sound said nothing for the token, or no stretch of the clip holds half of it.
    """
    spoke_for = sound.clamp_min(0).tolist()
    total = sum(spoke_for)
    inside = len(segments) - (segments.labels[-1] == PADDING)
    best: tuple[float, int, int] | None = None
    first, held = 0, 0.0
    for last in range(inside):
        held += spoke_for[last]
        while first < last and held - spoke_for[first] >= HALF * total:
            held -= spoke_for[first]
            first += 1
        length = segments.spans[last][1] - segments.spans[first][0]
        if total > 0 and held >= HALF * total and (best is None or length < best[0] - 1e-9):
            best = (length, first, last)
    if best is None:
        return None
    _, first, last = best
    (start, _), (_, end) = segments.spans[first], segments.spans[last]
    share = min(sum(spoke_for[first : last + 1]) / total, 1.0)
    return Carried(
        start=start, end=end, share=share, heads=_strongest(heads[..., first : last + 1].sum(dim=-1))
    )


def _strongest(brought: Tensor) -> list[HeadShare]:
    """Heads that brought most, of `(layer, head)`."""
    gains = brought.clamp_min(0)
    total, width = max(float(gains.sum()), 1e-30), gains.shape[1]
    best = gains.flatten().topk(min(_HEADS, gains.numel()))
    return [
        HeadShare(layer=at // width, head=at % width, share=min(value / total, 1.0))
        for value, at in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if value > 0
    ]


# Features under the sound ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Listening:
    """Which features of the encoder are drawn under the sound, and where they read.

    Attributes:
        dictionary: They are its.
        name: What it is called.
        asked: Layer and number of those that a person asked for.
        points: Hook point that each layer reads at.
    """

    dictionary: Dictionary
    name: str
    asked: tuple[tuple[int, int], ...]
    points: dict[int, str]

    @classmethod
    def of(
        cls,
        model: SpeechModel,
        dictionary: Dictionary | None = None,
        name: str = "neurons",
        asked: Sequence[tuple[int, int]] = (),
    ) -> Listening:
        """Features of a dictionary; None: the encoder's own neurons.

        Raises:
            DictionaryError: The dictionary does not read at the encoder's MLPs.
            OptionError: There is no such feature.
        """
        dictionary = dictionary or NeuronBasis(model, stream="encoder")
        last = dictionary.layers - 1
        for layer, feature in asked:
            if not (0 <= layer <= last and 0 <= feature < dictionary.size(layer)):
                raise OptionError(
                    f"There is no feature {layer}.{feature} in the encoder's {name}.",
                    f"Choose layers 0 to {last}; layer {last} has features 0 to {dictionary.size(last) - 1}.",
                )
        blocks = stack_wiring(model, "encoder").blocks
        layers = sorted({last, *(layer for layer, _ in asked)})
        places = {"mlp_in": lambda layer: blocks[layer].mlp.input_point}
        places["resid_mid"] = lambda layer: f"encoder_blocks.{layer}.hook_resid_mid"
        if dictionary.reads not in places:
            raise DictionaryError(
                f"The dictionary reads {dictionary.reads!r}, which is no place of the encoder's MLPs.",
                "Use a transcoder of the encoder, or its neurons.",
            )
        return cls(dictionary, name, tuple(asked), {n: places[dictionary.reads](n) for n in layers})

    def rows(
        self,
        model: SpeechModel,
        heard: Heard,
        cache: ActivationCache,
        frames: int,
        told: Told | None,
        token: int | None,
        count: int,
    ) -> list[FeatureRow]:
        """The features that a person asked for, else those of the last layer that said most for a token.

        Args:
            model: The recogniser.
            heard: The clip.
            cache: Where features read, from when it was heard.
            frames: Encoder positions that hold the clip.
            told: The decoder's pass; without it nothing says which features mattered.
            token: Which token, 0-based.
            count: Features at most.
        """
        dense = {
            layer: self._activations(layer, cache[name][0, :frames]) for layer, name in self.points.items()
        }

        def row(layer: int, feature: int, **why: float) -> FeatureRow:
            values = dense[layer][:, feature].float().cpu().numpy()
            return FeatureRow(
                layer=layer,
                feature=feature,
                dictionary=self.name,
                column_seconds=model.frame_seconds,
                values=Array.pack(values, "u8"),
                **why,  # type: ignore[arg-type]
            )

        if self.asked:
            return [row(layer, feature) for layer, feature in self.asked]
        if told is None or token is None:
            return []
        last = self.dictionary.layers - 1
        said = self._said_for(model, heard, dense[last], told, token)
        gains = said.clamp_min(0)
        best = gains.topk(min(count, len(gains)))
        total = max(float(gains.sum()), 1e-30)
        return [
            row(last, feature, token=token, share=min(gain / total, 1.0))
            for gain, feature in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            if gain > 0
        ]

    def _activations(self, layer: int, x: Tensor) -> Tensor:
        """`(frame, feature)`."""
        with torch.no_grad():
            active = self.dictionary.encode(layer, x)
        dense = x.new_zeros(len(x), self.dictionary.size(layer))
        dense[active.pos, active.feature] = active.activation
        return dense

    def _said_for(
        self, model: SpeechModel, heard: Heard, activations: Tensor, told: Told, token: int
    ) -> Tensor:
        """`(feature,)` what each feature of the last layer supplied to a token: nothing but the final norm lies between."""
        last, frames = self.dictionary.layers - 1, len(activations)
        seeds = target_seeds(told.tracer.tape, [told.targets[token]])
        adjoint = told.tracer.at_output(seeds, through=True)  # (frame, 1, d)
        wiring = stack_wiring(model, "encoder")
        norm = frozen_norm(wiring.final_norm, heard.resid_post[-1][0], heard.encoded[0])
        with torch.no_grad():
            writes = self.dictionary.decoder(last, last, None)
            return ((norm.adjoint(adjoint)[:frames, 0] @ writes.T) * activations).sum(dim=0)
