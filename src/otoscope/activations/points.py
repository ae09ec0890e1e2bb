"""Named places inside a model: what they are called, where they sit, how their tensor is laid out.

Names follow TransformerLens (`blocks.3.attn.hook_z`, `decoder_blocks.0.cross_attn.hook_pattern`); layers and heads are
counted from 0. A `PointTable` lists every point of one model; families build theirs in `otoscope.models`.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from otoscope.errors import PointError

if TYPE_CHECKING:
    from torch import Tensor

Names = str | Iterable[str] | Callable[[str], bool] | None
"""What `names_filter` takes: a name or glob, several, a predicate on names, or None for every plain module point."""


@dataclass(frozen=True)
class Layout:
    """How a point's canonical tensor sits inside the tensor that PyTorch hands to the hook.

    Attributes:
        heads: Split the last axis `heads * d_head` into `(heads, d_head)`; None leaves it whole.
        part: `(index, count)`: the point is one of `count` equal slices of the last axis (GPT-2's fused q, k, v).
        swap: The raw tensor has heads before positions, `(batch, head, pos, d_head)`; canonical is `(batch, pos, head, d_head)`.
    """

    heads: int | None = None
    part: tuple[int, int] | None = None
    swap: bool = False

    def read(self, raw: Tensor) -> Tensor:
        """The canonical tensor, as a view of `raw`."""
        if self.swap:
            return raw.transpose(1, 2)
        if self.part is not None:
            index, count = self.part
            raw = raw.chunk(count, dim=-1)[index]
        return raw if self.heads is None else raw.unflatten(-1, (self.heads, -1))

    def put(self, raw: Tensor, new: Tensor) -> Tensor:
        """`raw` with the canonical tensor replaced by `new`, out of place."""
        if self.swap:
            return new.transpose(1, 2)
        if self.heads is not None:
            new = new.flatten(-2)
        if self.part is None:
            return new
        import torch

        index, count = self.part
        pieces = list(raw.chunk(count, dim=-1))
        pieces[index] = new
        return torch.cat(pieces, dim=-1)


@dataclass(frozen=True)
class HookPoint:
    """One named place.

    Attributes:
        name: Canonical name.
        module: Dotted path of the Hugging Face module, below the model object.
        at: Where the tensor is met: the module's `input`, its `output`, a named tensor inside the attention function
            (`scores`, `pattern`, `query`, `key`; these need the attention seam), or `result` (computed per head on request).
        axes: Names of the canonical axes. An `Edit` can address `batch`, `pos` or `frame`, `head`, and `key` (of the text itself)
            or `source` (keys of another stack). `batch_or_1` has one entry for all rows where they stand at the same positions.
        layout: How the canonical tensor sits in the raw one.
        in_place: Writing must change the tensor itself, because the layer has already kept it as its residual branch.
        once: Computed once per generation and then kept in the cache (cross-attention keys and values).
        heads: Size of the head axis, if there is one.
        width: Size of the last axis, where the configuration tells it.
        layer: Layer index, 0-based, if the point belongs to a layer.
        stack: The stack it belongs to: `decoder`, `encoder`, `text`, `audio_encoder`.
        why_not_writable: Reason, where a write would have no effect.
    """

    name: str
    module: str
    at: Literal["input", "output", "scores", "pattern", "query", "key", "result"]
    axes: tuple[str, ...]
    layout: Layout = Layout()
    in_place: bool = False
    once: bool = False
    heads: int | None = None
    width: int | None = None
    layer: int | None = None
    stack: str = "text"
    why_not_writable: str | None = None

    @property
    def runs_once(self) -> bool:
        """Whether a generation meets it at step 0 alone: cross-attention keys and values, and everything in an encoder."""
        return self.once or self.stack in ("encoder", "audio_encoder")

    @property
    def needs_seam(self) -> bool:
        """Whether the tensor exists only inside the attention function."""
        return self.at in ("scores", "pattern", "query", "key")

    def axis(self, *names: str) -> int | None:
        """Position of the first of the named axes that the point has."""
        return next((self.axes.index(name) for name in names if name in self.axes), None)


@dataclass(frozen=True)
class PointTable(Mapping[str, HookPoint]):
    """Every point of one model, by canonical name.

    Attributes:
        points: Name to point, in the order of the forward pass.
        aliases: Other accepted spellings, as `(old, new)` fragments of a name.
        stacks: Short stack name to name prefix, the main one (where the text is written) first.
        clocks: Module paths whose forward tells the decoding step: the stack that owns the key-value cache.
        layers: Stack name to the module path of its layer list.
    """

    points: dict[str, HookPoint]
    stacks: dict[str, str]
    clocks: tuple[str, ...]
    layers: dict[str, str]
    aliases: tuple[tuple[str, str], ...] = field(default=())

    def __getitem__(self, name: str) -> HookPoint:
        return self.points[self.canonical(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._unalias(name) in self.points

    def __iter__(self) -> Iterator[str]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def _unalias(self, name: str) -> str:
        for old, new in self.aliases:
            name = name.replace(old, new)
        return name

    def _spellings(self, name: str) -> set[str]:
        return {name, *(name.replace(new, old) for old, new in self.aliases)}

    def canonical(self, name: str) -> str:
        """The canonical spelling of `name`.

        Raises:
            PointError: There is no such point; the nearest names are given.
        """
        plain = self._unalias(name)
        if plain in self.points:
            return plain
        near = difflib.get_close_matches(plain, self.points, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See docs/hook-points.md for all names."
        raise PointError(
            f"There is no hook point {name!r} in this model (layers and heads are counted from 0).", hint
        )

    def short(self, name: str, layer: int | None = None, part: str | None = None) -> str:
        """Full name from TransformerLens' short form: `("resid_post", 3)`, `("z", 0, "cross_attn")`, `("q", 1, "encoder")`.

        Args:
            name: Point without `hook_`, such as `resid_post`, `z`, `pattern`, or a full name.
            layer: Layer, 0-based.
            part: A stack (`encoder`, `decoder`), an attention part (`self_attn`, `cross_attn`), or both joined by a dot.
                By default the main stack, and in it the first attention part.

        Raises:
            PointError: There is no such point.
        """
        if layer is None:
            return self.canonical(name)
        words = (part or "").split(".")
        stack = next((word for word in words if word in self.stacks), next(iter(self.stacks)))
        module = next((word for word in words if word and word not in self.stacks), None)
        prefix = f"{self.stacks[stack]}.{layer}"
        places = [module] if module else ["", "attn", "self_attn", "mlp"]
        tried = [".".join(filter(None, (prefix, place, f"hook_{name}"))) for place in places]
        return self.canonical(next((t for t in tried if t in self), tried[0]))

    def select(self, names: Names) -> list[HookPoint]:
        """The points that a filter names.

        Args:
            names: A name or glob (`decoder_blocks.*.hook_resid_post`), several of them, a predicate, or None for every
                point except the large ones that need the attention seam or are computed on request.

        Raises:
            PointError: A name does not exist, or the filter matches nothing.
        """
        if names is None:
            return [p for p in self.points.values() if not p.needs_seam and p.at != "result"]
        if callable(names):
            found = [p for name, p in self.points.items() if names(name)]
            if not found:
                raise PointError(
                    "The names filter matches no hook point.", "Try it on list(model.points) first."
                )
            return found
        wanted = [names] if isinstance(names, str) else list(names)
        chosen: dict[str, HookPoint] = {}
        for name in wanted:
            for point in self._match(name):
                chosen[point.name] = point
        if not chosen:
            raise PointError(
                "The names filter is empty.", "Name at least one hook point, or pass None for all."
            )
        return list(chosen.values())

    def _match(self, name: str) -> list[HookPoint]:
        if not any(c in name for c in "*?["):
            return [self[name]]
        found = [
            p
            for key, p in self.points.items()
            if any(fnmatch.fnmatchcase(k, name) for k in self._spellings(key))
        ]
        if not found:
            raise PointError(
                f"The pattern {name!r} matches no hook point.", "See docs/hook-points.md for all names."
            )
        return found
