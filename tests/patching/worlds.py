"""Small random models that hear real recordings and write texts, some of which loop."""

from __future__ import annotations

from tests.conftest import tiny
from tests.models.talking import talking_whisper
from tests.models.tokenizers import audio_processor, word_tokenizer

from otoscope.audio.samples import sample
from otoscope.corpora import Item


class Processor:
    """Windows of one second, 16 mel bands, and words `w0`, `w1`, ..."""

    def __init__(self, size: int = 99) -> None:
        from transformers import WhisperFeatureExtractor

        self.feature_extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=1)
        self.tokenizer = word_tokenizer(size)


def hearing_whisper(seed: int = 2, **kwargs):
    """A talking Whisper that can be given clips of up to a second."""
    model = talking_whisper(seed=seed, **kwargs)
    model.processor = Processor()
    return model


def hearing_qwen(end: int | None = 6, **kwargs):
    """A random Qwen2-Audio with a processor; clips of up to a second."""
    model = tiny("qwen2_audio", **kwargs)
    model.processor = audio_processor(model.config)
    model.hf.generation_config.eos_token_id = end
    return model


def spans(count: int = 6, **more) -> list[Item]:
    """Spans of 0.9 s of a shipped recording, two of each of its speakers."""
    return [
        Item(
            f"jfk-{i}", sample("jfk"), offset=1.5 * i + 0.3, duration=0.9, labels={"speaker": i // 2}, **more
        )
        for i in range(count)
    ]
