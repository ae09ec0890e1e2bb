"""Which components one written token hangs on: the change of its log-probability, teacher-forced, over one clip or many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.activations import Edit
from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, ModelError, OptionError
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import bootstrap
from otoscope.patching.components import Component, chosen_components, main_stack
from otoscope.patching.means import Means
from otoscope.patching.references import Reference
from otoscope.patching.scene import Scene
from otoscope.patching.sweeping import SweepOptions
from otoscope.patching.writing import WhisperWriter, Written, first_window
from otoscope.progress import track
from otoscope.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.models.base import Model

NOTES = (
    "Teacher-forced: the text that was written is given, and one token of it is looked at; nothing is written again.",
    "resolved: the token is no longer the most probable one; restored: the other word's token is more probable than it.",
    "p_value: share of components of the same kind (it included) whose mean change is at least as large.",
)


@dataclass(frozen=True)
class Chosen:
    """The token that is looked at in one item.

    Attributes:
        item: Which item.
        index: Index of the token in what was written, from 0.
        token: Its id.
        text: Its text.
        against: Id of the other word's first token, or None.
    """

    item: int
    index: int
    token: int
    text: str
    against: int | None


@dataclass(frozen=True, eq=False)
class TokenResult:
    """Changes of one token an item under every component's patch.

    Attributes:
        model: Facts about the model.
        options: What was patched.
        components: Components.
        chosen: The tokens.
        names: Recordings of the items.
        change: Change of the metric `(component, item)`: the token's log-probability, or its logit less the other's.
        direction: The same in a random direction.
        resolved: `(component, item)`, bool.
        restored: `(component, item)`, bool; None without another word.
        n_items: Items that could be read.
        skipped: Items that could not be read, or hold no such token.
    """

    model: Mapping[str, Any]
    options: SweepOptions
    components: Sequence[Component]
    chosen: Sequence[Chosen]
    names: Sequence[str]
    change: np.ndarray
    direction: np.ndarray
    resolved: np.ndarray
    restored: np.ndarray | None
    n_items: int
    skipped: Sequence[Mapping[str, str]]

    @property
    def measure(self) -> str:
        """What changed."""
        return "logprob" if self.restored is None else "logit_difference"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; layers, heads and tokens are counted from 0."""
        return {
            "model": dict(self.model),
            "options": self.options.to_dict() | {"outcome": "token"},
            "measure": self.measure,
            "n_items": self.n_items,
            "n_outcome": len(self.chosen),
            "baseline_outcome_rate": len(self.chosen) / self.n_items if self.n_items else None,
            "effects": [self._effect(i) for i in range(len(self.components))],
            "tokens": [
                {"audio_filepath": self.names[c.item], "token": c.index, "id": c.token, "text": c.text}
                for c in self.chosen
            ],
            "price": None,
            "skipped": [dict(s) for s in self.skipped],
            "notes": list(NOTES),
            "versions": versions(),
        }

    def _effect(self, i: int) -> dict[str, Any]:
        component, n = self.components[i], len(self.chosen)
        change = self.change[i]
        low, high = bootstrap(np.mean, change, seed=self.options.seed) if n > 1 else (None, None)
        alike = [
            j
            for j, other in enumerate(self.components)
            if (other.stack, other.kind) == (component.stack, component.kind)
        ]
        means = self.change.mean(axis=1)
        larger = sum(abs(means[j]) >= abs(means[i]) - 1e-12 for j in alike)
        others = [means[j] for j in alike if j != i]
        resolved = int(self.resolved[i].sum())
        return component.to_dict() | {
            "label": component.label,
            "kind": component.kind,
            "resolved": resolved,
            "restored": None if self.restored is None else int(self.restored[i].sum()),
            "n": n,
            "rate": resolved / n,
            "change": float(means[i]),
            "ci_low": low,
            "ci_high": high,
            "random_change": float(np.mean(others)) if others else None,
            "random_rate": float(self.resolved[[j for j in alike if j != i]].mean()) if others else None,
            "direction_change": float(self.direction[i].mean()),
            "p_value": larger / len(alike),
        }

    def __repr__(self) -> str:
        best = int(np.abs(self.change.mean(axis=1)).argmax())
        change = self.change[best].mean()
        return (
            f"TokenResult({len(self.chosen)} tokens, strongest: {self.components[best].label} {change:+.2f})"
        )


