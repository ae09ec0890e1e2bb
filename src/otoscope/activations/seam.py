"""The attention seam: scores and patterns, readable and editable inside the attention function.

Transformers resolves attention by name from the configuration. One private name is registered, for the function and for
its mask (a name unknown to the mask registry would silently get no mask at all); `seam` switches a model to it for the
length of a block. Without taps the module's own eager function runs, so the seam changes no bit of an eager run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from otoscope.errors import PointError

if TYPE_CHECKING:
    from torch import Tensor, nn

SEAM = "otoscope"
Tap = Callable[["Tensor"], "Tensor | None"]
_TAPPED = ("query", "key", "scores", "pattern")

# Configurations switched to the seam now: the object, what it ran before, and how many blocks still need the seam.
_switched: dict[int, tuple[Any, str | None, int]] = {}

# Taps by attention module and place. Keyed by id because modules of two models may be equal but are never the same.
_taps: dict[int, dict[str, list[Tap]]] = {}


def add_tap(module: nn.Module, place: str, tap: Tap) -> Callable[[], None]:
    """Call `tap` on a tensor inside `module`'s attention; returns what removes it.

    Args:
        module: Attention module.
        place: `query`, `key` (after rotation and repetition is still to come), `scores` or `pattern`.
        tap: Gets the tensor, `(batch, head, ...)`; returns another to use instead, or None.
    """
    taps = _taps.setdefault(id(module), {name: [] for name in _TAPPED})
    taps[place].append(tap)

    def remove() -> None:
        taps[place].remove(tap)
        if not any(taps.values()):
            _taps.pop(id(module), None)

    return remove


def _run_taps(taps: dict[str, list[Tap]], place: str, x: Tensor) -> Tensor:
    for tap in taps[place]:
        new = tap(x)
        x = x if new is None else new
    return x


def _softmax_in_float32(module: nn.Module) -> bool:
    """Llama-like attention computes its softmax in float32 and casts back; Whisper, Qwen2-Audio's tower and GPT-2 do not."""
    return hasattr(module, "num_key_value_groups")


def seam_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Eager attention with taps; the same operations in the same order as the families' own eager functions."""
    taps = _taps.get(id(module))
    if taps is None:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        if softcap is not None:
            kwargs["softcap"] = softcap
        return eager(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    query, key = _run_taps(taps, "query", query), _run_taps(taps, "key", key)
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1:  # grouped-query attention repeats each key head for consecutive query heads
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.matmul(query, key.transpose(2, 3)) * (
        query.shape[-1] ** -0.5 if scaling is None else scaling
    )
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask
    scores = _run_taps(taps, "scores", scores)
    softmax_dtype = torch.float32 if _softmax_in_float32(module) else None
    pattern = torch.softmax(scores, dim=-1, dtype=softmax_dtype).to(value.dtype)
    pattern = _run_taps(taps, "pattern", pattern)
    pattern = torch.nn.functional.dropout(pattern, p=dropout, training=module.training)
    return torch.matmul(pattern, value).transpose(1, 2).contiguous(), pattern


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask

    AttentionInterface.register(SEAM, seam_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(SEAM, eager_mask)


def _configs(model: nn.Module) -> list[Any]:
    """Every distinct configuration object that the model's modules consult."""
    found: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            found.setdefault(id(config), config)
    return list(found.values())


def implementation(model: nn.Module) -> str:
    """Attention implementation that the model runs now, the seam included."""
    configs = _configs(model)
    return (configs[0]._attn_implementation or "eager") if configs else "none"


@contextmanager
def seam(model: nn.Module, modules: Iterable[nn.Module]) -> Iterator[None]:
    """Run the model with seam attention inside the block; what ran before is restored after it, whatever happens.

    Args:
        model: The Hugging Face model.
        modules: The attention modules to be tapped, checked for variants that the seam would change.

    Raises:
        PointError: A module computes attention in a way of its own that a named implementation bypasses.
    """
    for module in modules:
        if getattr(module, "reorder_and_upcast_attn", False):
            raise PointError(
                "This GPT-2 reorders and upcasts its attention only under the name `eager`.",
                "Load it with reorder_and_upcast_attn=False to read or edit its scores and patterns.",
            )
    _register()
    configs = _configs(model)
    try:
        for config in configs:
            _switch(config)
        yield
    finally:
        for config in configs:
            _switch_back(config)


def _switch(config: Any) -> None:
    _, before, users = _switched.get(id(config), (config, config._attn_implementation_internal, 0))
    _switched[id(config)] = (config, before, users + 1)
    config._attn_implementation_internal = SEAM


def _switch_back(config: Any) -> None:
    """Restore a configuration once the last block that needs the seam is over: blocks need not end in the order they began."""
    _, before, users = _switched[id(config)]
    if users > 1:
        _switched[id(config)] = (config, before, users - 1)
        return
    del _switched[id(config)]
    config._attn_implementation_internal = before
