"""The tape: one forward pass of the untouched model, and of it only what the linear replacement needs.

The local replacement model of Ameisen et al. 2025 ("Circuit Tracing: Revealing Computational Graphs in Language Models")
freezes attention patterns and norm scales at the values they had for one prompt. What remains is affine in the residual
stream: norms multiply by a recorded factor, heads move values by a recorded pattern, projections and biases are themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from otoscope.errors import GraphError, ModelError, OptionError
from otoscope.models.wiring import AttentionWiring, BlockWiring, StackWiring, stack_wiring

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.models.base import Model
    from otoscope.models.qwen2_audio import AudioLanguageModel
    from otoscope.models.whisper import SpeechModel


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """A norm with its scale held fixed: `y = factor * centre(x) + bias`.

    Attributes:
        factor: `(pos, d)` gain over denominator.
        scale: `(pos, 1)` one over the denominator, without the gain.
        centred: Whether the mean is subtracted (LayerNorm).
        bias: `(d,)` or None.
    """

    factor: Tensor
    scale: Tensor
    centred: bool
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """The frozen affine map of `(..., pos, d)`."""
        y = self.factor * (x - x.mean(dim=-1, keepdim=True) if self.centred else x)
        return y if self.bias is None else y + self.bias

    def adjoint(self, g: Tensor) -> Tensor:
        """Of `(pos, n, d)`, for the first positions."""
        return self._centre(g * self.factor[: len(g), None])

    def adjoint_at(self, pos: Tensor, v: Tensor) -> Tensor:
        """Of vectors `(n, d)`, each at its position."""
        return self._centre(v * self.factor[pos])

    def division_adjoint_at(self, pos: Tensor, v: Tensor) -> Tensor:
        """The same without gain and bias, for what reads right after the division."""
        return self._centre(v * self.scale[pos])

    def _centre(self, g: Tensor) -> Tensor:
        return g - g.mean(dim=-1, keepdim=True) if self.centred else g


@dataclass(frozen=True, eq=False)
class Projection:
    """The way from an audio tower's last layer into a text stream: pooling by two, the tower's norm, the projector.

    Attributes:
        norm: The tower's norm at the pooled frames that reach the text.
        weight: Of the projector, `(d_text, d_audio)`.
        projector_bias: Of the projector, or None.
        frames: Frames of the tower.
        first: Position of the text stream at which the first pooled frame enters; the others follow.
    """

    norm: FrozenNorm
    weight: Tensor
    projector_bias: Tensor | None
    frames: int
    first: int

    def __len__(self) -> int:
        return len(self.norm.factor)

    @property
    def bias(self) -> Tensor | None:
        """`(d_text,)` what norm and projector add at every position."""
        through = None if self.norm.bias is None else self.weight @ self.norm.bias
        if through is None or self.projector_bias is None:
            return self.projector_bias if through is None else through
        return through + self.projector_bias

    def adjoint(self, g: Tensor) -> Tensor:
        """From the text stream `(entering pos, n, d_text)` back to the tower's last layer `(frame, n, d_audio)`."""
        pooled = self.norm.adjoint(g @ self.weight)
        out = g.new_zeros(self.frames, g.shape[1], self.weight.shape[1])
        out[: 2 * len(pooled)] = pooled.repeat_interleave(2, dim=0) / 2
        return out


@dataclass(frozen=True, eq=False)
class AttentionTape:
    """One attention part.

    Attributes:
        norm: Of its input; None for cross-attention, whose values are read from another stack's output as it is.
        post: Its post-norm, or None.
        pattern: `(head, query, key)`.
        x: `(key, d)` what its values are made of: its input after the norm, or the other stack's output.
        wiring: Its weights.
    """

    norm: FrozenNorm | None
    post: FrozenNorm | None
    pattern: Tensor
    x: Tensor
    wiring: AttentionWiring

    def values(self) -> Tensor:
        """`(pos, kv_head, d_head)`."""
        return self.wiring.v(self.x).unflatten(-1, (self.wiring.kv_heads, -1))


@dataclass(frozen=True, eq=False)
class MlpTape:
    """One MLP.

    Attributes:
        norm: Of its input.
        post: Its post-norm, or None.
        stream: `(pos, d)` the stream that it reads, before the norm.
        x: `(pos, d)` its input, after the norm.
        raw: `(pos, d)` its output before the post-norm.
        out: `(pos, d)` what it adds to the stream.
    """

    norm: FrozenNorm
    post: FrozenNorm | None
    stream: Tensor
    x: Tensor
    raw: Tensor
    out: Tensor


