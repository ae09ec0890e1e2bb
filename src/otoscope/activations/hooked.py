"""Reading and editing a PyTorch model through its named points, with hooks and nothing else.

The wrapped module is never changed: hooks are added for the length of a block and removed after it, after an exception and
after Ctrl-C. Logits are the model's own.
"""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations.cache import ActivationCache
from otoscope.activations.edits import Edit, Visit
from otoscope.activations.placing import (
    HookFunction,
    attach_result,
    checked_put,
    gradient_hook,
    replace_input,
    replace_input_in_place,
    replace_output,
    showing,
)
from otoscope.activations.points import HookPoint, Names, PointTable
from otoscope.activations.seam import add_tap, implementation, seam
from otoscope.errors import EditError, PointError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


CACHE_NAMES = ("cache", "past_key_values")
"""What Transformers calls the key-value cache, from release 5.24 on and before."""


class EditNotApplied(UserWarning):
    """An edit met its point, but never one of its rows, positions or steps."""


class _Stop(Exception):  # noqa: N818 - a way out, not an error
    """Carries the residual stream out of a forward pass that ends early."""

    def __init__(self, residual: Tensor) -> None:
        super().__init__("stopped")
        self.residual = residual


class _Copies:
    """Detached copies, one for a tensor that is met under two names in a row: `resid_post` is the next layer's `resid_pre`."""

    def __init__(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        self.device, self.dtype = device, dtype
        self._last: tuple[Tensor, int, tuple, Tensor] | None = None

    def of(self, x: Tensor, where: tuple) -> Tensor:
        version = -1 if x.is_inference() else x._version  # a write in place counts the version up
        if (
            self._last is not None
            and self._last[0] is x
            and self._last[1:3] == (version, where)
            and version >= 0
        ):
            return self._last[3]
        part = x.detach()[where] if where else x.detach()
        copy = part.to(device=self.device or x.device, dtype=self.dtype or x.dtype, copy=True)
        self._last = (x, version, where, copy)
        return copy


@dataclass
class Clock:
    """Where the decoder stands: step, absolute offset and phase, told by the cache it is called with."""

    step: int = 0
    offset: int = 0
    phase: str = "forward"
    ticks: int = 0
    rows: tuple[int, ...] | None = None
    detecting: bool = False
    _prompt: int = field(default=0, repr=False)

    def tick(self, past: int | None, new: int, detecting: bool) -> None:
        """Note a call of the stack with `past` cached positions (None: no cache) and `new` ones."""
        self.ticks += 1
        self.offset = past or 0
        if past:
            self.step, self.phase = past - self._prompt + 1, "decode"
        else:
            self.step, self._prompt = 0, new
            self.phase = "detect_language" if detecting else "forward" if past is None else "prefill"


class HookedModel:
    """A module with a table of named points.

    Attributes:
        hf: The untouched PyTorch module.
        points: Its hook points.
    """

    def __init__(self, hf: nn.Module, points: PointTable) -> None:
        self.hf = hf
        self.points = points
        self._clock = Clock()
        self._clock_users = 0
        self._clock_handles: list[RemovableHandle] = []
        self._hooked: dict[str, int] = {}
        self._row_edits = 0
        self._own_hooks = ExitStack()

    def forward(self, inputs: Any) -> Any:
        """Run the model on `inputs`; families say what they take."""
        return self.hf(**inputs)

    @property
    def attention(self) -> str:
        """Attention implementation in force (`sdpa`, `eager`, ... or `otoscope` inside a seam)."""
        return implementation(self.hf)

    # Hooks -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[Names, HookFunction]] = (),
        bwd_hooks: Sequence[tuple[Names, HookFunction]] = (),
    ) -> Iterator[HookedModel]:
        """Call functions on activations (or on their gradients) inside the block.

        Args:
            fwd_hooks: Pairs of a names filter and `fn(activation, hook)`; what `fn` returns replaces the activation.
            bwd_hooks: The same for gradients, in canonical layout; needs a forward pass with gradients.

        Raises:
            PointError: A point does not exist, or its attention cannot be tapped.
        """
        forward = [(point, fn) for names, fn in fwd_hooks for point in self.points.select(names)]
        backward = [
            (point, gradient_hook(point, fn, strict=names is not None))
            for names, fn in bwd_hooks
            for point in self.points.select(names)
        ]
        with ExitStack() as stack:
            self._enter(stack, forward, backward)
            yield self

    @contextmanager
    def looking(self, looks: Sequence[tuple[str, Callable[[Tensor, HookPoint], None]]]) -> Iterator[None]:
        """Show what points put out, as the module gives it, to functions that change nothing: a fraction of a hook's cost.

        Args:
            looks: Pairs of a name and `fn(raw, point)`; `point.layout.read(raw)` is the canonical activation. `visit` tells
                when it was met.

        Raises:
            PointError: There is no such point, or it is no module's output.
        """
        points = [(self.points[name], fn) for name, fn in looks]
        for point, _ in points:
            if point.needs_seam or point.at != "output":
                raise PointError(f"{point.name} is no module's output.", "Read it with `hooks`.")
        with ExitStack() as stack:
            stack.enter_context(self._ticking())
            for point, fn in points:
                module = self.hf.get_submodule(point.module)
                stack.callback(module.register_forward_hook(showing(fn, point)).remove)
            yield

    def visit(self, name: str) -> Visit:
        """When and for whom a hook at this point fires now."""
        return self._visit(self.points[name])

    def add_hook(self, name: Names, fn: HookFunction, dir: str = "fwd") -> None:
        """Add a hook that stays until `reset_hooks` (`dir` is "fwd" or "bwd"). Prefer `with model.hooks(...)`."""
        pairs = [(name, fn)]
        self._own_hooks.enter_context(
            self.hooks(fwd_hooks=pairs if dir == "fwd" else (), bwd_hooks=pairs if dir == "bwd" else ())
        )

    def reset_hooks(self) -> None:
        """Remove every hook added with `add_hook`."""
        self._own_hooks.close()

    def _enter(
        self,
        stack: ExitStack,
        forward: Sequence[tuple[HookPoint, HookFunction]],
        backward: Sequence[tuple[HookPoint, HookFunction]] = (),
    ) -> None:
        both = [*forward, *backward]
        tapped = [self.hf.get_submodule(point.module) for point, _ in both if point.needs_seam]
        if tapped:
            stack.enter_context(seam(self.hf, tapped))
        stack.enter_context(self._ticking())
        for point, _ in both:
            self._hooked[point.name] = self._hooked.get(point.name, 0) + 1
            stack.callback(self._unhook, point.name)
        for point, fn in forward:
            stack.callback(self._attach(point, fn))
        for point, fn in backward:
            stack.callback(self._attach(point, fn, grad=True))

    def _unhook(self, name: str) -> None:
        self._hooked[name] -= 1

    def is_hooked(self, pattern: str) -> bool:
        """Whether a hook, edit or reading is in place now at a point whose name matches the glob."""
        return any(count and fnmatch.fnmatchcase(name, pattern) for name, count in self._hooked.items())

    def _forget_row_edits(self) -> None:
        self._row_edits -= 1

    @property
    def edits_rows(self) -> bool:
        """Whether an edit that names rows is in place now."""
        return self._row_edits > 0

    @property
    def open_hooks(self) -> int:
        """How many hooks are in place now."""
        return sum(self._hooked.values())

    def _visit(self, point: HookPoint) -> Visit:
        c = self._clock
        main = next(iter(self.points.stacks))
        if point.stack != main:  # an encoder runs once and knows no decoding step
            return Visit(point.name, point.layer, 0, 0, "forward", c.rows)
        return Visit(point.name, point.layer, c.step, c.offset, c.phase, c.rows)  # type: ignore[arg-type]

    def _attach(self, point: HookPoint, fn: HookFunction, grad: bool = False) -> Callable[[], None]:
        """Register `fn` at `point`; returns what removes it. With `grad`, `fn` gets the raw tensor and changes nothing."""
        module = self.hf.get_submodule(point.module)

        def apply(raw: Tensor) -> Tensor | None:
            if grad:
                fn(raw, self._visit(point))
                return None
            new = fn(point.layout.read(raw), self._visit(point))
            return None if new is None else checked_put(point, raw, new)

        if point.needs_seam:
            return add_tap(module, point.at, apply)
        if point.at == "result":
            return attach_result(module, point, lambda x: fn(x, self._visit(point)))
        if point.at == "output":
            return module.register_forward_hook(lambda _m, _a, out: replace_output(out, apply)).remove
        replace = replace_input_in_place if point.in_place else replace_input
        return module.register_forward_pre_hook(
            lambda _m, args, kwargs: replace(args, kwargs, apply), with_kwargs=True
        ).remove

    @contextmanager
    def _ticking(self) -> Iterator[None]:
        """Keep the clock going while any hook is in place, in whatever order they end."""
        if self._clock_users == 0:
            self._clock_handles = [
                self.hf.get_submodule(path).register_forward_pre_hook(self._tick, with_kwargs=True)
                for path in self.points.clocks
            ]
        self._clock_users += 1
        try:
            yield
        finally:
            self._clock_users -= 1
            if self._clock_users == 0:
                for handle in self._clock_handles:
                    handle.remove()

    def _tick(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        ids = kwargs.get("input_ids")
        ids = kwargs.get("inputs_embeds") if ids is None else ids
        ids = args[0] if ids is None and args else ids
        new = 0 if ids is None else ids.shape[1]
        cache = next((kwargs[name] for name in CACHE_NAMES if kwargs.get(name) is not None), None)
        uncached = kwargs.get("use_cache") is False or (cache is None and not kwargs.get("use_cache"))
        past = None if uncached and cache is None else (0 if cache is None else int(cache.get_seq_length()))
        # Only a speech recogniser asks for the language; in Hugging Face's `generate` by one token without a cache.
        by_generate = past is None and new == 1 and "decoder" in self.points.stacks
        self._clock.tick(past, new, detecting=self._clock.detecting or by_generate)

    def begin_forward(self) -> None:
        """Tell hooks that layers are called one by one from here on: a forward without a cache, from position 0."""
        self._clock.tick(None, 0, detecting=False)

    @contextmanager
    def rows(self, rows: Sequence[int] | None) -> Iterator[None]:
        """Tell edits which original row each batch row now is (once finished rows have left, or rows were repeated)."""
        before = self._clock.rows
        self._clock.rows = None if rows is None else tuple(rows)
        try:
            yield
        finally:
            self._clock.rows = before

    @property
    def row_numbers(self) -> tuple[int, ...] | None:
        """The original row of each batch row now; None: rows are as given."""
        return self._clock.rows

    @contextmanager
    def detecting_language(self) -> Iterator[None]:
        """Mark calls inside the block as the question which language is spoken."""
        self._clock.detecting = True
        try:
            yield
        finally:
            self._clock.detecting = False

    # Reading ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def capturing(
        self,
        names_filter: Names = None,
        *,
        pos_slice: slice | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Iterator[ActivationCache]:
        """Read points inside the block, around any forward call or `generate`.

        Only what is asked for is kept: detached, copied, cut to `pos_slice` before it is copied.

        Args:
            names_filter: Name, glob, several, predicate, or None for every plain point.
            pos_slice: Positions (or frames) to keep of each visit.
            device: Where to keep them; default where they are.
            dtype: Precision to keep them in; default as they are.

        Yields:
            The cache, filled as the model runs.
        """
        points = self.points.select(names_filter)
        with ExitStack() as stack:
            cache = ActivationCache(self.points, self.attention)
            keep = self._keeper(cache, pos_slice, device, dtype)
            self._enter(stack, [(point, keep) for point in points])
            cache.attention = self.attention
            yield cache

    def _keeper(
        self,
        cache: ActivationCache,
        pos_slice: slice | int | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        suffix: str = "",
    ) -> HookFunction:
        """A hook that stores a detached copy of what it meets."""
        cut = slice(pos_slice, pos_slice + 1 or None) if isinstance(pos_slice, int) else pos_slice

        copies = _Copies(device, dtype)

        def keep(x: Tensor, hook: Visit) -> None:
            axis = self.points[hook.name].axis("pos", "frame")
            where = () if cut is None or axis is None else (slice(None),) * axis + (cut,)
            cache.store(hook.name + suffix, copies.of(x, where), hook)

        return keep

    def run_with_cache(
        self,
        inputs: Any,
        names_filter: Names = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        pos_slice: slice | int | None = None,
        stop_at_layer: int | None = None,
        incl_bwd: bool | Callable[[Any], Tensor] = False,
    ) -> tuple[Any, ActivationCache]:
        """One forward pass and the activations of the named points.

        Args:
            inputs: What `forward` takes.
            names_filter: Name, glob, several, predicate, or None for every plain point.
            device: Where to keep activations.
            dtype: Precision to keep them in.
            pos_slice: Positions to keep.
            stop_at_layer: Stop before this layer of the main stack; the output is then its incoming residual stream.
            incl_bwd: Also run backward and keep gradients under `name + "_grad"`: True uses the output's loss, a function
                maps the output to a scalar. The parameters' own gradients are left as they were.

        Returns:
            The model's output and the cache.

        Raises:
            PointError: A name does not exist, the filter matches nothing, there is no loss to differentiate, or a pass that
                stops early is asked for gradients.
        """
        if incl_bwd:
            if stop_at_layer is not None:
                raise PointError(
                    "A pass that stops at a layer has no output to differentiate.",
                    "Leave out stop_at_layer or incl_bwd.",
                )
            keep = {"device": device, "dtype": dtype, "pos_slice": pos_slice}
            return self._run_with_gradients(inputs, names_filter, incl_bwd, keep)
        with (
            self.capturing(names_filter, device=device, dtype=dtype, pos_slice=pos_slice) as cache,
            torch.no_grad(),
        ):
            output = self.forward(inputs) if stop_at_layer is None else self._run_until(stop_at_layer, inputs)
        return output, cache

    def _run_until(self, layer: int, inputs: Any) -> Tensor:
        layers = self.hf.get_submodule(next(iter(self.points.layers.values())))
        count = len(layers)  # type: ignore[arg-type]
        if not 0 <= layer < count:
            raise PointError(
                f"stop_at_layer={layer} is not a layer of this model.",
                f"Choose 0 to {count - 1} (counted from 0).",
            )

        def stop(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            raise _Stop(args[0] if args else kwargs["hidden_states"])

        handle = layers.get_submodule(str(layer)).register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.forward(inputs)
        except _Stop as stopped:
            return stopped.residual
        finally:
            handle.remove()
        raise PointError(f"Layer {layer} was never reached.", "Check that the inputs run the main stack.")

    def _run_with_gradients(
        self, inputs: Any, names: Names, metric: bool | Callable, keep: dict[str, Any]
    ) -> tuple[Any, ActivationCache]:
        with self.capturing(names, **keep) as cache:
            gradient = self._keeper(cache, **keep, suffix="_grad")
            with self.hooks(bwd_hooks=[(names, gradient)]), torch.enable_grad(), _kept_gradients(self.hf):
                output = self.forward(inputs)
                scalar = metric(output) if callable(metric) else getattr(output, "loss", None)
                if scalar is None:
                    raise PointError(
                        "There is no loss to differentiate.",
                        "Pass labels with the inputs, or a function as incl_bwd.",
                    )
                scalar.backward()
        return output, cache

    def run_with_hooks(
        self,
        inputs: Any,
        fwd_hooks: Sequence[tuple[Names, HookFunction]] = (),
        bwd_hooks: Sequence[tuple[Names, HookFunction]] = (),
    ) -> Any:
        """One forward pass with hooks in place; see `hooks`."""
        with self.hooks(fwd_hooks, bwd_hooks), nullcontext() if bwd_hooks else torch.no_grad():
            return self.forward(inputs)

    # Editing ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def editing(self, *edits: Edit | Iterable[Edit]) -> Iterator[HookedModel]:
        """Apply edits inside the block, around any call, Hugging Face's `generate` included.

        Edits of one point are applied in the given order. Each is checked before anything runs.

        Raises:
            PointError: A point does not exist.
            EditError: An edit does not fit its point; or, at the end, its point was never visited although the model ran.

        Warns:
            EditNotApplied: A point was visited, but never at a row, position or step of the edit.
        """
        flat = [e for item in edits for e in ([item] if isinstance(item, Edit) else item)]
        by_point: dict[HookPoint, list[Edit]] = {}
        for edit in flat:
            point = self.points[edit.point]
            edit.check(point)
            by_point.setdefault(point, []).append(edit)
        visited: set[str] = set()
        applied: set[int] = set()

        def apply_all(point: HookPoint, of_point: list[Edit]) -> HookFunction:
            def apply(x: Tensor, visit: Visit) -> Tensor | None:
                visited.add(point.name)
                changed = None  # once it is there it is ours, and later edits write into it
                for edit in of_point:
                    new = edit(x if changed is None else changed, point, visit, owned=changed is not None)
                    if new is not None:
                        applied.add(id(edit))
                        changed = new
                return changed

            return apply

        with ExitStack() as stack:
            self._enter(stack, [(point, apply_all(point, of_point)) for point, of_point in by_point.items()])
            if any(edit.rows is not None for edit in flat):
                self._row_edits += 1
                stack.callback(self._forget_row_edits)
            ticks = self._clock.ticks
            yield self
            if self._clock.ticks > ticks:
                _report_unused(flat, self.points, visited, applied)


@contextmanager
def _kept_gradients(module: nn.Module) -> Iterator[None]:
    """Give the parameters back the gradients they had before the block."""
    before = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def _report_unused(edits: list[Edit], points: PointTable, visited: set[str], applied: set[int]) -> None:
    for edit in edits:
        name = points.canonical(edit.point)
        if name not in visited:
            raise EditError(
                f"The edit of {name} never took place: the model ran, but not that part of it.",
                "Run the part inside the block (an encoder edit needs the encoder to run).",
            )
        if id(edit) not in applied:
            warnings.warn(
                f"The edit of {name} never met its rows, positions or steps.", EditNotApplied, stacklevel=4
            )
