"""Path patching: what one component tells another directly, through the residual stream alone.

The change that a sender's clean output makes in the stream is added to what a receiver reads; everything between is frozen at the
corrupted run. From the receiver on the run goes its own way (Wang et al. 2022, arXiv 2211.00593, section 3.1; Goldowsky-Dill et
al. 2023, arXiv 2304.05969). Norms are computed, not linearised: TransformerLens' `get_act_patch_direct_path` freezes the scale of
the receiver's norm, here it follows the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from otoscope.activations import ActivationCache, Edit, HookPoint
from otoscope.errors import OptionError
from otoscope.models.decoding import batches
from otoscope.models.replay import layers_of
from otoscope.patching.activation_patching import scene_of
from otoscope.patching.cells import clean_activation, point_of
from otoscope.patching.components import Component, attention_parts, main_stack
from otoscope.patching.metrics import Metric, MetricFunction
from otoscope.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model
    from otoscope.patching.scene import Scene

Input = Literal["q", "k", "v"]
_INPUTS: tuple[Input, ...] = ("q", "k", "v")


@dataclass(frozen=True)
class Receiver:
    """Where a path ends.

    Attributes:
        component: A head, an attention block or an MLP; None: the logits.
        input: What a head or attention block reads with: its queries, keys or values; None: all that it reads from the sender's
            stream. A head's keys and values are counted as key-value heads.
    """

    component: Component | None = None
    input: Input | None = None

    def __post_init__(self) -> None:
        c = self.component
        if c is None or c.part == "mlp":
            if self.input is not None:
                raise OptionError(f"{self.label} has no {self.input}.", "Leave input out.")
        elif c.part == "resid":
            raise OptionError("A residual stream is no receiver.", "Name a component, or the logits.")
        elif c.head is not None and self.input is None:
            raise OptionError(f"Say what {c.label} reads with.", f"Choose an input of: {', '.join(_INPUTS)}.")

    @property
    def label(self) -> str:
        """`DL2H3 cross-attn q`, `L5 MLP`, `logits`."""
        name = "logits" if self.component is None else self.component.label
        return f"{name} {self.input}" if self.input else name


LOGITS = Receiver()


def path_patch(
    model: Model,
    inputs: Any,
    clean_cache: ActivationCache,
    metric: Metric | MetricFunction,
    sender: Component,
    receivers: Sequence[Receiver | Sequence[Receiver]],
    *,
    batch: int | None = None,
) -> Tensor:
    """Score the corrupted run with a sender's clean output carried to receivers by the direct path.

    Args:
        model: The model.
        inputs: The corrupted input: what `Scene.of` takes, or a scene.
        clean_cache: Activations of the clean run at the sender's point, one row.
        metric: The metric.
        sender: A head, an attention block or an MLP.
        receivers: Where the paths end; each alone, or several together where they are grouped. From an encoder, keys and values
            of cross-attentions can be reached.
        batch: Paths at once; None: `model.batch`.

    Returns:
        The metric of each path or group, `(receiver,)`, float64 on the CPU.

    Raises:
        OptionError: A receiver cannot be reached directly from the sender, or the runs differ in length.
        PointError: The clean cache lacks the sender's point.
    """
    scene = scene_of(model, inputs)
    return _path_patch(
        scene, clean_cache, _corrupted(scene, sender), Metric.of(metric), sender, receivers, batch
    )


def get_act_patch_direct_path(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    corrupted_cache: ActivationCache,
    patching_metric: Metric | MetricFunction,
    src_layer: int,
    src_head: int,
    component: Input = "q",
    *,
    part: str | None = None,
    receiver_part: str | None = None,
    batch: int | None = None,
) -> Tensor:
    """Score the direct paths from one head to every later head.

    Args:
        model: The model.
        corrupted_tokens: The corrupted input: what `Scene.of` takes, or a scene.
        clean_cache: Activations of the clean run at the sender's `hook_z`.
        corrupted_cache: Activations of the corrupted run: that point, and the residual streams (the default of `run_with_cache`).
        patching_metric: The metric.
        src_layer: Layer of the sender.
        src_head: The sender, a head of that layer.
        component: What receivers read with: `q`, `k` or `v`.
        part: Stack and attention of the sender, such as `cross_attn` or `encoder`; None: the main stack's first attention.
        receiver_part: Attention of the receivers; None: the sender's stack's first.
        batch: Paths at once; None: `model.batch`.

    Returns:
        `[layer, head_index]` over receivers, key-value heads for `k` and `v`; float64 on the CPU. Where no direct path leads, the
        score is that of the corrupted run (TransformerLens writes 0).

    Raises:
        OptionError: There is no such head or part.
        PointError: A cache lacks a point.
    """
    sender = _head(model, part, src_layer, src_head)
    first = point_of(model, component, 0, receiver_part or sender.stack)
    layers, heads = len(layers_of(model, first.stack)), first.heads or 1
    every = [Receiver(_component(first, i, h), component) for i in range(layers) for h in range(heads)]
    reached = [i for i, receiver in enumerate(every) if _why_not(sender, receiver) is None]
    scene, metric = scene_of(model, corrupted_tokens), Metric.of(patching_metric)
    out = torch.full((len(every),), float(metric.score(scene)), dtype=torch.float64)
    chosen = [every[i] for i in reached]
    out[reached] = _path_patch(scene, clean_cache, corrupted_cache, metric, sender, chosen, batch)
    return out.view(layers, heads)


def _head(model: Model, part: str | None, layer: int, head: int) -> Component:
    point = point_of(model, "z", layer, part)
    if not 0 <= head < (point.heads or 1):
        raise OptionError(f"{point.name} has no head {head}.", f"Choose 0 to {(point.heads or 1) - 1}.")
    return _component(point, layer, head)


def _component(point: HookPoint, layer: int, head: int) -> Component:
    """The head of a point such as `decoder_blocks.0.cross_attn.hook_q`, in another layer."""
    return Component(point.stack, layer, point.name.rsplit(".", 2)[1], head)  # type: ignore[arg-type]


# Which paths there are -----------------------------------------------------------------------------------------------


def _place(component: Component) -> tuple[int, int]:
    """Sorts the components of a stack in the order in which they write into the stream."""
    order = [*attention_parts(component.stack), "mlp"]
    return component.layer, order.index(component.part)


def _reads(sender: Component, receiver: Receiver) -> tuple[Input, ...]:
    """With what an attention reads the sender's stream."""
    assert receiver.component is not None
    if receiver.component.part == "cross_attn":
        own: tuple[Input, ...] = ("k", "v") if sender.stack == "encoder" else ("q",)
    else:
        own = _INPUTS
    return own if receiver.input is None else tuple(x for x in own if x == receiver.input)