@dataclass(frozen=True, eq=False)
class Tape:
    """One stack's forward pass.

    Attributes:
        ids: `(pos,)` token ids; empty where the stream begins with sound.
        stream: Name of the stack, such as `text`, `decoder` or `encoder`.
        attention: Of every layer.
        mlp: Of every layer.
        final: The norm after the last layer.
        embed: `(pos, d)` what enters the stream, learned positions left out: token embeddings, or what the convolutions make
            of the sound.
        positions: `(pos, d)` learned positions, or None.
        last: `(pos, d)` stream after the last layer.
        logits: `(pos, vocab)`; empty where nothing is written.
        wiring: Of the stack.
        cross: Cross-attention of every layer, or empty.
        heard: The pass of the stack that it attends to, or whose output it is given as embeddings, or None.
        exit: How this stack's output enters another's embeddings, or None.
    """

    ids: Tensor
    stream: str
    attention: tuple[AttentionTape, ...]
    mlp: tuple[MlpTape, ...]
    final: FrozenNorm
    embed: Tensor
    positions: Tensor | None
    last: Tensor
    logits: Tensor
    wiring: StackWiring = field(repr=False)
    cross: tuple[AttentionTape, ...] = ()
    heard: Tape | None = field(default=None, repr=False)
    exit: Projection | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.embed)

    @property
    def steps(self) -> int:
        """Parts of a layer that write into the stream: attention, cross-attention where there is one, MLP."""
        return 3 if self.cross else 2

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.mlp)


def record(model: Model, ids: Tensor) -> Tape:
    """Run a language model once on `(pos,)` token ids and keep what the linear replacement needs.

    Raises:
        OptionError: The model runs in half precision.
        ModelError: Its weights give values that are not finite, or a norm is not a norm that can be frozen.
        GraphError: The stream is not the sum of its parts.
    """
    _require_precision(model)
    inputs = model.inputs(ids[None])  # type: ignore[attr-defined]
    return _recorded(model, stack_wiring(model), lambda: model.forward(inputs), ids)


def record_speech(model: SpeechModel, features: Tensor, ids: Tensor, encoded: Tensor | None = None) -> Tape:
    """Run Whisper once, teacher-forced, and keep what the linear replacement of both stacks needs.

    Args:
        model: The recogniser.
        features: Log-mel spectrogram `(1, mel, column)`.
        ids: Decoder tokens `(pos,)`, prompt included.
        encoded: The encoder's output `(1, frame, d)`, where it is known already; the encoder does not run again then.

    Returns:
        The decoder's tape; `heard` is the encoder's, or None where it did not run.

    Raises:
        OptionError: The model runs in half precision.
        ModelError: Its weights give values that are not finite, or a norm is not a norm that can be frozen.
        GraphError: A stream is not the sum of its parts.
    """
    _require_precision(model)
    heard = None
    if encoded is None:
        heard, encoded = record_hearing(model, features)
    feed = {"encoder_outputs": (encoded,), "decoder_input_ids": ids[None]}
    written = _recorded(model, stack_wiring(model), lambda: model.forward(feed), ids, encoded[0])
    return replace(written, heard=heard)


def record_hearing(model: SpeechModel, features: Tensor) -> tuple[Tape, Tensor]:
    """Run Whisper's encoder once on a log-mel spectrogram `(1, mel, column)`: its tape, and its output `(1, frame, d)`.

    Raises:
        OptionError: The model runs in half precision.
        ModelError: Its weights give values that are not finite, or a norm is not a norm that can be frozen.
        GraphError: The stream is not the sum of its parts.
    """
    _require_precision(model)
    encoded: list[Tensor] = []
    none = torch.zeros(0, dtype=torch.long, device=features.device)
    wiring = stack_wiring(model, "encoder")
    tape = _recorded(model, wiring, lambda: encoded.append(model.encode(features)), none)
    return tape, encoded[0]


