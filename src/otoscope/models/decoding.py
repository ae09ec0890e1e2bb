"""Decoding: batched, with a key-value cache, over rows that may each carry their own edits and leave when they are done.

Greedy results equal Hugging Face `generate` with the same settings token for token. The model is called as it is, so every
hook, edit and capture that is in place around `decode` or `transcribe` acts at every step.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations import CACHE_NAMES, Visit
from otoscope.errors import OptionError
from otoscope.models.base import LogitFilter
from otoscope.models.transcripts import DecodeOptions

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.whisper import SpeechModel

_COMPACT_BELOW = 0.8
"""Rows are taken out of the batch once this share or less of them is unfinished: taking one out copies the others' cache."""

_CROSS = "decoder_blocks.*.cross_attn.hook_[kv]"
"""Keys and values of the cross-attentions: where a hook is in place at them, the model must compute them itself."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """What one row wrote.

    Attributes:
        prompt: Decoder prompt ids.
        ids: Generated ids, without the end token.
        logprobs: Log-probability of each, and of the end token if the row finished.
        entropies: Entropy in nats of each distribution they were chosen from.
        no_speech_prob: Probability of `<|nospeech|>` right after `<|startoftranscript|>`.
        finished: Whether the end token was written.
        queries: Scaled queries of the alignment heads, `(head, token, d_head)`, one row a choice, the end token's included.
        keys: Their keys, `(head, frame, d_head)`.
    """

    prompt: list[int]
    ids: list[int]
    logprobs: list[float]
    entropies: list[float]
    no_speech_prob: float
    finished: bool
    queries: Tensor | None
    keys: Tensor | None


class DecoderSession:
    """The decoder with its cache over some rows.

    Cross-attention keys and values are computed here, once a clip, unless an edit or reading is in place at them: then the
    model computes them itself, for every row, in its first step.

    Args:
        model: The recogniser.
        encoded: Encoder output `(clip, frame, d_model)`.
        clip_of_row: Which clip each row hears; None: row i hears clip i.
    """

    def __init__(self, model: SpeechModel, encoded: Tensor, clip_of_row: Sequence[int] | None = None) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.model = model
        self.rows = list(range(len(encoded) if clip_of_row is None else len(clip_of_row)))
        index = None if clip_of_row is None else torch.tensor(clip_of_row, device=encoded.device)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        if not model.is_hooked(_CROSS):
            self._fill_cross_attention(encoded, index)
        self.encoded = _spread(encoded, index)

    def _fill_cross_attention(self, encoded: Tensor, index: Tensor | None) -> None:
        for i, layer in enumerate(self.model.hf.model.decoder.layers):  # type: ignore[union-attr,arg-type]
            attention = layer.encoder_attn
            shape = (len(encoded), -1, attention.num_heads, attention.head_dim)
            k, v = (
                project(encoded).view(shape).transpose(1, 2).contiguous()
                for project in (attention.k_proj, attention.v_proj)
            )
            self._store_cross_attention(i, _spread(k, index), _spread(v, index))

    def _store_cross_attention(self, layer: int, keys: Tensor, values: Tensor) -> None:
        from transformers.cache_utils import DynamicLayer

        stored = DynamicLayer()
        stored.lazy_initialization(keys, values)
        _set(stored, keys, values)
        self.cache.cross_attention_cache.layers.append(stored)
        self.cache.is_updated[layer] = True

    def renewed(self, rows: int) -> DecoderSession:
        """A session without tokens in which `rows` rows hear this one's only clip; what was computed of it is shared."""
        from transformers import DynamicCache, EncoderDecoderCache

        there = self.cache.cross_attention_cache.layers
        if self.model.is_hooked(_CROSS) or not there:
            return DecoderSession(self.model, self.encoded[:1], [0] * rows)
        again = copy.copy(self)
        again.rows = list(range(rows))
        again.encoded = self.encoded[:1].expand(rows, -1, -1)
        again.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for i, layer in enumerate(there):
            keys, values = (x[:1].expand(rows, -1, -1, -1) for x in (layer.keys, layer.values))  # type: ignore[union-attr,index]
            again._store_cross_attention(i, keys, values)
        return again

    def rewind(self) -> None:
        """Forget every token and keep what was heard, to begin with another prompt."""
        from transformers import DynamicCache

        self.cache.self_attention_cache = DynamicCache()

    def step(self, tokens: Tensor) -> Tensor:
        """Logits `(row, pos, vocab)` for new tokens `(row, pos)`."""
        return self.logits(self.read(tokens))

    def logits(self, normed: Tensor) -> Tensor:
        """Logits `(row, pos, vocab)` of what `read` gave, or of some of its positions."""
        with self.model.rows(self.rows):
            return self.model.hf.proj_out(normed)  # type: ignore[operator]

    def read(self, tokens: Tensor) -> Tensor:
        """Residual stream after the final norm `(row, pos, d_model)` for new tokens `(row, pos)`."""
        with self.model.rows(self.rows):
            decoder = self.model.hf.model.decoder  # type: ignore[union-attr]
            return decoder(  # type: ignore[operator]
                input_ids=tokens,
                encoder_hidden_states=self.encoded,
                use_cache=True,
                **{cache_name(type(decoder)): self.cache},
            ).last_hidden_state

    def keep(self, local: Sequence[int]) -> None:
        """Go on with these rows (ascending indices into the present ones) only, once tokens have been read."""
        self.rows = [self.rows[i] for i in local]
        # The cache has its keys and values by now, and its length alone counts.
        self.encoded = self.encoded[: len(local)]
        for part in (self.cache.self_attention_cache, self.cache.cross_attention_cache):
            for layer in part.layers:
                _set(layer, _take(layer.keys, local), _take(layer.values, local))  # type: ignore[union-attr]


