"""What a hook does with the raw tensors of a module: takes them out, checks what comes back, and puts it in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations.edits import Visit
from otoscope.activations.points import HookPoint
from otoscope.errors import PointError

if TYPE_CHECKING:
    from torch import Tensor, nn

HookFunction = Callable[["Tensor", Visit], "Tensor | None"]
"""`fn(activation, hook)`: the canonical activation and when it was met; returns a new tensor, or None for unchanged."""


def gradient_hook(point: HookPoint, fn: HookFunction, strict: bool) -> HookFunction:
    """What watches a raw tensor for its gradient; constants (frozen position tables) are an error only if `strict`."""
    if point.at == "result":
        raise PointError(
            f"{point.name} has no gradient of its own: it is computed beside the model's own sum over heads.",
            "Take the gradient of hook_z, or of the attention's output, which every head's result shares.",
        )

    def watch(raw: Tensor, visit: Visit) -> None:
        if not raw.requires_grad:
            if torch.is_grad_enabled() and not strict:
                return
            raise PointError(
                f"{point.name} carries no gradient in this call.",
                "Run under torch.enable_grad() with weights that require gradients.",
            )

        def on_gradient(g: Tensor) -> Tensor | None:
            new = fn(point.layout.read(g), visit)
            return None if new is None else checked_put(point, g, new)

        raw.register_hook(on_gradient)

    return watch


def checked_put(point: HookPoint, raw: Tensor, new: Tensor) -> Tensor:
    """A raw tensor with a canonical one put into it; `PointError` where the shape is another."""
    check_shape(point, new, point.layout.read(raw).shape)
    return point.layout.put(raw, new)


def check_shape(point: HookPoint, new: Tensor, shape: torch.Size) -> None:
    """Refuse a tensor of another shape with a `PointError`."""
    if new.shape != shape:
        raise PointError(
            f"A hook on {point.name} returned shape {tuple(new.shape)} instead of {tuple(shape)}.",
            "Return a tensor of the shape it was given, or None.",
        )


def showing(fn: Callable[[Tensor, HookPoint], None], point: HookPoint) -> Callable[..., None]:
    """A forward hook of PyTorch that shows an output and leaves it alone."""

    def show(_module: nn.Module, _args: tuple, out: Any) -> None:
        fn(out[0] if isinstance(out, tuple) else out, point)

    return show


def replace_output(out: Any, apply: Callable[[Tensor], Tensor | None]) -> Any:
    """A module's output with its tensor changed; None where nothing changes, or where it was changed in place."""
    if isinstance(out, tuple):
        new = apply(out[0])
        return None if new is None else (new, *out[1:])
    if isinstance(out, torch.Tensor):
        return apply(out)
    new = apply(out.last_hidden_state)  # a stack's ModelOutput
    if new is not None:
        out.last_hidden_state = new
    return None


def replace_input(
    args: tuple, kwargs: dict, apply: Callable[[Tensor], Tensor | None]
) -> tuple[tuple, dict] | None:
    """A module's arguments with the first tensor changed; None where nothing changes."""
    if args:
        new = apply(args[0])
        return None if new is None else ((new, *args[1:]), kwargs)
    new = apply(kwargs["hidden_states"])
    return None if new is None else (args, kwargs | {"hidden_states": new})


def replace_input_in_place(args: tuple, kwargs: dict, apply: Callable[[Tensor], Tensor | None]) -> None:
    """Write into the very tensor that the layer has kept as its residual branch: returning another would edit only the
    norm's input.
    """
    raw = args[0] if args else kwargs["hidden_states"]
    new = apply(raw)
    if new is not None:
        raw.copy_(new)


def attach_result(
    module: nn.Module, point: HookPoint, fn: Callable[[Tensor], Tensor | None]
) -> Callable[[], None]:
    """`z @ W_O` per head, computed on request; a change is written as a delta on the module's output."""

    def hook(_module: nn.Module, args: tuple, out: Tensor) -> Tensor | None:
        z = args[0].unflatten(-1, (point.heads or 1, -1))
        result = torch.einsum("bphd,hdm->bphm", z, head_output_weights(module, point.heads or 1))
        new = fn(result)
        if new is None:
            return None
        check_shape(point, new, result.shape)
        return out + (new - result).sum(dim=2)

    return module.register_forward_hook(hook).remove


def head_output_weights(projection: nn.Module, heads: int) -> Tensor:
    """Output weights per head, `(head, d_head, d_model)`, of a Linear or GPT-2 Conv1D output projection."""
    weight: Tensor = projection.weight  # type: ignore[assignment]
    w = weight if type(projection).__name__ == "Conv1D" else weight.T
    return w.unflatten(0, (heads, -1))
