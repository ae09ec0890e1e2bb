"""Interventions: set, scale or ablate features while the model runs, with everything frozen or with the model reacting.

A feature that is changed by `delta` adds `delta` times its write vectors to the MLP outputs it writes to. What else may
change is said by `freeze`:

    none      the model reacts as it does; also inside `generate`, where changes without positions go on for every new token
    patterns  attention patterns stay as they were
    replacement  patterns and norm scales stay; features go on reading, and what the dictionary misses stays: the local
              replacement model of Ameisen et al. 2025, whose perturbations they compare with the model's
    all       patterns, norm scales and MLP outputs stay as they were: only the direct effect is left (linear, exact)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from otoscope.circuits.tape import FrozenNorm, Tape
from otoscope.errors import EditError
from otoscope.models.wiring import BlockWiring, StackWiring, stack_wiring

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.activations import HookFunction, Visit
    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model

Freeze = Literal["none", "patterns", "replacement", "all"]


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
    """The activations of an undisturbed run."""

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
        sources: The clean activations, for `freeze="all"`.
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
        if freeze in ("replacement", "all") and tape is not None:
            stack.enter_context(_frozen_norms(tape))
        if freeze == "replacement" and tape is not None and not dictionary.exact:
            stack.enter_context(_replaced_mlps(dictionary, tape))
        writer = _Writer(model, dictionary, rows, tape if freeze == "all" else None, sources, stream)
        stack.enter_context(writer.attached())
        yield


def _check(
    dictionary: Dictionary, rows: Sequence[Row], tape: Tape | None, sources: Clean | None, freeze: Freeze
) -> None:
    if freeze != "none" and (tape is None or (freeze == "all" and sources is None)):
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


@contextmanager
def _replaced_mlps(dictionary: Dictionary, tape: Tape) -> Iterator[None]:
    """Every MLP writes what the features make of its input, and what they missed in the clean run."""
    seen: dict[int, Tensor] = {}

    def noting(layer: int) -> Callable[..., None]:
        def note(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            seen[layer] = args[0] if args else kwargs["hidden_states"]

        return note

    def writing(layer: int) -> Callable[..., Tensor]:
        mlp = tape.mlp[layer]
        clean = mlp.raw if dictionary.writes == "mlp_raw" else mlp.out

        def write(_module: nn.Module, _args: tuple, out: Tensor) -> Tensor:
            return clean + _reconstructed(dictionary, tape, seen, layer, len(out)) - before[layer]

        return write

    before = {
        layer: _reconstructed(
            dictionary, tape, {n: tape.mlp[n].stream[None] for n in range(layer + 1)}, layer, 1
        )
        for layer in range(tape.layers)
    }
    handles = []
    for block in tape.wiring.blocks:
        handles.append(block.mlp.norm.register_forward_pre_hook(noting(block.layer), with_kwargs=True))
        after = dictionary.writes == "mlp_out" and block.mlp.post_norm is not None
        module = block.mlp.post_norm if after else block.mlp.down_module
        assert module is not None
        handles.append(module.register_forward_hook(writing(block.layer)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reconstructed(
    dictionary: Dictionary, tape: Tape, streams: dict[int, Tensor], out: int, rows: int
) -> Tensor:
    """What the features write into a layer, given what they read of the stream: `(row, pos, d)`."""
    total = []
    for row in range(rows):
        inputs = {}
        for layer in {*dictionary.sources(out), out}:
            norm, x = tape.mlp[layer].norm, streams[layer][row]
            if dictionary.reads == "mlp_in":
                x = norm(x)
            elif dictionary.reads == "normalized":
                x = norm.scale * (x - x.mean(dim=-1, keepdim=True) if norm.centred else x)
            inputs[layer] = x
        actives = [
            dictionary.encode(layer, inputs[layer]) if layer in inputs else None for layer in range(out + 1)
        ]
        total.append(dictionary.reconstruct(actives, out, inputs[out]))  # type: ignore[arg-type]
    return torch.stack(total)


@dataclass
class _Writer:
    """Reads activations where features read, and adds their changes where they write."""

    model: Model
    dictionary: Dictionary
    rows: Sequence[Row]
    clean: Tape | None
    sources: Clean | None
    stream: str | None
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
        delta = each.delta(self._activation(each.layer, x[row], here, feature), kept)
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
        norm = stack_wiring(self.model, self.stream).blocks[layer].mlp.norm
        if isinstance(norm, torch.nn.LayerNorm):
            x = x - x.mean(dim=-1, keepdim=True)
        eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0))
        return x * (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()

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
