"""The lenses of one recording or prompt as a document."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.documents.explain import EncoderLensLayer, LensLayer, LensToken, LogitLens
from otoscope.documents.lens import LensDoc, ReadToken

if TYPE_CHECKING:
    from otoscope.studies.lens import Lens

_NAMED = 60
"""Characters of a prompt that name its page."""


def lens_doc(lens: Lens) -> LensDoc:
    """What each layer knows, as a document."""
    told = lens.to_dict()
    tokens = told["tokens"]
    fields = set(LensLayer.model_fields)
    model = str(lens.record["model"])
    name = Path(lens.source).name if lens.source else " ".join(lens.text.split())[:_NAMED]
    return LensDoc(
        title=f"{name} · {model}",
        model=model,
        text=lens.text,
        is_prompt=lens.after is not None,
        duration=lens.duration,
        tokens=[
            ReadToken(index=one["token"], id=one["id"], text=one["text"], after=one.get("after"))
            for one in tokens
        ],
        logit_lens=LogitLens(
            layers=len(lens.reading.p_final),
            tokens=[
                LensToken(
                    index=one["token"],
                    saturation_layer=one["saturation_layer"],
                    layers=[
                        LensLayer.model_validate({name: layer[name] for name in fields & set(layer)})
                        for layer in one["layers"]
                    ],
                )
                for one in tokens
            ],
        ),
        encoder_lens=[
            EncoderLensLayer(
                layer=layer.layer,
                text=layer.text,
                is_final_text=layer.text == lens.text,
                type=None if layer.type is None else layer.type.value,
            )
            for layer in lens.encoder
        ],
        typed_against=lens.typed_against,  # type: ignore[arg-type]
        cautions=lens.cautions(),
        settings={
            key: value
            for key, value in lens.record["settings"].items()
            if isinstance(value, str | int | float | bool)
        },
        versions={key: str(value) for key, value in lens.record["versions"].items()},
        notes=list(told["notes"]),
    )
