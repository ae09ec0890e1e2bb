"""Whisper, every size, English-only and multilingual: its points, its inputs, its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations import PointTable
from otoscope.audio import Clip
from otoscope.errors import AudioError, ModelError, OptionError
from otoscope.models.base import AttentionModule, BlockSpec, Family, Model, block_points, whole

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

_FRAMES = ("batch", "frame", "d_model")
_TOKENS = ("batch", "pos", "d_model")


def audio_encoder_block(config: Any, prefix: str, layers: str, stack: str) -> BlockSpec:
    """Layout of a Whisper encoder stack; Qwen2-Audio's tower is the same."""
    return BlockSpec(
        prefix=prefix,
        layers=layers,
        count=config.encoder_layers,
        stack=stack,
        position="frame",
        heads=config.encoder_attention_heads,
        kv_heads=config.encoder_attention_heads,
        d_head=config.d_model // config.encoder_attention_heads,
        d_model=config.d_model,
        d_mlp=config.encoder_ffn_dim,
        attentions=(AttentionModule("self_attn", "attn"),),
        norms=(("ln1", "self_attn_layer_norm"), ("ln2", "final_layer_norm")),
        resid_mid="final_layer_norm",
        mlp_in="fc1",
        mlp_down="fc2",
        attn_out="self_attn",
        mlp_out="fc2",
    )


def _decoder_block(config: Any) -> BlockSpec:
    return BlockSpec(
        prefix="decoder_blocks",
        layers="model.decoder.layers",
        count=config.decoder_layers,
        stack="decoder",
        position="pos",
        heads=config.decoder_attention_heads,
        kv_heads=config.decoder_attention_heads,
        d_head=config.d_model // config.decoder_attention_heads,
        d_model=config.d_model,
        d_mlp=config.decoder_ffn_dim,
        attentions=(
            AttentionModule("self_attn", "self_attn"),
            AttentionModule("encoder_attn", "cross_attn", cross=True),
        ),
        norms=(
            ("ln1", "self_attn_layer_norm"),
            ("ln2", "encoder_attn_layer_norm"),
            ("ln3", "final_layer_norm"),
        ),
        resid_mid="encoder_attn_layer_norm",
        resid_mid_cross="final_layer_norm",
        mlp_in="fc1",
        mlp_down="fc2",
        attn_out="self_attn",
        mlp_out="fc2",
    )


def _points(config: Any) -> PointTable:
    d = config.d_model
    conv = ("batch", "d_model", "frame")
    points = [
        whole("encoder_conv1.hook_out", "model.encoder.conv1", conv, 0, "encoder"),
        whole("encoder_conv2.hook_out", "model.encoder.conv2", conv, 0, "encoder"),
        whole("pos_embed.hook_out", "model.encoder.embed_positions", ("frame", "d_model"), d, "encoder"),
        *block_points(audio_encoder_block(config, "encoder_blocks", "model.encoder.layers", "encoder")),
        whole("encoder_ln_final.hook_out", "model.encoder.layer_norm", _FRAMES, d, "encoder"),
        whole("decoder_embed.hook_out", "model.decoder.embed_tokens", _TOKENS, d, "decoder"),
        whole("decoder_pos_embed.hook_out", "model.decoder.embed_positions", _TOKENS, d, "decoder"),
        *block_points(_decoder_block(config)),
        whole("decoder_ln_final.hook_out", "model.decoder.layer_norm", _TOKENS, d, "decoder"),
        whole("unembed.hook_out", "proj_out", ("batch", "pos", "vocab"), config.vocab_size, "decoder"),
    ]
    aliases = (
        ("hook_resid_mid2", "hook_resid_mid_cross"),
        *(
            (f"encoder_blocks.{i}.self_attn.", f"encoder_blocks.{i}.attn.")
            for i in range(config.encoder_layers)
        ),
    )
    return PointTable(
        {p.name: p for p in points},
        stacks={"decoder": "decoder_blocks", "encoder": "encoder_blocks"},
        clocks=("model.decoder",),
        layers={"decoder": "model.decoder.layers", "encoder": "model.encoder.layers"},
        aliases=aliases,
    )


def require_speech(model: Model) -> SpeechModel:
    """The model, if it is a recogniser.

    Raises:
        ModelError: It is none.
    """
    if not isinstance(model, SpeechModel):
        raise ModelError(f"{model.origin.name} does not transcribe by itself.", "Use a Whisper model.")
    return model