def sweep_tokens(
    model: Model,
    corpus: Sequence[Item],
    options: SweepOptions,
    *,
    token: int | str | None = None,
    against: str | None = None,
    batch: int | None = None,
) -> TokenResult:
    """Patch every component and see what becomes of one token of each recording.

    Args:
        model: A Whisper model.
        corpus: Recordings, of each of which the first window is taken.
        options: What to patch and with what.
        token: Index of the token from 0, or a word; None: the least certain token.
        against: Another word: the metric is then the difference of the logits of the two.
        batch: Rows at once.

    Raises:
        ModelError: The model is no Whisper model.
        OptionError: No recording has such a token.
        AudioError: None of the recordings can be read.
    """
    if not isinstance(model, SpeechModel):
        raise ModelError(
            f"{model.origin.name} is no Whisper model.",
            "Use otoscope.patching.activation_patching in Python.",
        )
    if model.open_hooks:
        raise EditError("A hook or an edit is in place.", "Sweep outside of the block.")
    options.reference.check(model.window_seconds)
    return _TokenSweep(model, corpus, options, token, against, batch or model.batch).run()


class _TokenSweep:
    def __init__(
        self,
        model: SpeechModel,
        corpus: Sequence[Item],
        options: SweepOptions,
        token: int | str | None,
        against: str | None,
        batch: int,
    ) -> None:
        self.model, self.corpus, self.options, self.batch = model, corpus, options, batch
        self.token = token
        self.against = None if against is None else _first_token(model, against)
        self.components = chosen_components(
            model, options.stacks or (main_stack(model),), options.parts, options.heads
        )
        self.writer = WhisperWriter(model, options.max_tokens, model.check_language(options.language))
        self.skipped: list[dict[str, str]] = []
        self.n_items = 0

    def run(self) -> TokenResult:
        reference = self._reference()
        chosen: list[Chosen] = []
        parts = []
        for (
            i,
            clip,
            heard,
            text,
        ) in self._heard():  # one after another: what is heard of all would fill the memory
            found = self._choose(i, text)
            if found is not None:
                chosen.append(found)
                parts.append(self._item(found, clip, heard, text, reference))
        if not self.n_items:
            raise AudioError(
                f"None of the {len(self.corpus)} recordings can be read; the first: {self.skipped[0]['reason']}",
                "Check them with `otoscope corpus check`.",
            )
        if not chosen:
            raise OptionError(
                f"No recording has the token {self.token!r}.",
                "See `otoscope transcribe` for what is written.",
            )
        change, direction, resolved, restored = (np.stack(x, axis=1) for x in zip(*parts, strict=True))
        return TokenResult(
            self.model.describe(),
            self.options,
            self.components,
            chosen,
            [item.audio_filepath for item in self.corpus],
            change,
            direction,
            resolved,
            None if self.against is None else restored,
            self.n_items,
            self.skipped,
        )

    def _heard(self) -> Iterator[tuple[int, Clip, Any, Written]]:
        """Number, clip, what was heard, and what was written, of every item that can be read."""
        self.skipped, self.n_items = [], 0
        with track("Patching tokens", len(self.corpus), "recordings") as task:
            for i, item in enumerate(self.corpus):
                task.advance()
                try:
                    clip = first_window(item, self.model.window_seconds)
                except AudioError as error:
                    self._skip(i, error.reason)
                    continue
                heard = self.writer.hear(clip, item.language)
                self.n_items += 1
                yield i, clip, heard, self.writer.write([heard], None)[0]

    def _skip(self, item: int, reason: str) -> None:
        self.skipped.append({"audio_filepath": self.corpus[item].audio_filepath, "reason": reason})

    def _choose(self, item: int, text: Written) -> Chosen | None:
        index = self._index(text)
        if index is None:
            self._skip(item, f"It has no token {self.token!r}: {text.text[:60]!r}.")
            return None
        token = text.ids[index]
        return Chosen(item, index, token, self.model.tokenizer.decode([token]), self.against)

    def _index(self, text: Written) -> int | None:
        if isinstance(self.token, int):
            return self.token if 0 <= self.token < len(text.ids) else None
        if self.token is None:
            return int(np.argmin(text.logprobs[: len(text.ids)])) if text.ids and text.logprobs else None
        wanted = self.token.strip().lower()
        pieces = [self.model.tokenizer.decode([t]) for t in text.ids]
        for i in range(len(pieces)):
            word = ""
            for piece in pieces[i:]:
                word += piece
                if word.strip().strip(".,?!;:").lower() == wanted and (i == 0 or pieces[i].startswith(" ")):
                    return i
                if len(word.strip()) > len(wanted) + 2:
                    break
        return None

    def _reference(self) -> Reference:
        """The reference; corpus means are taken in a pass of their own."""
        reference = self.options.reference
        if reference.kind != "mean":
            return reference
        means = Means(self.model, self.components)
        for _, clip, of_clip, text in self._heard():
            prompt = self.model.prompt(of_clip.language)
            means.add(self.model.inputs([clip], [*prompt, *text.ids]), len(prompt) - 1, clip)
        return reference.with_means(means.result()) if self.n_items else reference

    def _item(self, c: Chosen, clip: Clip, heard: Any, text: Written, reference: Reference) -> tuple:
        prompt = self.model.prompt(heard.language)
        tokens = torch.tensor([*prompt, *text.ids], device=self.model.device)
        scene = Scene.heard(self.model, heard.heard.encoded, tokens, heard.heard.audio)
        other = None
        if reference.is_heard:
            there = self.writer.hear(reference.sound(clip, c.item), heard.language).heard
            other = Scene.heard(self.model, there.encoded, tokens, there.audio)
        names = sorted({x.point for x in self.components})
        own = _outputs(scene, names)
        theirs = _outputs(other, names) if other else {}
        patches = [patch_of(x, reference, self.options.alpha, theirs.get(x.point)) for x in self.components]
        seeds = np.random.SeedSequence([self.options.seed, c.item]).generate_state(len(patches))
        controls = [
            in_random_direction(x, patch, own[x.point], int(seed))
            for x, patch, seed in zip(self.components, patches, seeds, strict=True)
        ]
        position = len(prompt) - 1 + c.index
        base = scene.logits([()], [position])[0, 0]
        logits = self._logits(scene, [*patches, *controls], position)
        change = _metric(logits, c) - _metric(base[None], c)
        count = len(patches)
        resolved = (logits[:count].argmax(dim=-1) != base.argmax()).cpu().numpy()
        won = (
            logits[:count, c.against] > logits[:count, c.token]
            if c.against is not None
            else torch.zeros(count)
        )
        return change[:count].numpy(), change[count:].numpy(), resolved, won.bool().cpu().numpy()

    def _logits(self, scene: Scene, edits: Sequence[Edit], position: int) -> Tensor:
        """Logits `(edit, vocab)`; edits that start at the same layer ride together."""
        rows_of = [[edit] for edit in edits]
        out: dict[int, Tensor] = {}
        for chunk in scene.chunks(rows_of, self.batch):
            rows = scene.logits([rows_of[i] for i in chunk], [position])[:, 0]
            out |= dict(zip(chunk, rows, strict=True))
        return torch.stack([out[i] for i in range(len(edits))])


