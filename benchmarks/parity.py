"""Greedy token ids equal Hugging Face `generate` on every prepared recording, batched and one by one; WER beside them."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from benchmarks.figures import Figure
from benchmarks.measure import NOT_PREPARED, PREPARED

_BATCH = 16


def figures(name: str) -> tuple[Figure, ...]:
    """What a model is held to."""
    return (
        Figure(
            f"{name}: recordings with the same tokens as `generate`, batched and one by one",
            ("batched_equals_generate_batched", "single_equals_generate_single"),
            at_least="clips",
        ),
    )


def measure(name: str) -> dict[str, Any]:
    """Compare every prepared recording."""
    if not PREPARED.exists():
        return NOT_PREPARED
    import otoscope as oto
    from otoscope.corpora import read_manifest
    from otoscope.outcomes import error_rates

    model = oto.load_model(name)
    items = read_manifest(PREPARED)
    heard = [item.clip() for item in items]
    batched = list(oto.transcribe_all(model, items, batch=_BATCH))
    single = [oto.transcribe(model, item) for item in items]
    generated = {size: _generate(model, heard, size) for size in (_BATCH, 1)}
    english = [i for i, item in enumerate(items) if item.language == "en" and item.labels["kind"] == "speech"]
    spoken, written = [items[i].text or "" for i in english], [batched[i].text for i in english]
    rates = error_rates(spoken, written, "en")
    boundaries = sum(_boundary_errors(*pair) for pair in zip(spoken, written, strict=True))
    return {
        "clips": len(items),
        "batched_equals_generate_batched": _equal(batched, generated[_BATCH]),
        "batched_equals_generate_single": _equal(batched, generated[1]),
        "single_equals_generate_single": _equal(single, generated[1]),
        "generate_batched_equals_generate_single": sum(
            a == b for a, b in zip(generated[_BATCH], generated[1], strict=True)
        ),
        "english_clips": len(english),
        "english_wer": rates.wer,
        "english_wer_interval": rates.wer_interval,
        "english_wer_without_errors_of_word_boundaries": rates.wer - boundaries / rates.reference_words,
    }


def _boundary_errors(reference: str, hypothesis: str) -> int:
    """Word errors where both sides hold the same letters, as in `re record` for `rerecord`."""
    import jiwer

    from otoscope.outcomes import normaliser

    normalise = normaliser("en")
    words = jiwer.process_words(normalise(reference), normalise(hypothesis))
    said, wrote, errors = words.references[0], words.hypotheses[0], 0
    for _, run in itertools.groupby(words.alignments[0], key=lambda chunk: chunk.type == "equal"):
        chunks = list(run)
        a = said[chunks[0].ref_start_idx : chunks[-1].ref_end_idx]
        b = wrote[chunks[0].hyp_start_idx : chunks[-1].hyp_end_idx]
        if chunks[0].type != "equal" and "".join(a) == "".join(b):
            errors += max(len(a), len(b))
    return errors


def _equal(ours: list, theirs: list[list[int]]) -> int:
    return sum(a.ids == b for a, b in zip(ours, theirs, strict=True))


def _generate(model: Any, heard: list, size: int) -> list[list[int]]:
    """What `generate` writes; the encoder, the same module either way, runs once a batch rather than again for detection."""
    from transformers.modeling_outputs import BaseModelOutput

    out: list[list[int]] = []
    for i in range(0, len(heard), size):
        with torch.no_grad():
            encoded = BaseModelOutput(last_hidden_state=model.encode(model.features(heard[i : i + size])))
            rows = model.hf.generate(encoder_outputs=encoded).tolist()
        out.extend([token for token in row if token < model.end_token] for row in rows)
    return out