@lru_cache
def cache_name(kind: type) -> str:
    """What this release of Transformers calls the key-value cache of a model class, as an argument and in its output."""
    taken = inspect.signature(kind.forward).parameters  # type: ignore[attr-defined]
    return next(name for name in CACHE_NAMES if name in taken)


def _set(layer: Any, keys: Tensor, values: Tensor) -> None:
    layer.keys, layer.values = keys, values


def _spread(x: Tensor, index: Tensor | None) -> Tensor:
    """One entry a row; rows of a single clip share its memory."""
    if index is None:
        return x
    return x.expand(len(index), *x.shape[1:]) if len(x) == 1 else x[index]


def _take(x: Tensor, local: Sequence[int]) -> Tensor:
    """Rows of a cache, moved to its front; rows that share memory go on sharing it.

    Not copied: copies of ever fewer rows, tens of megabytes each, would leave the heap in pieces that fit nothing else.
    """
    if x.stride(0) != 0:
        for place, row in enumerate(local):
            if place != row:
                x[place] = x[row]
    return x[: len(local)]


@dataclass
class _Row:
    """One row under way."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    queries: list[Tensor] = field(default_factory=list)
    finished: bool = False


def suppressing(model: SpeechModel, options: DecodeOptions, prompt_length: int) -> list[LogitFilter]:
    """The checkpoint's own logit filters, with Hugging Face's meaning: tokens never written, tokens not to begin with,
    timestamp rules.
    """
    config, filters = model.hf.generation_config, []
    if options.timestamps:
        from transformers import WhisperTimeStampLogitsProcessor

        filters.append(WhisperTimeStampLogitsProcessor(config, begin_index=prompt_length))
    if options.suppress:
        never = set(getattr(config, "suppress_tokens", None) or ())
        not_first = never | set(getattr(config, "begin_suppress_tokens", None) or ())
        at_first, later = (
            torch.tensor(sorted(ids), dtype=torch.long, device=model.device) for ids in (not_first, never)
        )

        def suppress(tokens: Tensor, logits: Tensor) -> Tensor:
            return logits.index_fill(-1, at_first if tokens.shape[1] == prompt_length else later, -torch.inf)

        filters.append(suppress)
    return filters


def alignment_heads(model: SpeechModel) -> list[tuple[int, int]]:
    """(layer, head) pairs, 0-based, whose cross-attention follows the sound; without published ones, every head of the
    decoder's second half.
    """
    heads = getattr(model.hf.generation_config, "alignment_heads", None)
    if heads:
        return [(int(layer), int(head)) for layer, head in heads]
    layers, per_layer = model.config.decoder_layers, model.config.decoder_attention_heads
    return [(layer, head) for layer in range(layers // 2, layers) for head in range(per_layer)]


_NEVER = -1e4
"""Stands for the log-probability -inf where it is multiplied by a probability of 0."""


class _AlignmentTap:
    """Keeps the alignment heads' queries of each step; keys come from the cache."""

    def __init__(self, model: SpeechModel) -> None:
        self.heads = alignment_heads(model)
        self.layers = sorted({layer for layer, _ in self.heads})
        self._now: dict[int, Tensor] = {}
        self.hooks = [(f"decoder_blocks.{layer}.cross_attn.hook_q", self._keep) for layer in self.layers]

    def _keep(self, q: Tensor, hook: Visit) -> None:
        self._now[hook.layer or 0] = q[:, -1]  # the last position writes the next token

    def queries(self) -> Tensor:
        """`(row, head, d_head)` of the newest step, scaled as the model does."""
        d_head = next(iter(self._now.values())).shape[-1]
        return torch.stack([self._now[layer][:, head] for layer, head in self.heads], dim=1) * d_head**-0.5

    def keys(self, session: DecoderSession) -> Tensor:
        """`(row, head, frame, d_head)`."""
        layers = session.cache.cross_attention_cache.layers
        return torch.stack([layers[layer].keys[:, head] for layer, head in self.heads], dim=1)  # type: ignore[union-attr,index]


