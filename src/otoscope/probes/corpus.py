"""From a labelled corpus to probe curves: harvest, then probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.errors import OptionError
from otoscope.models.families import untrained
from otoscope.models.transcripts import DecodeOptions
from otoscope.probes.harvesting import Pools, harvest
from otoscope.probes.probing import STACKS, ProbeCurve, ProbeOptions, Site, check_labels, probe

if TYPE_CHECKING:
    from otoscope.corpora import Item
    from otoscope.models.base import Model
    from otoscope.runs import ActivationStore


def probe_corpus(
    model: Model,
    items: Sequence[Item],
    label: str,
    options: ProbeOptions | None = None,
    decoding: DecodeOptions | None = None,
    *,
    store: Path | str | None = None,
    random_model: bool = False,
    batch: int | None = None,
) -> ProbeCurve:
    """Probe every layer of a model for a label of a corpus.

    Args:
        model: A Whisper model, Qwen2-Audio or a language model (which reads the items' `text`).
        items: The corpus.
        label: What to tell.
        options: How to probe; None: the mean over the encoder's frames, or of a model without encoder its last state.
        decoding: How to decode, where a recogniser's decoder is probed.
        store: Directory of the activations; None: one in otoscope's cache, found again by all that it depends on.
        random_model: Probe the same architecture with random weights, too; it hears the corpus again.
        batch: Windows (or texts) at once.

    Raises:
        ManifestError: The labels do not allow it; see `make_task`.
        OptionError: The model has no such site, or the store belongs to something else.
        AudioError: None of the recordings can be read.
    """
    options = options or default_options(model)
    _check_site(model, options)
    _check_kind(model, items)
    check_labels(items, label, options)
    pools = pools_for(model, options)
    activations = harvest(model, items, store, pools, decoding, batch=batch)
    random = (
        _untrained(model, items, activations, pools, decoding, batch, options.seed) if random_model else None
    )
    return probe(activations, items, label, options, random=random)


def default_options(model: Model, site: Site | None = None, **given: object) -> ProbeOptions:
    """Options with the site that the model has and the pool that suits it."""
    site = site or ("encoder" if _has(model, "encoder") else "decoder")
    pool = "mean" if site == "encoder" else "end" if "decoder" in model.points.stacks else "last"
    return replace(
        ProbeOptions(site=site, pool=pool),
        **{key: value for key, value in given.items() if value is not None},
    )


def pools_for(model: Model, options: ProbeOptions) -> Pools:
    """What to harvest: all that comes free in the same pass, so that the next label finds it there."""
    frames = ("frames",) if options.pool == "frames" else ()
    speech = ("speech",) if "encoder" in model.points.stacks else ()
    encoder = ("mean", *speech, "max", "last", *frames) if _has(model, "encoder") else ()
    ends = ("end",) if "decoder" in model.points.stacks else ()
    return Pools(encoder, ("mean", "max", "last", *ends) if options.site == "decoder" else ())


def _has(model: Model, site: Site) -> bool:
    return any(stack in model.points.stacks for stack in STACKS[site])


def _check_kind(model: Model, items: Sequence[Item]) -> None:
    texts = not any(item.audio_filepath for item in items)
    if texts and _has(model, "encoder"):
        raise OptionError(
            f"{model.origin.name} listens, and these are texts.", "Use a language model for texts."
        )


def _check_site(model: Model, options: ProbeOptions) -> None:
    if not _has(model, options.site):
        raise OptionError(f"{model.origin.name} has no {options.site}.", "Use the other --site.")
    known = getattr(pools_for(model, options), options.site)
    if options.pool not in known:
        raise OptionError(
            f"The {options.site} is not pooled by {options.pool!r}.", f"Choose one of: {', '.join(known)}."
        )


def _untrained(
    model: Model,
    items: Sequence[Item],
    activations: ActivationStore,
    pools: Pools,
    decoding: DecodeOptions | None,
    batch: int | None,
    seed: int,
) -> ActivationStore:
    """Activations of the same architecture with random weights; its decoder is given the real model's texts."""
    written = activations if pools.decoder and "tokens" in activations.index else None
    path = activations.run.path.resolve()
    beside = path.with_name(f"{path.name}.random-{seed}")
    return harvest(untrained(model, seed), items, beside, pools, decoding, batch=batch, written=written)
