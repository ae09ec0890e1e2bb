"""A pass kept layer by layer, so that edited rows can begin at any layer of it.

What lies below the first edited layer is the same for every edit, so it is computed once. The layers are called just as the
model itself called them, which works for every family.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from otoscope.errors import OptionError
from otoscope.models.decoding import DecoderSession

if TYPE_CHECKING:
    from torch import Tensor, nn

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
        hidden = self.residuals[first].expand(rows, -1, -1) if hidden is None else hidden
        fresh = self._fresh(rows, heard)

        def now(value: Any) -> Any:
            if fresh is None or self.session is None:
                return value
            if value is self.session.cache:
                return fresh.cache
            return fresh.encoded if value is self.session.encoded else value

        self.model.begin_forward()
        for layer, (args, kwargs) in zip(
            layers_of(self.model, self.stack)[first:], self.calls[first:], strict=True
        ):
            hidden = _hidden(layer(hidden, *map(now, args), **{k: now(v) for k, v in kwargs.items()}))
        return hidden

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


def _hidden(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out