def decode(
    model: SpeechModel,
    heard: Tensor | DecoderSession,
    prompts: Tensor,
    options: DecodeOptions | None = None,
    *,
    clip_of_row: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    filters: Sequence[LogitFilter] = (),
    align: bool = False,
    written: int = 0,
) -> list[Decoded]:
    """Write the text of each row.

    Rows are numbered as given; an `Edit` with `rows` keeps meaning the same row after others have left the batch.

    Args:
        model: The recogniser.
        heard: Encoder output `(clip, frame, d_model)`, or a session over it that has no tokens yet.
        prompts: Prompt token ids `(row, pos)`.
        options: How to decode.
        clip_of_row: Which clip each row hears, where encoder output is given; None: row i hears clip i.
        seeds: A seed a row, for sampling; None: `options.seed` plus the row.
        filters: Further logit filters, applied after the checkpoint's own; any Hugging Face logits processor will do.
        align: Also keep what alignment needs.
        written: How many of the prompt's last tokens are text already: what must not begin a text may follow them.

    Returns:
        One result a row, in order.

    Raises:
        OptionError: The prompt leaves no position to write to.
    """
    options = options or DecodeOptions()
    limit = min(options.max_positions or model.max_positions, model.max_positions)
    if prompts.shape[1] >= limit:
        raise OptionError(
            f"The prompt has {prompts.shape[1]} tokens, and at most {limit} positions are allowed.",
            "Shorten it or raise max_positions.",
        )
    seeds = [options.seed + i for i in range(len(prompts))] if seeds is None else seeds
    tap = _AlignmentTap(model) if align else None
    with torch.no_grad(), model.hooks(tap.hooks if tap else ()):
        session = heard if isinstance(heard, DecoderSession) else DecoderSession(model, heard, clip_of_row)
        return _Loop(
            model, session, prompts.to(model.device), options, limit, list(seeds), filters, tap, written
        ).run()