def record_audio(model: AudioLanguageModel, inputs: dict[str, Tensor]) -> Tape:
    """Run Qwen2-Audio once on one recording and its prompt, and keep what the linear replacement of both stacks needs.

    Args:
        model: The model.
        inputs: One row of Transformers inputs: `input_ids` with a slot for every audio embedding, `input_features`,
            `feature_attention_mask`.

    Returns:
        The text stack's tape; `heard` is the tower's, whose `exit` says where it enters.

    Raises:
        OptionError: The model runs in half precision, or there is more or less than one recording.
        ModelError: Its weights give values that are not finite, or a norm is not a norm that can be frozen.
        GraphError: A stream is not the sum of its parts.
    """
    _require_precision(model)
    ids, tower = inputs["input_ids"], model.hf.get_submodule("model.audio_tower")
    slots = (ids[0] == model.config.audio_token_id).nonzero().flatten()
    if len(ids) != 1 or not len(slots) or int(slots[-1]) - int(slots[0]) + 1 != len(slots):
        raise OptionError("There has to be one recording in the prompt.", "Give one row with one recording.")
    wiring = stack_wiring(model, "audio_encoder")
    positions: Tensor = tower.embed_positions.weight.detach()  # type: ignore[assignment,union-attr]
    heard = _recorded(model, wiring, lambda: model.forward(inputs), ids.new_zeros(0), positions=positions)
    final, count = heard.final, len(slots)
    norm = FrozenNorm(final.factor[:count], final.scale[:count], final.centred, final.bias)
    projector: Any = model.hf.get_submodule("model.multi_modal_projector.linear")
    bias = None if projector.bias is None else projector.bias.detach()
    way = Projection(norm, projector.weight.detach(), bias, len(heard), int(slots[0]))
    written = _recorded(model, stack_wiring(model), lambda: model.forward(inputs), ids[0])
    return replace(written, heard=replace(heard, exit=way, logits=ids.new_zeros(0)))


def _require_precision(model: Model) -> None:
    if model.dtype not in (torch.float32, torch.float64):
        raise OptionError(
            f"{model.origin.name} runs in {str(model.dtype).removeprefix('torch.')}, too coarse to sum small parts.",
            "Load it with dtype float32 (--dtype float32).",
        )


def _recorded(
    model: Model,
    wiring: StackWiring,
    run: Callable[[], Any],
    ids: Tensor,
    other: Tensor | None = None,
    positions: Tensor | None = None,
) -> Tape:
    """Watch one stack while it runs.

    Args:
        model: The model.
        wiring: Of the stack.
        run: Runs it.
        ids: Its tokens.
        other: `(key, d)` what its cross-attention reads.
        positions: `(pos, d)` learned positions that no hook point shows.
    """
    norms, raws = _Watched(_norms_of(wiring)), _Watched(b.mlp.down_module for b in wiring.blocks)
    first = f"{wiring.prefix}.0.hook_resid_pre"
    parts = [part for b in wiring.blocks for part in (b.attention, b.cross) if part is not None]
    names = [first, *(f"{part.name}.hook_pattern" for part in parts)]
    names += [wiring.positions] if wiring.positions else []
    with torch.no_grad(), norms.watching(), raws.watching(), model.capturing(names) as cache:
        output = run()
    logits = ids.new_zeros(0) if output is None else output.logits[0]
    _require_finite(model, logits)
    final, last, _ = norms.frozen(wiring.final_norm)
    positions = cache[wiring.positions] if wiring.positions else positions
    if positions is not None and positions.dim() == 3:
        positions = positions[0]
    start = cache[first][0]
    tape = Tape(
        ids,
        wiring.stream,
        tuple(_attention_tape(block.attention, norms, cache) for block in wiring.blocks),
        tuple(_mlp_tape(block, norms, raws) for block in wiring.blocks),
        final,
        start if positions is None else start - positions,
        positions,
        last,
        logits,
        wiring,
        tuple(
            _cross_tape(b.cross, cache, other)
            for b in wiring.blocks
            if b.cross is not None and other is not None
        ),
    )
    _require_additive(tape)
    return tape