def _why_not(sender: Component, receiver: Receiver) -> str | None:
    """Why no direct path leads from a sender to a receiver; None if one does."""
    c = receiver.component
    if c is None:
        return "the logits do not read its stream" if sender.stack in ("encoder", "audio_encoder") else None
    if c.part != "mlp" and not _reads(sender, receiver):
        return "it reads that from another stack"
    if c.stack == sender.stack:
        return None if _place(c) > _place(sender) else "it comes before the sender"
    crossed = sender.stack == "encoder" and c.part == "cross_attn"
    return None if crossed else "it is in another stack"


# The paths -----------------------------------------------------------------------------------------------------------


def _streams(scene: Scene, stack: str) -> list[str]:
    """The streams that components of a stack read, and its last, by point."""
    model, layers = scene.model, range(len(layers_of(scene.model, stack)))
    kinds = [("resid_pre", None), ("resid_mid", None)]
    kinds += [("resid_mid", "cross_attn")] if stack == "decoder" else []
    names = [
        point_of(model, kind, layer, ".".join(filter(None, (stack, part)))).name
        for layer in layers
        for kind, part in kinds
    ]
    return [*names, point_of(model, "resid_post", layers[-1], stack).name]


def _corrupted(scene: Scene, sender: Component) -> ActivationCache:
    """What the paths need of the corrupted run."""
    _refuse_stream(sender)
    names = [*_streams(scene, sender.stack), sender.point, _whole(sender).point]
    return scene.read(dict.fromkeys(names))


def _refuse_stream(sender: Component) -> None:
    if sender.part == "resid":
        raise OptionError(
            "A residual stream is no sender: all that it changes lies after it.", "Name a component."
        )