class SpeechModel(Model):
    """A speech recogniser of the Whisper family with named hook points."""

    # What the model is -----------------------------------------------------------------------------------------------

    @cached_property
    def is_multilingual(self) -> bool:
        """Whether the vocabulary has languages and tasks (English-only checkpoints have neither)."""
        return bool(getattr(self.hf.generation_config, "is_multilingual", self.config.vocab_size >= 51865))

    @cached_property
    def languages(self) -> dict[str, int]:
        """Language code to token id; empty for English-only models."""
        table = getattr(self.hf.generation_config, "lang_to_id", None) or {}
        return {token.strip("<|>"): index for token, index in table.items()} if self.is_multilingual else {}

    @property
    def window_seconds(self) -> float:
        """Length of one window: 30 s for every released model."""
        return self.config.max_source_positions * self.frame_seconds

    @property
    def frame_seconds(self) -> float:
        """Seconds per encoder position: 20 ms."""
        extractor = getattr(self.processor, "feature_extractor", None)
        return 2 * (extractor.hop_length / extractor.sampling_rate if extractor else 0.01)

    @property
    def max_positions(self) -> int:
        """Positions of the decoder, prompt included: 448 for every released model."""
        return self.config.max_target_positions

    @property
    def end_token(self) -> int:
        """Id of `<|endoftext|>`."""
        return int(self.hf.generation_config.eos_token_id or self.config.eos_token_id)  # type: ignore[arg-type]

    @property
    def start_token(self) -> int:
        """Id of `<|startoftranscript|>`."""
        return int(self.hf.generation_config.decoder_start_token_id or self.config.decoder_start_token_id)

    @property
    def no_speech_token(self) -> int:
        """Id of `<|nospeech|>`, which stands before `<|notimestamps|>` in every vocabulary."""
        return self.no_timestamps_token - 1

    @property
    def no_timestamps_token(self) -> int:
        """Id of `<|notimestamps|>`; timestamps follow it.

        Raises:
            ModelError: The model has no generation settings (one built from a bare configuration has none).
        """
        token = getattr(self.hf.generation_config, "no_timestamps_token_id", None)
        if token is None:
            raise ModelError(
                f"{self.origin.name} has no generation settings, so it cannot decode by itself.",
                "Set no_timestamps_token_id and the other special tokens on model.hf.generation_config.",
            )
        return int(token)

    def describe(self) -> dict[str, Any]:
        """Facts that every result records about the model."""
        c = self.config
        return super().describe() | {
            "encoder_layers": c.encoder_layers,
            "decoder_layers": c.decoder_layers,
            "heads": c.decoder_attention_heads,
        }

    # Inputs ----------------------------------------------------------------------------------------------------------

    def features(self, clips: Clip | Sequence[Clip]) -> Tensor:
        """Log-mel spectrograms exactly as the model's own extractor makes them.

        Args:
            clips: One clip or several, each at most one window long.

        Returns:
            `(batch, mel, column)`, columns of 10 ms, padded with silence to the window, in the model's dtype.

        Raises:
            AudioError: A clip is longer than one window.
            ModelError: The model was loaded without weights.
        """
        if self.device.type == "meta":
            raise ModelError(
                f"{self.origin.name} was loaded without weights, so it hears nothing.", "Load it on a device."
            )
        clips = [clips] if isinstance(clips, Clip) else list(clips)
        limit = round(self.window_seconds * 16000)
        for clip in clips:
            if len(clip.samples) > limit:
                raise AudioError(
                    f"{clip.source or 'The clip'} lasts {clip.duration:.2f} s, one window holds {self.window_seconds:g} s.",
                    "Cut it with clip.span(start, end), or transcribe it, which goes window by window.",
                )
        # One by one: the same bits in less time, and no buffers of the size of the batch.
        rows = (
            self.processor.feature_extractor(
                clip.samples, sampling_rate=16000, return_tensors="pt", device="cpu"
            )
            for clip in clips
        )
        return torch.cat([row["input_features"] for row in rows]).to(self.device, self.dtype)

    def encode(self, features: Tensor) -> Tensor:
        """Encoder output `(batch, frame, d_model)` after its final norm: what every cross-attention reads."""
        return self.hf.model.encoder(features).last_hidden_state  # type: ignore[operator]

    def normed(self, hidden: Tensor) -> Tensor:
        """The encoder's final norm: what leaves its last layer `(..., d_model)` as cross-attention reads it."""
        return self.hf.model.encoder.layer_norm(hidden)  # type: ignore[operator,union-attr]

    def check_language(self, language: str | None) -> str | None:
        """The language code to force, or None for detection.

        Raises:
            OptionError: The model does not know the language, or is English-only.
        """
        if language is None:
            return None
        language = language.lower()
        if not self.is_multilingual:
            if language in ("en", "english"):
                return "en"
            raise OptionError(
                f"{self.origin.name} is English-only, so it cannot be told to write {language!r}.",
                "Leave --language out, or use a multilingual model such as whisper-base.",
            )
        if language in self.languages:
            return language
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        code = TO_LANGUAGE_CODE.get(language)
        if code in self.languages:
            return code
        raise OptionError(
            f"{self.origin.name} knows no language {language!r}.", "Use a code such as en, fr or ru."
        )

    def prompt(
        self,
        language: str | None = "en",
        *,
        task: str = "transcribe",
        timestamps: bool = False,
        previous: str | None = None,
    ) -> list[int]:
        """Decoder prompt token ids.

        Args:
            language: Language code (ignored by English-only models).
            task: `transcribe` or `translate`.
            timestamps: Whether the model is to write timestamp tokens.
            previous: Earlier text to condition on.

        Raises:
            OptionError: The task is unknown, or translation is asked of an English-only model.
        """
        if task not in ("transcribe", "translate"):
            raise OptionError(f"The task {task!r} is not known.", "Choose transcribe or translate.")
        ids = self._previous(previous) if previous else []
        ids.append(self.start_token)
        if self.is_multilingual:
            ids += [self.languages[language or "en"], self.hf.generation_config.task_to_id[task]]  # type: ignore[union-attr]
        elif task == "translate":
            raise OptionError(
                f"{self.origin.name} is English-only and cannot translate.",
                "Use a multilingual model such as whisper-base.",
            )
        return ids if timestamps else [*ids, self.no_timestamps_token]

    def _previous(self, text: str) -> list[int]:
        """`<|startofprev|>` and the last tokens of earlier text, at most half the positions less one (as Whisper does)."""
        marker = self.tokenizer.convert_tokens_to_ids("<|startofprev|>")
        ids = self.tokenizer(" " + text.strip(), add_special_tokens=False)["input_ids"]
        return [marker, *ids[-(self.max_positions // 2 - 1) :]]

    def inputs(self, clips: Any, tokens: Sequence[int] | Tensor | None = None) -> dict[str, Tensor]:
        """Teacher-forcing inputs.

        Args:
            clips: A clip, a path, or several, each at most one window long.
            tokens: Decoder tokens, prompt included: ids `(pos,)` for all clips or `(batch, pos)`; None gives the prompt alone.

        Returns:
            `input_features` and `decoder_input_ids`, as Transformers takes them.
        """
        from otoscope.audio import read

        clips = [clips] if isinstance(clips, (Clip, str, Path)) else list(clips)
        features = self.features([clip if isinstance(clip, Clip) else read(clip) for clip in clips])
        ids = torch.as_tensor(self.prompt() if tokens is None else tokens, device=self.device)
        return {"input_features": features, "decoder_input_ids": ids.expand(len(clips), -1)}

    def forward(self, inputs: Any) -> Any:
        """Run the whole model on clips, paths or a dict of Transformers inputs; no cache is kept."""
        feed = dict(inputs) if isinstance(inputs, dict) else self.inputs(inputs)
        return self.hf(**({"use_cache": False} | feed))

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits of a decoder residual stream `(..., d_model)` -> `(..., vocab)`: final layer norm, tied unembedding."""
        return self.hf.proj_out(self.hf.model.decoder.layer_norm(residual))  # type: ignore[operator]


def _load_processor(path: str | Path) -> Any:
    from transformers import WhisperProcessor

    return WhisperProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def _tiny(model_type: str) -> PreTrainedConfig:
    """Three encoder and two decoder layers with different heads and widths; `<|notimestamps|>` near the vocabulary's end."""
    from transformers import WhisperConfig

    return WhisperConfig(
        vocab_size=99, num_mel_bins=16, d_model=48, encoder_layers=3, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=6, encoder_ffn_dim=64, decoder_ffn_dim=80, max_source_positions=50, max_target_positions=32,
        pad_token_id=1, bos_token_id=1, eos_token_id=1, decoder_start_token_id=2, suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip


FAMILY = Family(
    "whisper", ("whisper",), "WhisperForConditionalGeneration", _points, SpeechModel, _load_processor, _tiny
)
