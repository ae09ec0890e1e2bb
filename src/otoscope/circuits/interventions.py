"""Interventions: set, scale or ablate features while the model runs, with everything frozen or with the model reacting.

A feature that is changed by `delta` adds `delta` times its write vectors to the MLP outputs it writes to. What else may
change is said by `freeze`:

    none      the model reacts as it does; also inside `generate`, where changes without positions go on for every new token
    patterns  attention patterns stay as they were
    gates     patterns stay, and so do the gates of features: they are linear in what they read; norm scales react
    all       patterns, norm scales and MLP outputs stay as they were: only the direct effect is left (linear, exact)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from otoscope.circuits.sources import feature_input
from otoscope.circuits.tape import FrozenNorm, Tape
from otoscope.errors import EditError
from otoscope.models.wiring import BlockWiring, StackWiring, stack_wiring

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.activations import HookFunction, Visit
    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model

Freeze = Literal["none", "patterns", "gates", "all"]


@dataclass(frozen=True)
class Intervention:
    """One change of one feature.

    Attributes:
        layer: Layer that it reads at, from 0.
        feature: Its index.
        op: `set` to a value, or `scale` by a factor (0 ablates).
        value: The value or factor; or one for each of `positions`.
        positions: Positions, of a stack that hears its frames; None: all, and those still to be written.
    """

    layer: int
    feature: int
    op: Literal["set", "scale"]
    value: float | tuple[float, ...]
    positions: tuple[int, ...] | None = None

    @classmethod
    def set(
        cls,
        layer: int,
        feature: int,
        value: float | tuple[float, ...],
        positions: tuple[int, ...] | None = None,
    ) -> Intervention:
        """Set the activation, at all positions or at each its own."""
        return cls(layer, feature, "set", value, positions)

    @classmethod
    def scale(
        cls, layer: int, feature: int, factor: float, positions: tuple[int, ...] | None = None
    ) -> Intervention:
        """Multiply the activation."""
        return cls(layer, feature, "scale", factor, positions)

    @classmethod
    def ablate(cls, layer: int, feature: int, positions: tuple[int, ...] | None = None) -> Intervention:
        """Set the activation to zero."""
        return cls(layer, feature, "scale", 0.0, positions)

    def delta(self, activation: Tensor, kept: Sequence[bool] | None = None) -> Tensor:
        """How much the activation `(n,)` changes, at those of `positions` that are kept."""
        value: Tensor | float
        if isinstance(self.value, tuple):
            here = [v for v, keep in zip(self.value, kept or [True] * len(self.value), strict=True) if keep]
            value = activation.new_tensor(here)
        else:
            value = self.value
        return (value - activation) if self.op == "set" else (value - 1.0) * activation


class Clean(Protocol):
    """The activations and gates of an undisturbed run."""

    def slopes_of(self, layer: int) -> Tensor:
        """`(pos, feature, k)` gates of a layer, zero where a feature is not active."""
        ...

    def activation_at(self, layer: int, pos: Tensor, feature: Tensor) -> Tensor:
        """`(n,)` activations of some features, zero where they are not active."""
        ...


Row = Sequence[Intervention]
"""What is done in one batch row; several interventions of one row are a group (a supernode) that acts together."""


@contextmanager
def intervening(
    model: Model,
    dictionary: Dictionary,
    rows: Sequence[Row],
    *,
    tape: Tape | None = None,
    sources: Clean | None = None,
    freeze: Freeze = "none",
    stream: str | None = None,
) -> Iterator[None]:
    """Change features inside the block, around any forward call or `generate`.

    Args:
        model: The model.
        dictionary: Its features.
        rows: One list of interventions for each batch row.
        tape: The clean run, for `freeze`; the block's forward pass must then be of the same prompt, once a row.
        sources: The clean activations, for `freeze="gates"` and `"all"`.
        freeze: What may not react.
        stream: Stack of the features; None: the one that writes.

    Raises:
        EditError: A layer, feature or position does not exist, there are more or fewer values than positions, or `freeze`
            lacks the clean run.
    """
    _check(dictionary, rows, tape, sources, freeze)
    with ExitStack() as stack:
        if freeze != "none" and tape is not None:
            stack.enter_context(
                model.hooks(
                    fwd_hooks=[
                        _kept_pattern(a.wiring.name, a.pattern) for a in (*tape.attention, *tape.cross)
                    ]
                )
            )
        if freeze == "all" and tape is not None:
            stack.enter_context(_frozen_norms(tape))
        linear = None
        if freeze == "gates" and tape is not None and sources is not None:
            linear = stack.enter_context(_held_gates(model, dictionary, tape, sources))
        writer = _Writer(model, dictionary, rows, tape if freeze == "all" else None, sources, stream, linear)
        stack.enter_context(writer.attached())
        yield


def _check(
    dictionary: Dictionary, rows: Sequence[Row], tape: Tape | None, sources: Clean | None, freeze: Freeze
) -> None:
    if freeze != "none" and (tape is None or (freeze in ("gates", "all") and sources is None)):
        raise EditError(f"freeze={freeze!r} needs the clean run.", "Pass the tracer's tape and sources.")
    for each in (one for row in rows for one in row):
        size = dictionary.size(each.layer) if 0 <= each.layer < dictionary.layers else 0
        if not 0 <= each.feature < size:
            raise EditError(
                f"There is no feature {each.feature} at layer {each.layer}.",
                f"Layers are 0 to {dictionary.layers - 1}; this one has {size} features.",
            )
        if each.positions and min(each.positions) < 0:
            raise EditError(f"positions={each.positions} has a negative one.", "Count from 0.")
        if isinstance(each.value, tuple) and len(each.value) != len(each.positions or ()):
            raise EditError(
                f"There are {len(each.value)} values for {len(each.positions or ())} positions.",
                "Give one value, or one for each position.",
            )


def _kept_pattern(name: str, pattern: Tensor) -> tuple[str, HookFunction]:
    return f"{name}.hook_pattern", lambda now, _hook: pattern.expand_as(now)


@contextmanager
def _frozen_norms(tape: Tape) -> Iterator[None]:
    """Every norm computes its frozen affine map."""
    w, pairs = tape.wiring, []
    for block, attention, mlp in zip(w.blocks, tape.attention, tape.mlp, strict=True):
        pairs += [(block.attention.norm, attention.norm), (block.attention.post_norm, attention.post)]
        pairs += [(block.mlp.norm, mlp.norm), (block.mlp.post_norm, mlp.post)]
    pairs.append((w.final_norm, tape.final))
    handles = [
        module.register_forward_hook(_replaced_by(norm), with_kwargs=True)
        for module, norm in pairs
        if module is not None and norm is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replaced_by(norm: FrozenNorm) -> Callable[..., Tensor]:
    def hook(_module: nn.Module, args: tuple, kwargs: dict[str, Any], _out: Tensor) -> Tensor:
        return norm(args[0] if args else kwargs["hidden_states"])

    return hook


class _Linear:
    """What features become when their gates stay: their clean activation, and the slopes times what changed of their input."""

    def __init__(self, dictionary: Dictionary, tape: Tape, sources: Clean) -> None:
        self.dictionary, self.tape, self.sources = dictionary, tape, sources
        self.changed: dict[int, Tensor] = {}

    def read(self, layer: int, x: Tensor) -> None:
        """Note what the features of a layer read now, `(row, pos, d)`."""
        slopes, change = (
            self.sources.slopes_of(layer),
            x - feature_input(self.dictionary, self.tape.mlp[layer]),
        )
        self.changed[layer] = sum(  # type: ignore[assignment]
            slopes[..., k] * (change @ reading.weight.T)
            for k, reading in enumerate(self.dictionary.readings(layer))
        )
        if (skip := self.dictionary.skip(layer)) is not None:
            self._skipped = change @ skip.T

    def activation(self, layer: int, row: int, pos: Tensor, feature: Tensor) -> Tensor:
        """`(n,)` of some features in one row."""
        clean = self.sources.activation_at(layer, pos, feature)
        return clean + self.changed[layer][row, pos, feature]

    def written(self, out: int, rows: int) -> Tensor:
        """What an MLP writes: `(row, pos, d)`."""
        mlp = self.tape.mlp[out]
        total = (mlp.raw if self.dictionary.writes == "mlp_raw" else mlp.out).expand(rows, -1, -1)
        for layer in self.dictionary.sources(out):
            total = total + self.changed[layer] @ self.dictionary.decoder(layer, out, None)
        return total if self.dictionary.skip(out) is None else total + self._skipped


@contextmanager
def _held_gates(model: Model, dictionary: Dictionary, tape: Tape, sources: Clean) -> Iterator[_Linear]:
    """Every MLP writes what its features, linear in what they read, make of its input."""
    linear = _Linear(dictionary, tape, sources)
    handles = []
    for block in tape.wiring.blocks:
        after = dictionary.writes == "mlp_out" and block.mlp.post_norm is not None
        module = block.mlp.post_norm if after else block.mlp.down_module
        assert module is not None

        def write(_module: nn.Module, _args: tuple, out: Tensor, layer: int = block.layer) -> Tensor:
            return linear.written(layer, len(out))

        handles.append(module.register_forward_hook(write))
    try:
        with model.hooks(
            fwd_hooks=[
                (point, _reading_into(linear, dictionary, block))
                for block in tape.wiring.blocks
                if dictionary.size(block.layer)
                for point in [
                    block.mlp.input_point if dictionary.reads == "mlp_in" else block.mlp.stream_point
                ]
            ]
        ):
            yield linear
    finally:
        for handle in handles:
            handle.remove()


def _reading_into(linear: _Linear, dictionary: Dictionary, block: BlockWiring) -> HookFunction:
    def read(x: Tensor, _hook: Visit) -> None:
        linear.read(block.layer, divided(x, block.mlp.norm) if dictionary.reads == "normalized" else x)

    return read


def divided(x: Tensor, norm: nn.Module) -> Tensor:
    """What a norm makes of the stream before gain and bias."""
    if isinstance(norm, torch.nn.LayerNorm):
        x = x - x.mean(dim=-1, keepdim=True)
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0))
    return x * (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()


@dataclass
class _Writer:
    """Reads activations where features read, and adds their changes where they write."""

    model: Model
    dictionary: Dictionary
    rows: Sequence[Row]
    clean: Tape | None
    sources: Clean | None
    stream: str | None
    linear: _Linear | None
    _due: dict[int, Tensor] = field(default_factory=dict)
    _inputs: dict[int, Tensor] = field(default_factory=dict)

    @contextmanager
    def attached(self) -> Iterator[None]:
        wiring = stack_wiring(self.model, self.stream)
        after_norm = self.dictionary.reads == "mlp_in"
        mlps = {block.layer: block.mlp for block in wiring.blocks}
        points: list[tuple[str, HookFunction]] = [
            (mlps[layer].input_point if after_norm else mlps[layer].stream_point, self._reader(layer))
            for layer in self._reading(wiring)
        ]
        with ExitStack() as stack:
            stack.enter_context(self.model.hooks(fwd_hooks=points))
            for block in self._writing(wiring):
                module = block.mlp.down_module
                if self.dictionary.writes == "mlp_out" and block.mlp.post_norm is not None:
                    module = block.mlp.post_norm
                stack.callback(module.register_forward_hook(self._hook(block.layer)).remove)
            yield

    def _reading(self, wiring: StackWiring) -> list[int]:
        changed = {each.layer for row in self.rows for each in row}
        skipping = {
            b.layer for b in wiring.blocks if self.clean and self.dictionary.skip(b.layer) is not None
        }
        return sorted(changed | skipping)

    def _writing(self, wiring: StackWiring) -> list[BlockWiring]:
        """Blocks whose MLP output is changed, or held."""
        changed = {out for row in self.rows for each in row for out in self.dictionary.targets(each.layer)}
        return [block for block in wiring.blocks if self.clean or block.layer in changed]

    def _reader(self, layer: int) -> HookFunction:
        def read(x: Tensor, hook: Visit) -> None:
            self._inputs[layer] = x
            for i, row in enumerate(self.rows):
                for each in row:
                    if each.layer == layer:
                        self._change(each, i, x, hook.offset)

        return read

    def _change(self, each: Intervention, row: int, x: Tensor, offset: int) -> None:
        positions = range(offset, offset + x.shape[1]) if each.positions is None else each.positions
        kept = [0 <= p - offset < x.shape[1] for p in positions]
        here = torch.tensor([p - offset for p, keep in zip(positions, kept, strict=True) if keep]).long()
        if not len(here):
            return
        feature = torch.full_like(here, each.feature)
        if self.linear is not None:
            now = self.linear.activation(each.layer, row, here, feature)
        else:
            now = self._activation(each.layer, x[row], here, feature)
        delta = each.delta(now, kept)
        for out in self.dictionary.targets(each.layer):
            vector = self.dictionary.decoder(each.layer, out, feature[:1])[0]
            due = self._due.setdefault(out, x.new_zeros(*x.shape[:2], self.dictionary.width))
            due[row, here] += delta[:, None] * vector

    def _activation(self, layer: int, x: Tensor, pos: Tensor, feature: Tensor) -> Tensor:
        if self.sources is not None and self.clean is not None:
            return self.sources.activation_at(layer, pos, feature)
        return self.dictionary.activations(layer, self._input(layer, x), pos, feature)

    def _input(self, layer: int, x: Tensor) -> Tensor:
        """What features read, from the point that was read."""
        if self.dictionary.reads != "normalized":
            return x
        return divided(x, stack_wiring(self.model, self.stream).blocks[layer].mlp.norm)

    def _hook(self, layer: int) -> Callable[..., Tensor]:
        def write(_module: nn.Module, _args: tuple, out: Tensor) -> Tensor:
            due = self._due.pop(layer, None)
            if self.clean is not None:
                out = self._held(layer, out)
            return out if due is None else out + due

        return write

    def _held(self, layer: int, out: Tensor) -> Tensor:
        """The clean MLP output, and what a skip path makes of a changed input."""
        assert self.clean is not None
        mlp = self.clean.mlp[layer]
        held = (mlp.raw if self.dictionary.writes == "mlp_raw" else mlp.out).expand_as(out)
        skip = self.dictionary.skip(layer)
        if skip is None:
            return held
        x, x0 = self._inputs[layer], mlp.x if self.dictionary.reads == "mlp_in" else mlp.stream
        change = x - x0
        if self.dictionary.reads == "normalized":
            change = change - change.mean(dim=-1, keepdim=True) if mlp.norm.centred else change
            change = change * mlp.norm.scale
        return held + change @ skip.T