def _whole(sender: Component) -> Component:
    return Component(sender.stack, sender.layer, sender.part)


def _path_patch(
    scene: Scene,
    clean_cache: ActivationCache,
    corrupted_cache: ActivationCache,
    metric: Metric,
    sender: Component,
    receivers: Sequence[Receiver | Sequence[Receiver]],
    batch: int | None,
) -> Tensor:
    groups = [[entry] if isinstance(entry, Receiver) else list(entry) for entry in receivers]
    for receiver in (r for group in groups for r in group):
        reason = _why_not(sender, receiver)
        if reason:
            raise OptionError(
                f"No direct path leads from {sender.label} to {receiver.label}: {reason}.", "Choose another."
            )
    if not groups:
        return torch.zeros(0, dtype=torch.float64)
    change = _written(scene, clean_cache, corrupted_cache, sender)
    read = _received(scene, corrupted_cache, sender, [r for group in groups for r in group], change)
    rows = [
        [edit for receiver in group for edit in _edits(scene, sender, receiver, change, read)]
        for group in groups
    ]
    scores = []
    with torch.no_grad(), track(f"Patching paths from {sender.label}", len(rows), "paths") as task:
        for chunk in batches(rows, batch or scene.model.batch):
            scores.append(metric.score(scene, chunk).double().cpu())
            task.advance(len(chunk))
    return torch.cat(scores)


def _written(
    scene: Scene, clean_cache: ActivationCache, corrupted_cache: ActivationCache, sender: Component
) -> Tensor:
    """What the sender's clean output changes in the stream `(1, pos, d_model)`.

    A head is patched and its block's output read again, so that a norm between them (Gemma 2 and 3) is the model's own.
    """
    model, whole = scene.model, _whole(sender).point
    clean, corrupt = (clean_activation(c, model.points[sender.point]) for c in (clean_cache, corrupted_cache))
    if clean.shape != corrupt.shape:
        raise OptionError(
            f"{sender.point} is {tuple(clean.shape)} in the clean run and {tuple(corrupt.shape)} in the corrupted one.",
            "Align the clean cache first: otoscope.patching.aligning.aligned_cache.",
        )
    if sender.head is None:
        return clean - corrupt
    edit = Edit.replace(sender.point, clean, **sender.where())
    with torch.no_grad(), model.editing(edit), model.capturing(whole) as read:
        scene.rerun([model.points[sender.point]], positions=[-1])
    return read[whole] - clean_activation(corrupted_cache, model.points[whole])


def _inputs(sender: Component, receiver: Receiver) -> list[str]:
    """The points at which a receiver's reading of the changed stream is taken; none for the logits."""
    c = receiver.component
    if c is None:
        return []
    return [c.point] if c.part == "mlp" else [f"{c.id}.hook_{letter}" for letter in _reads(sender, receiver)]


def _received(
    scene: Scene,
    corrupted_cache: ActivationCache,
    sender: Component,
    receivers: Sequence[Receiver],
    change: Tensor,
) -> ActivationCache:
    """What every receiver makes of the changed stream, from one pass: the stream is set anew wherever it is read."""
    model = scene.model
    names = dict.fromkeys(name for receiver in receivers for name in _inputs(sender, receiver))
    if not names:
        return ActivationCache(model.points, model.attention)
    edits = [
        Edit.replace(name, clean_activation(corrupted_cache, model.points[name]) + change)
        for name in _streams(scene, sender.stack)
    ]
    with torch.no_grad(), model.editing(edits), model.capturing(names) as read:
        scene.rerun([model.points[edit.point] for edit in edits], positions=[-1])
    return read


def _edits(
    scene: Scene, sender: Component, receiver: Receiver, change: Tensor, read: ActivationCache
) -> list[Edit]:
    if receiver.component is None:
        stack = main_stack(scene.model)
        last = point_of(scene.model, "resid_post", len(layers_of(scene.model, stack)) - 1)
        return [Edit.add(last.name, change)]
    where = {} if receiver.component.head is None else receiver.component.where()
    return [Edit.replace(name, read[name], **where) for name in _inputs(sender, receiver)]