class _Watched:
    """Input and output of modules during one forward pass of a single row."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(modules)
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = [module.register_forward_hook(self._keep, with_kwargs=True) for module in self._modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], out: Tensor) -> None:
        x = args[0] if args else kwargs["hidden_states"]
        self._seen[id(module)] = (x.detach()[0].clone(), out.detach()[0].clone())

    def __getitem__(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        return self._seen[id(module)]

    def frozen(self, module: nn.Module) -> tuple[FrozenNorm, Tensor, Tensor]:
        """A norm, its input and its output."""
        x, y = self[module]
        return frozen_norm(module, x, y), x, y


def _norms_of(wiring: StackWiring) -> Iterator[nn.Module]:
    yield wiring.final_norm
    for block in wiring.blocks:
        both = (block.attention.norm, block.attention.post_norm, block.mlp.norm, block.mlp.post_norm)
        yield from (norm for norm in both if norm is not None)


def _attention_tape(wiring: AttentionWiring, norms: _Watched, cache: Any) -> AttentionTape:
    norm, _, x = norms.frozen(wiring.norm)
    post = norms.frozen(wiring.post_norm)[0] if wiring.post_norm is not None else None
    return AttentionTape(norm, post, cache[f"{wiring.name}.hook_pattern"][0], x, wiring)


def _cross_tape(wiring: AttentionWiring, cache: Any, other: Tensor) -> AttentionTape:
    return AttentionTape(None, None, cache[f"{wiring.name}.hook_pattern"][0], other, wiring)


def _mlp_tape(block: BlockWiring, norms: _Watched, raws: _Watched) -> MlpTape:
    norm, stream, x = norms.frozen(block.mlp.norm)
    raw = raws[block.mlp.down_module][1]
    if block.mlp.post_norm is None:
        return MlpTape(norm, None, stream, x, raw, raw)
    post, _, out = norms.frozen(block.mlp.post_norm)
    return MlpTape(norm, post, stream, x, raw, out)


def frozen_norm(module: nn.Module, x: Tensor, y: Tensor) -> FrozenNorm:
    """What a norm multiplied each coordinate by.

    RMSNorms of Transformers compute in float32 whatever the model's precision, and some store their gains minus one. So their
    factor is taken as output over input, rounding included; where the input is zero it does not matter.

    Raises:
        ModelError: The module scales and shifts in some other way.
    """
    if isinstance(module, torch.nn.LayerNorm):
        scale = (x.var(dim=-1, unbiased=False, keepdim=True) + module.eps).rsqrt()
        frozen = FrozenNorm(scale * module.weight.detach(), scale, True, module.bias.detach())
    else:
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", 0.0))
        scale = (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
        safe = x.abs() > torch.finfo(x.dtype).tiny ** 0.5
        frozen = FrozenNorm(torch.where(safe, y / torch.where(safe, x, 1.0), 0.0), scale, False, None)
        _require_norm(module, frozen)
    if not torch.allclose(frozen(x), y, rtol=1e-3, atol=1e-3 * float(y.abs().max())):
        raise ModelError(
            f"{type(module).__name__} is no norm whose scale can be frozen.", "Trace another model."
        )
    return frozen


def _require_norm(module: nn.Module, frozen: FrozenNorm) -> None:
    """The factor of an RMSNorm is a gain, the same at all positions, times the scale."""
    gains = frozen.factor / frozen.scale
    seen = gains != 0
    counts = seen.sum(dim=0).clamp_min(1)
    mean = gains.sum(dim=0) / counts
    if ((gains - mean) * seen).abs().max() > 1e-2 * gains.abs().max():
        raise ModelError(
            f"{type(module).__name__} is no norm whose scale can be frozen.", "Trace another model."
        )


def _require_finite(model: Model, logits: Tensor) -> None:
    if torch.isfinite(logits).all():
        return
    bad = [name for name, weight in model.hf.named_parameters() if not torch.isfinite(weight).all()]
    where = f"The weights {', '.join(bad[:3])} of {model.origin.name} hold" if bad else "The logits hold"
    raise ModelError(
        f"{where} values that are not finite.", "Fetch the weights again, or load them in float32."
    )


def _require_additive(tape: Tape) -> None:
    """The stream before the last norm is the embeddings and everything that was written."""
    start = tape.embed if tape.positions is None else tape.embed + tape.positions
    total = start + sum(m.out for m in tape.mlp)
    for attention in (*tape.attention, *tape.cross):
        total = total + attention_out(attention)
    pooled = len(total) // len(tape.last)  # an audio tower pools its frames before its last norm
    if pooled > 1:
        total = total[: pooled * len(tape.last)].unflatten(0, (-1, pooled)).mean(dim=1)
    if not torch.allclose(total, tape.last, rtol=1e-3, atol=1e-3 * float(tape.last.abs().max())):
        raise GraphError(
            "The stream is not the sum of what attention and MLPs write.",
            "This architecture has a path that tracing does not know.",
        )


def attention_out(tape: AttentionTape, x: Tensor | None = None) -> Tensor:
    """What an attention part adds to the stream, pattern and scales frozen.

    Args:
        tape: The part.
        x: What its values are made of `(..., key, d)`; None: what was recorded.
    """
    w = tape.wiring
    v = w.v(tape.x if x is None else x).unflatten(-1, (w.kv_heads, -1))
    v = v.repeat_interleave(w.heads // w.kv_heads, dim=-2)
    z = torch.einsum("hqk,...khd->...qhd", tape.pattern, v)
    out = w.o(z.flatten(-2))
    return out if tape.post is None else tape.post(out)
