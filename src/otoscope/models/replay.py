"""A pass kept layer by layer, so that edited rows can begin at any layer of it.

What lies below the first edited layer is the same for every edit, so it is computed once. The layers are called just as the
model itself called them, which works for every family. Where an encoder's layer is edited after its heads have mixed positions,
as when a head or an MLP is zeroed, they mix them once for all rows: that is most of a layer's work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from otoscope.errors import OptionError
from otoscope.models.decoding import DecoderSession

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.activations import HookPoint
    from otoscope.models.base import Model


FITS_SEAM = ("eager", "otoscope")
"""Attention implementations whose masks are what the attention seam takes."""


@dataclass(frozen=True, eq=False)
class Replay:
    """One pass of a stack over a single input, from its first position on.

    Attributes:
        model: The model.
        stack: Which of its stacks, such as `decoder` or `text`.
        residuals: What entered each layer, and what left the last, `(1, pos, d_model)` each.
        calls: What else each layer was called with, by place and by name.
        session: For a Whisper decoder, the session that ran it.
        attention: Attention implementation that ran.
    """

    model: Model
    stack: str
    residuals: list[Tensor]
    calls: list[tuple[tuple, dict[str, Any]]]
    session: DecoderSession | None = None
    attention: str = "eager"

    @classmethod
    def of(
        cls, model: Model, stack: str, run: Callable[[], Any], session: DecoderSession | None = None
    ) -> Replay:
        """Run a pass and keep it.

        Args:
            model: The model; an edit that is in place becomes part of what is kept.
            stack: The stack to keep.
            run: Runs the stack once.
            session: For a Whisper decoder, the session that `run` steps.
        """
        residuals: list[Tensor] = []
        calls: list[tuple[tuple, dict[str, Any]]] = []

        def keep(_layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            residuals.append(hidden.clone())
            calls.append((args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}))

        layers, attention = layers_of(model, stack), model.attention
        with ExitStack() as hooks, torch.no_grad():
            for layer in layers:
                hooks.callback(layer.register_forward_pre_hook(keep, with_kwargs=True).remove)
            end = layers[-1].register_forward_hook(lambda _m, _a, out: residuals.append(_hidden(out).clone()))
            hooks.callback(end.remove)
            run()
        return cls(model, stack, residuals, calls, session, attention)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.calls)

    def run(self, first: int, rows: int, heard: Tensor | None = None, hidden: Tensor | None = None) -> Tensor:
        """Call the layers from one on; hooks and edits that are in place act as in a forward without a cache.

        Args:
            first: The first layer that is called.
            rows: How many copies of the input run side by side.
            heard: For a Whisper decoder, what the rows hear, `(1 or row, frame, d_model)`; None: what was heard.
            hidden: What enters the first layer, `(row, pos, d_model)`; None: what was kept.

        Returns:
            What leaves the last layer, `(row, pos, d_model)`.

        Raises:
            OptionError: Attention scores or patterns are hooked now, and the pass was kept with masks that do not fit them.
        """
        self._check_masks()
        alike = hidden is None and self._mixes_alike(first, rows)
        hidden = self.residuals[first].expand(rows, -1, -1) if hidden is None else hidden
        fresh = self._fresh(rows, heard)

        def now(value: Any) -> Any:
            if fresh is None or self.session is None:
                return value
            if value is self.session.cache:
                return fresh.cache
            return fresh.encoded if value is self.session.encoded else value

        self.model.begin_forward()
        layers = layers_of(self.model, self.stack)
        for index in range(first, len(layers)):
            args, kwargs = self.calls[index]
            call = partial(
                _called, layers[index], tuple(map(now, args)), {k: now(v) for k, v in kwargs.items()}
            )
            with self._mixed_once(index, rows, call) if alike and index == first else nullcontext():
                hidden = _hidden(call(hidden))
        return hidden

    def _mixes_alike(self, layer: int, rows: int) -> bool:
        """Whether the heads of a layer mix the same in all rows: in an encoder, where nothing is hooked that lies before it.

        Of other stacks the attention also fills a cache, and gradients may be asked for of weights.
        """
        if self.stack != "encoder" or rows == 1 or torch.is_grad_enabled():
            return False
        points = self.model.points
        names = [name for name, point in points.items() if (point.stack, point.layer) == (self.stack, layer)]
        z = names.index(self._z(layer).name)  # points stand in the order in which they are computed
        return not any(self.model.is_hooked(name) for name in names[:z])

    def _z(self, layer: int) -> HookPoint:
        return self.model.points[f"{self.model.points.stacks[self.stack]}.{layer}.attn.hook_z"]

    @contextmanager
    def _mixed_once(self, layer: int, rows: int, call: Callable[[Tensor], Any]) -> Iterator[None]:
        """Meanwhile a layer's attention gives every row what its heads mix of the kept pass; the output is projected for each."""
        path, _, name = self._z(layer).module.rpartition(".")
        attention: nn.Module = self.model.hf.get_submodule(path)  # type: ignore[assignment]
        project, mixed = attention.get_submodule(name), []

        def catch(_module: nn.Module, args: tuple) -> None:
            mixed.append(args[0].repeat(rows, 1, 1))
            raise _MixedError  # before any edit of z, which names rows that are not there yet

        handle = project.register_forward_pre_hook(catch, prepend=True)
        try:
            call(self.residuals[layer])
        except _MixedError:
            pass
        finally:
            handle.remove()
        own = vars(attention).get("forward")
        attention.forward = lambda *_args, **_kwargs: (project(mixed[0]), None)  # type: ignore[method-assign]
        try:
            yield
        finally:
            del attention.forward
            if own is not None:
                attention.forward = own

    def _check_masks(self) -> None:
        # An encoder is called without a mask, whatever the implementation.
        writes = self.stack == next(iter(self.model.points.stacks))
        if writes and self.attention not in FITS_SEAM and self.model.attention == FITS_SEAM[1]:
            raise OptionError(
                f"A pass kept under {self.attention} attention cannot go on while scores or patterns are hooked.",
                "Keep the pass inside the same block, or use Scene.seamed.",
            )

    def _fresh(self, rows: int, heard: Tensor | None) -> DecoderSession | None:
        """A session without tokens, whose cross-attention keys and values are computed once for all rows of one clip."""
        if self.session is None or heard is None:
            return self.session and self.session.renewed(rows)
        return DecoderSession(self.session.model, heard, [0] * rows if len(heard) == 1 else None)


def layers_of(model: Model, stack: str) -> list[nn.Module]:
    """The layers of a stack."""
    return list(model.hf.get_submodule(model.points.layers[stack]))  # type: ignore[arg-type]


class _MixedError(Exception):
    """What was wanted of a layer is there; the rest of it is not run."""


def _called(layer: nn.Module, args: tuple, kwargs: dict[str, Any], hidden: Tensor) -> Any:
    return layer(hidden, *args, **kwargs)


def _hidden(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out
