"""Where patched-in activations come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from otoscope.audio import Clip, noises, read, silence, white_noise
from otoscope.errors import AudioError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["zero", "mean", "noise", "silence", "clip"]

_LEAST_RMS = 0.01  # of noise for a clip that is silent itself


@dataclass(frozen=True)
class Reference:
    """What a component's output is mixed with: `(1 - alpha) * a + alpha * a_ref`.

    With `noise`, `silence` and `clip` a second copy of the model hears the reference sound. Encoder frames are taken at the
    same time. The decoder's copy is given the same tokens as the patched one, step by step, so that its activations are those
    of a model that wrote the same text and heard something else; the paper does not say how it aligns them.

    Attributes:
        kind: `zero`; `mean` over a corpus, see `Means`; `noise`, white, as long and as loud as the clip; `silence`; `clip`.
        clip: The other recording, of at most one window.
        means: Mean output at each point, `(head, d_head)` or `(d_model,)`.
        align: For `clip`, which of its frames stands for a frame: the one at the same `position`, or, by `words`, the one at the
            same place of the same word.
        frames: The alignment by words, once it is known: the other recording's frame for each frame.
        seed: Of the noise; each clip's is another.
    """

    kind: Kind = "zero"
    clip: Clip | None = None
    means: Mapping[str, Tensor] | None = field(default=None, repr=False, compare=False)
    align: Literal["position", "words"] = "position"
    frames: Tensor | None = field(default=None, repr=False, compare=False)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise OptionError(
                f"There is no reference {self.kind!r}.", f"Choose {', '.join(get_args(Kind)[:-1])} or a clip."
            )
        if self.kind == "clip" and self.clip is None:
            raise OptionError("The reference clip is missing.", "Give a recording.")

    @classmethod
    def of(cls, name: str, seed: int = 0, align: Literal["position", "words"] = "position") -> Reference:
        """The reference that a word on the command line stands for: one of the kinds, or a recording's path.

        Raises:
            OptionError: It is neither.
            AudioError: The recording cannot be read.
        """
        if name in get_args(Kind) and name != "clip":
            return cls(name, seed=seed)  # type: ignore[arg-type]
        if not Path(name).is_file():
            raise OptionError(
                f"The reference {name!r} is neither a kind nor a recording.",
                f"Choose {', '.join(get_args(Kind)[:-1])} or the path of a recording.",
            )
        return cls("clip", read(name), align=align)

    @property
    def is_heard(self) -> bool:
        """Whether a second copy of the model has to hear it."""
        return self.kind in ("noise", "silence", "clip")

    def check(self, window: float) -> None:
        """Refuse a clip that does not fit into a window of so many seconds.

        Raises:
            AudioError: It is longer.
        """
        if self.clip is not None and self.clip.duration > window:
            raise AudioError(
                f"The reference lasts {self.clip.duration:.2f} s, one window holds {window:g} s.",
                "Cut it, for instance with `Clip.span`.",
            )

    def sound(self, clip: Clip, number: int = 0) -> Clip:
        """What the second copy hears in place of a clip.

        Args:
            clip: What is heard.
            number: Which clip it is; noise differs from clip to clip.
        """
        if self.kind == "clip":
            assert self.clip is not None
            return self.clip
        if self.kind == "silence":
            return silence(clip.duration)
        rms = max(noises.rms_of(clip), _LEAST_RMS)
        return white_noise(clip.duration, seed=self.seed + 7919 * number, rms=rms)

    def with_means(self, means: Mapping[str, Tensor]) -> Reference:
        """The same with the corpus means it needs."""
        return replace(self, means=means)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        told = {"kind": self.kind, "seed": self.seed}
        if self.clip is None:
            return told
        return told | {"clip": self.clip.source, "seconds": self.clip.duration, "align": self.align}
