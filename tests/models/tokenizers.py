"""Real tokenizers and processors of tiny vocabularies, made in memory."""

from __future__ import annotations

from typing import Any

AUDIO_CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<|AUDIO|>' if part['type'] == 'audio' else part['text'] }}{% endfor %}{% endfor %}"
)


def word_tokenizer(size: int = 97, special: dict[int, str] | None = None) -> Any:
    """A fast tokenizer whose token i is the word `w{i}` (or what `special` says)."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {0: "<pad>", 1: "<unk>"} | (special or {})
    vocabulary = {special.get(i, f"w{i}"): i for i in range(size)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": [t for i, t in special.items() if i > 1]})
    return tokenizer


def audio_processor(config: Any) -> Any:
    """A Qwen2-Audio processor that fits a small random configuration: half-second windows of 16 mel bands."""
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    seconds = 2 * config.audio_config.max_source_positions / 100
    extractor = WhisperFeatureExtractor(
        feature_size=config.audio_config.num_mel_bins, chunk_length=int(seconds)
    )
    marks = {config.audio_token_index: "<|AUDIO|>", 91: "<|audio_bos|>", 92: "<|audio_eos|>"}
    tokenizer = word_tokenizer(config.text_config.vocab_size, marks)
    return Qwen2AudioProcessor(extractor, tokenizer, chat_template=AUDIO_CHAT)