class _Loop:
    """The decoding loop: step, filter, choose, note, drop finished rows."""

    def __init__(
        self,
        model: SpeechModel,
        session: DecoderSession,
        prompts: Tensor,
        options: DecodeOptions,
        limit: int,
        seeds: list[int],
        filters: Sequence[LogitFilter],
        tap: _AlignmentTap | None,
        written: int,
    ) -> None:
        self.model, self.session, self.prompts = model, session, prompts
        self.options, self.limit, self.tap = options, limit, tap
        begin = prompts.shape[1] - written
        lasting = [make(begin) for make in model.filters]
        self.filters = [*suppressing(model, options, begin), *lasting, *filters]
        self.rows = [_Row() for _ in range(len(prompts))]
        self.generators = (
            [torch.Generator().manual_seed(seed) for seed in seeds] if options.temperature > 0 else []
        )

    def run(self) -> list[Decoded]:
        logits = self.session.step(self.prompts)
        no_speech = self._no_speech(logits)
        keys = self.tap.keys(self.session) if self.tap else None
        tokens, logits = self.prompts, logits[:, -1]
        while True:
            chosen = self._choose(tokens, logits)
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
            alive = [i for i, row in enumerate(self.session.rows) if not self.rows[row].finished]
            if not alive or tokens.shape[1] >= self.limit:
                break
            if len(alive) <= _COMPACT_BELOW * len(tokens):
                self.session.keep(alive)
                tokens = tokens[alive]
            logits = self.session.step(tokens[:, -1:])[:, -1]
        return [self._result(i, no_speech[i], keys) for i in range(len(self.rows))]

    def _choose(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Next token of each present row `(row,)`; finished ones are fed the end token."""
        scores = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        with self.model.rows(self.session.rows):
            for apply in self.filters:
                scores = apply(tokens, scores)
        if self.options.temperature > 0:
            scores = scores / self.options.temperature
        logprobs = torch.log_softmax(scores, dim=-1)
        p = logprobs.exp()
        chosen = self._sample(p) if self.generators else scores.argmax(dim=-1)
        # What is suppressed has log-probability -inf and no share in the entropy.
        entropies = (-torch.linalg.vecdot(p, logprobs.clamp(min=_NEVER))).tolist()
        picked = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
        queries = self.tap.queries().clone() if self.tap else None
        for i, (row, token) in enumerate(zip(self.session.rows, chosen.tolist(), strict=True)):
            if not self.rows[row].finished:
                self._note(
                    self.rows[row], token, picked[i], entropies[i], None if queries is None else queries[i]
                )
        end = torch.full_like(chosen, self.model.end_token)
        finished = torch.tensor([self.rows[row].finished for row in self.session.rows], device=chosen.device)
        return torch.where(finished, end, chosen)

    def _sample(self, p: Tensor) -> Tensor:
        drawn = [
            torch.multinomial(p[i].cpu(), 1, generator=self.generators[row])
            for i, row in enumerate(self.session.rows)
        ]
        return torch.cat(drawn).to(p.device)

    def _note(self, row: _Row, token: int, logprob: float, entropy: float, queries: Tensor | None) -> None:
        row.logprobs.append(logprob)
        if queries is not None:
            row.queries.append(queries)
        if token == self.model.end_token:
            row.finished = True
            return
        row.ids.append(token)
        row.entropies.append(entropy)

    def _no_speech(self, logits: Tensor) -> list[float]:
        """Probability of `<|nospeech|>` at `<|startoftranscript|>`, from the unfiltered logits."""
        start = (self.prompts[0] == self.model.start_token).nonzero()
        place = int(start[-1]) if len(start) else 0
        return torch.softmax(logits[:, place].float(), dim=-1)[:, self.model.no_speech_token].tolist()

    def _result(self, i: int, no_speech: float, keys: Tensor | None) -> Decoded:
        row = self.rows[i]
        return Decoded(
            prompt=self.prompts[i].tolist(),
            ids=row.ids,
            logprobs=row.logprobs,
            entropies=row.entropies,
            no_speech_prob=no_speech,
            finished=row.finished,
            queries=torch.stack(row.queries, dim=1) if row.queries else None,
            keys=None if keys is None else keys[i],
        )


def detect_languages(model: SpeechModel, session: DecoderSession) -> list[str]:
    """Most probable language of each row of a fresh session, from the distribution after `<|startoftranscript|>`.

    The session is left as it was found, so that decoding goes on with what it heard.
    """
    codes, ids = list(model.languages), torch.tensor(list(model.languages.values()), device=model.device)
    start = torch.full((len(session.rows), 1), model.start_token, device=model.device)
    with torch.no_grad(), model.detecting_language():
        best = session.step(start)[:, -1].index_select(1, ids).argmax(dim=-1)
    session.rewind()
    return [codes[i] for i in best.tolist()]


def prompts_for(model: SpeechModel, languages: Sequence[str], options: DecodeOptions) -> Tensor:
    """Prompt ids `(row, pos)`, one language a row."""
    rows: Iterable[list[int]] = (
        model.prompt(language, task=options.task, timestamps=options.timestamps, previous=options.previous)
        for language in languages
    )
    return torch.tensor(list(rows), device=model.device)


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Successive lists of at most `size` items."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
