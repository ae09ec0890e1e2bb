"""Qwen2-Audio: a Whisper-like tower, pooled and projected into the text stream of a Qwen2 language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations import PointTable
from otoscope.errors import OptionError
from otoscope.models.base import Family, Model, block_points, whole
from otoscope.models.causal_lm import llama_block
from otoscope.models.whisper import audio_encoder_block

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

    from otoscope.audio import Clip

AUDIO_PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>Transcribe the speech."
"""What the model is asked where it is to write what it hears."""


def _points(config: Any) -> PointTable:
    audio, text = config.audio_config, config.text_config
    conv, frames, row = (
        ("batch", "d_model", "frame"),
        ("batch", "frame", "d_model"),
        ("batch", "pos", "d_model"),
    )
    tower = "model.audio_tower"
    points = [
        whole("audio_encoder.conv1.hook_out", f"{tower}.conv1", conv, 0, "audio_encoder"),
        whole("audio_encoder.conv2.hook_out", f"{tower}.conv2", conv, 0, "audio_encoder"),
        *block_points(audio_encoder_block(audio, "audio_encoder.blocks", f"{tower}.layers", "audio_encoder")),
        # Pooling by two comes before the final norm, so both of these have half the frames.
        whole(
            "audio_encoder.ln_final.hook_out", f"{tower}.layer_norm", frames, audio.d_model, "audio_encoder"
        ),
        whole("audio_encoder.hook_out", tower, frames, audio.d_model, "audio_encoder"),
        whole(
            "audio_projector.hook_out",
            "model.multi_modal_projector",
            frames,
            text.hidden_size,
            "audio_encoder",
        ),
        whole("embed.hook_out", "model.language_model.embed_tokens", row, text.hidden_size, "text"),
        *block_points(llama_block(text, "blocks", "model.language_model.layers", "text")),
        whole("ln_final.hook_out", "model.language_model.norm", row, text.hidden_size, "text"),
        whole("unembed.hook_out", "lm_head", ("batch", "pos", "vocab"), text.vocab_size, "text"),
    ]
    return PointTable(
        {p.name: p for p in points},
        stacks={"text": "blocks", "audio_encoder": "audio_encoder.blocks"},
        # The embedding is met in `model`, before the language model starts; audio slots may still be expanded in between.
        clocks=("model", "model.language_model"),
        layers={"text": "model.language_model.layers", "audio_encoder": f"{tower}.layers"},
    )


class AudioLanguageModel(Model):
    """Qwen2-Audio with named hook points; audio embeddings replace the audio slots of the prompt."""

    def inputs(self, clips: Sequence[Clip], prompt: str) -> dict[str, Tensor]:
        """Model inputs for clips (each at most 30 s) under one text prompt with an audio placeholder.

        Raises:
            OptionError: The model was built without a processor.
        """
        if self.processor is None:
            raise OptionError("This model has no processor.", "Pass a dict of Transformers inputs instead.")
        clips = list(clips)
        batch = self.processor(
            text=[prompt] * len(clips),
            audio=[c.samples for c in clips],
            sampling_rate=16000,
            return_tensors="pt",
            padding=True,
        )
        return {
            k: v.to(self.device, self.dtype) if torch.is_floating_point(v) else v.to(self.device)
            for k, v in batch.items()
        }

    def forward(self, inputs: Any) -> Any:
        """Run the model on a dict of Transformers inputs; no cache is kept."""
        return self.hf(**({"use_cache": False} | dict(inputs)))

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits of a text residual stream `(..., d_model)` -> `(..., vocab)`."""
        return self.hf.lm_head(self.hf.model.language_model.norm(residual))  # type: ignore[operator]

    def audio_embeddings(self, residual: Tensor) -> Tensor:
        """What the text model would receive from a tower layer: pool by two, then norm, then projector (in this order).

        Args:
            residual: `(batch, frame, d_audio)`, 20 ms a frame.

        Returns:
            `(batch, frame / 2, d_model)`, 40 ms a position.
        """
        tower = self.hf.model.audio_tower
        pooled = tower.avg_pooler(residual.transpose(1, 2)).transpose(1, 2)  # type: ignore[operator,union-attr]
        return self.hf.model.multi_modal_projector(tower.layer_norm(pooled))  # type: ignore[operator,union-attr]


def _load_processor(path: str | Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def _tiny(model_type: str) -> PreTrainedConfig:
    from transformers import Qwen2AudioConfig

    audio = {
        "model_type": "qwen2_audio_encoder", "num_mel_bins": 16, "d_model": 40, "encoder_layers": 3, "encoder_attention_heads": 4,
        "encoder_ffn_dim": 56, "max_source_positions": 50,
    }  # fmt: skip
    text = {
        "model_type": "qwen2", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    return Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=90)


FAMILY = Family(
    "qwen2_audio",
    ("qwen2_audio",),
    "Qwen2AudioForConditionalGeneration",
    _points,
    AudioLanguageModel,
    _load_processor,
    _tiny,
)