def _outputs(scene: Scene, names: Sequence[str]) -> dict[str, Tensor]:
    """Activations of a scene without the batch axis."""
    cache = scene.read(names)
    return {name: cache[name][0] for name in names}


def patch_of(component: Component, reference: Reference, alpha: float, other: Tensor | None = None) -> Edit:
    """The edit of a component: `(1 - alpha) * a + alpha * a_ref`.

    Args:
        component: What is patched.
        reference: What with.
        alpha: Share of the reference.
        other: Its activation under the reference sound, where that is heard.
    """
    if reference.kind == "zero":
        return (
            Edit.scale(component.point, 1 - alpha, **component.where())
            if alpha != 1
            else Edit.zero(component.point, **component.where())
        )
    value = (reference.means or {}).get(component.point) if reference.kind == "mean" else other
    if value is None:
        raise OptionError(f"There is no reference activation of {component.point}.", "Compute it first.")
    return Edit.mix(component.point, value, alpha, **component.where())


def in_random_direction(component: Component, patch: Edit, own: Tensor, seed: int) -> Edit:
    """The control of a patch: as far, position by position, in one random direction."""
    a = own if component.head is None else own[:, component.head]
    target = (
        patch.value if patch.value is None or component.head is None else patch.value[..., component.head, :]
    )
    moved = {"zero": 0 * a, "scale": patch.alpha * a}.get(patch.op)
    if moved is None:
        assert target is not None
        moved = (1 - patch.alpha) * a + patch.alpha * target
    u = torch.randn(a.shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    elsewhere = a + (moved - a).norm(dim=-1, keepdim=True) * (u / u.norm()).to(a)
    if component.head is None:
        return Edit.replace(component.point, elsewhere)
    whole = own.clone()
    whole[:, component.head] = elsewhere
    return Edit.replace(component.point, whole, heads=(component.head,))


def _metric(logits: Tensor, c: Chosen) -> Tensor:
    logits = logits.double().cpu()
    if c.against is None:
        return logits.log_softmax(dim=-1)[:, c.token]
    return logits[:, c.token] - logits[:, c.against]


def _first_token(model: SpeechModel, word: str) -> int:
    ids = model.tokenizer(f" {word.strip()}", add_special_tokens=False)["input_ids"]
    if not ids:
        raise OptionError("The other word is empty.", "Give a word with --against.")
    return int(ids[0])
