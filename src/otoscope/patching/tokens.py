"""Which components one written token hangs on: the change of its log-probability, teacher-forced, over one clip or many."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.activations import Edit
from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, ModelError, OptionError
from otoscope.figures.grids import patch_figure
from otoscope.figures.style import Saved
from otoscope.models.cache import cache_dir
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import bootstrap
from otoscope.patching.changes import Change
from otoscope.patching.components import Component, chosen_components, main_stack
from otoscope.patching.controls import halves, holm, tail_of_mean
from otoscope.patching.means import Means
from otoscope.patching.price import price_told, priced_on
from otoscope.patching.references import Reference
from otoscope.patching.results import LEVEL, Winner, group_of
from otoscope.patching.scene import Scene
from otoscope.patching.sweeping import KIND, MEANS_OF, SweepOptions, digest, sweep_settings
from otoscope.patching.writing import WhisperWriter, Written, first_window
from otoscope.progress import track
from otoscope.runs import Run
from otoscope.showing import Shows
from otoscope.versions import versions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.models.base import Model

NOTES = (
    "Teacher-forced: the text that was written is given, and one token of it is looked at; nothing is written again.",
    "Resolved: the token is no longer the most probable one; restored: the other word's token is more probable than it.",
    "p (p_value): chance that a component drawn anew from its kind for every token changes the metric as much on average; with "
    "one token it is never below one over the number of its kind.",
    "Winners are chosen on the discovery half by the size of the change, with Holm's correction over all components.",
)

_TOKENS = "tokens"
_COLUMNS = ("change", "direction", "resolved", "restored")


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
class TokenResult(Shows):
    """Changes of one token an item under every component's patch.

    Attributes:
        model: Facts about the model.
        options: What was patched.
        components: Components.
        chosen: The tokens.
        names: Recordings of the items.
        groups: Group of each token's recording; no group is in both halves.
        change: Change of the metric `(component, token)`: the token's log-probability, or its logit less the other's.
        direction: The same in a random direction.
        resolved: `(component, token)`, bool.
        restored: `(component, token)`, bool; None without another word.
        n_items: Items that could be read.
        skipped: Items that could not be read, or hold no such token.
        price: What the winners cost; None if nothing was priced.
    """

    model: Mapping[str, Any]
    options: SweepOptions
    components: Sequence[Component]
    chosen: Sequence[Chosen]
    names: Sequence[str]
    groups: Sequence[Hashable]
    change: np.ndarray
    direction: np.ndarray
    resolved: np.ndarray
    restored: np.ndarray | None
    n_items: int
    skipped: Sequence[Mapping[str, str]]
    price: Mapping[str, Any] | None = None

    @property
    def measure(self) -> str:
        """What changed."""
        return "logprob" if self.restored is None else "logit_difference"

    @cached_property
    def discovery(self) -> np.ndarray:
        """Which tokens are the discovery half, `(token,)`, bool; a single one is in it."""
        return halves(list(self.groups), self.options.seed)

    @cached_property
    def p_values(self) -> dict[str, list[float]]:
        """Of every component against those of its kind: on `all` tokens and on the `discovery` half; see `tail_of_mean`."""
        return {
            "all": self._tails(np.ones(len(self.chosen), dtype=bool)),
            "discovery": self._tails(self.discovery),
        }

    def _tails(self, tokens: np.ndarray) -> list[float]:
        out = np.full(len(self.components), np.nan)
        kinds = [(c.stack, c.kind) for c in self.components]
        for kind in set(kinds):
            rows = np.array([k == kind for k in kinds])
            out[rows] = tail_of_mean(self.change[rows][:, tokens], self.options.seed)
        return out.tolist()

    @cached_property
    def p_adjusted(self) -> list[float | None]:
        """Of every component: its change on the discovery half, corrected over all components."""
        return [None if np.isnan(p) else p for p in holm(self.p_values["discovery"])]

    @cached_property
    def winner_indices(self) -> list[int]:
        """Components that change the tokens of the discovery half most, among those that stand out; else the best one."""
        strength = np.abs(self.change[:, self.discovery].mean(axis=1))
        order = [int(i) for i in np.argsort(-strength, kind="stable")]
        standing_out = [i for i in order if (p := self.p_adjusted[i]) is not None and p <= LEVEL]
        return standing_out[: self.options.winners] or order[:1]

    @property
    def winners(self) -> list[Winner]:
        """The winners."""
        return [Winner(self.components[i], self.p_adjusted[i]) for i in self.winner_indices]

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
            "winners": [w.to_dict() for w in self.winners],
            "tokens": [
                {
                    "audio_filepath": self.names[c.item],
                    "token": c.index,
                    "id": c.token,
                    "text": c.text,
                    "half": "discovery" if first else "test",
                }
                for c, first in zip(self.chosen, self.discovery, strict=True)
            ],
            "price": dict(self.price) if self.price is not None else None,
            "skipped": [dict(s) for s in self.skipped],
            "notes": list(NOTES),
            "versions": versions(),
        }

    def _effect(self, i: int) -> dict[str, Any]:
        component = self.components[i]
        kind = (component.stack, component.kind)
        alike = [j for j, c in enumerate(self.components) if (c.stack, c.kind) == kind and j != i]
        every = np.ones(len(self.chosen), dtype=bool)
        p = self.p_values["all"][i]
        return (
            component.to_dict()
            | {"label": component.label, "kind": component.kind}
            | self._summary(i, every)
            | {
                "random_change": float(self.change[alike].mean()) if alike else None,
                "random_rate": float(self.resolved[alike].mean()) if alike else None,
                "direction_change": float(self.direction[i].mean()),
                "p_value": None if np.isnan(p) else p,
                "p_adjusted": self.p_adjusted[i],
                "discovery": self._summary(i, self.discovery),
                "test": self._summary(i, ~self.discovery),
            }
        )

    def _summary(self, i: int, tokens: np.ndarray) -> dict[str, Any]:
        """One component on some of the tokens."""
        n, change = int(tokens.sum()), self.change[i, tokens]
        low, high = bootstrap(np.mean, change, seed=self.options.seed) if n > 1 else (None, None)
        resolved = int(self.resolved[i, tokens].sum())
        return {
            "resolved": resolved,
            "restored": None if self.restored is None else int(self.restored[i, tokens].sum()),
            "n": n,
            "rate": resolved / n if n else None,
            "change": float(change.mean()) if n else None,
            "ci_low": low,
            "ci_high": high,
        }

    def plot(self, path: Saved = None, *, dark: bool = False) -> Figure:
        """Draw the grids, less what random components do, for a paper; see `otoscope.figures`.

        Args:
            path: Also write it there, as .png, .svg or .pdf.
            dark: On a dark ground.

        Raises:
            OutputError: The file cannot be written.
        """
        return patch_figure(self.to_dict(), path=path, dark=dark)

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
    out: Path | str | None = None,
    priced: Sequence[Path | str] | None = (),
    batch: int | None = None,
) -> TokenResult:
    """Patch every component, see what becomes of one token of each recording, and price the winners.

    Args:
        model: A Whisper model.
        corpus: Recordings, of each of which the first window is taken.
        options: What to patch and with what.
        token: Index of the token from 0, or a word; None: the least certain token.
        against: Another word: the metric is then the difference of the logits of the two.
        out: Directory of the run, begun or finished; None: one in otoscope's cache, named after all that it depends on.
        priced: Corpora that the winners are priced on; none: the shipped recordings. None prices nothing.
        batch: Rows at once.

    Raises:
        ModelError: The model is no Whisper model.
        OptionError: No recording has such a token, or the directory belongs to another sweep.
        OutputError: Another process works in the directory, or it cannot be written.
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
    components = chosen_components(
        model, options.stacks or (main_stack(model),), options.parts, options.heads
    )
    other = None if against is None else _first_token(model, against)
    price_corpus = None if priced is None else priced_on(priced)
    settings = sweep_settings(model, corpus, options, components, price_corpus) | {
        "outcome": "token",
        "token": token,
        "against": other,
    }
    path = Path(out) if out is not None else cache_dir() / "patching" / digest(settings)[:24]
    with Run.opened(path, KIND, settings) as run:
        sweep = _TokenSweep(model, corpus, options, components, run, token, other, batch or model.batch)
        result = sweep.result()
        if price_corpus is not None:
            result = replace(result, price=sweep.price(result, price_corpus, bool(priced)))
        return result


class _TokenSweep:
    """The work of one sweep; each recording is a part of the run."""

    def __init__(
        self,
        model: SpeechModel,
        corpus: Sequence[Item],
        options: SweepOptions,
        components: Sequence[Component],
        run: Run,
        token: int | str | None,
        against: int | None,
        batch: int,
    ) -> None:
        self.model, self.corpus, self.options, self.batch = model, corpus, options, batch
        self.components, self.run, self.token, self.against = components, run, token, against
        self.writer = WhisperWriter(model, options.max_tokens, model.check_language(options.language))

    def result(self) -> TokenResult:
        """Everything but the price."""
        with track("Patching tokens", len(self.corpus), "recordings") as task:
            for i in range(len(self.corpus)):
                if not self.run.has_part(_TOKENS, i):
                    self.run.write_part(_TOKENS, i, self._part(i))
                task.advance()
        import pandas as pd

        parts = [pd.read_parquet(self.run.part(_TOKENS, i)) for i in range(len(self.corpus))]
        return self._gathered(parts)

    def _gathered(self, parts: Sequence[pd.DataFrame]) -> TokenResult:
        heads = [part.iloc[0] for part in parts]
        names = [item.audio_filepath for item in self.corpus]
        skipped = [
            {"audio_filepath": name, "reason": str(head["reason"])}
            for name, head in zip(names, heads, strict=True)
            if head["component"] < 0
        ]
        n_items = sum(bool(head["readable"]) for head in heads)
        if not n_items:
            raise AudioError(
                f"None of the {len(self.corpus)} recordings can be read; the first: {skipped[0]['reason']}",
                "Check them with `otoscope corpus check`.",
            )
        there = [i for i, head in enumerate(heads) if head["component"] >= 0]
        if not there:
            raise OptionError(
                f"No recording has the token {self.token!r}.",
                "See `otoscope transcribe` for what is written.",
            )
        chosen = [
            Chosen(i, int(h["index"]), int(h["token"]), self._word(h["token"]), self.against)
            for i, h in enumerate(heads)
            if h["component"] >= 0
        ]
        columns = {name: np.stack([parts[i][name].to_numpy() for i in there], axis=1) for name in _COLUMNS}
        return TokenResult(
            self.model.describe(),
            self.options,
            self.components,
            chosen,
            names,
            [group_of(self.corpus[i], self.options.group_by, i) for i in there],
            columns["change"],
            columns["direction"],
            columns["resolved"],
            None if self.against is None else columns["restored"],
            n_items,
            skipped,
        )

    def _part(self, i: int) -> pd.DataFrame:
        """One line a component; of a recording that is skipped a single line of component -1."""
        import pandas as pd

        clip, reason = self._clip(i)
        if clip is None:
            return pd.DataFrame([{"component": -1, "readable": False, "reason": reason}])
        heard = self.writer.hear(clip, self.corpus[i].language)
        text = self.writer.write([heard], None)[0]
        index = self._index(text)
        if index is None:
            reason = f"It has no token {self.token!r}: {text.text[:60]!r}."
            return pd.DataFrame([{"component": -1, "readable": True, "reason": reason}])
        found = Chosen(i, index, text.ids[index], self._word(text.ids[index]), self.against)
        columns = self._changes(found, clip, heard, text)
        same = {"index": index, "token": found.token, "readable": True, "reason": None}
        return pd.DataFrame({"component": range(len(self.components)), **columns, **same})

    def _clip(self, i: int) -> tuple[Clip | None, str | None]:
        try:
            return first_window(self.corpus[i], self.model.window_seconds), None
        except AudioError as error:
            return None, error.reason

    def _word(self, token: int) -> str:
        return self.model.tokenizer.decode([int(token)])

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

    @cached_property
    def reference(self) -> Reference:
        """The reference; corpus means are taken when they are first needed, in a pass of their own."""
        reference = self.options.reference
        if reference.kind != "mean":
            return reference
        means, done = Means(self.model, self.components), 0
        for i, item in enumerate(self.corpus):
            clip, _ = self._clip(i)
            if clip is None:
                continue
            heard = self.writer.hear(clip, item.language)
            prompt = self.model.prompt(heard.language)
            (text,) = self.writer.write([heard], None)
            means.add(self.model.inputs([clip], [*prompt, *text.ids]), len(prompt) - 1, clip)
            done += 1
            if done == MEANS_OF:
                break
        return reference.with_means(means.result())

    def _changes(self, c: Chosen, clip: Clip, heard: Any, text: Written) -> dict[str, np.ndarray]:
        """Each component's change of the metric, that in a random direction, and what becomes of the token."""
        reference = self.reference
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
        change = (_metric(logits, c) - _metric(base[None], c)).numpy()
        patched = logits[: len(patches)]
        resolved = patched.argmax(dim=-1) != base.argmax()
        restored = torch.zeros_like(resolved)
        if c.against is not None:
            restored = patched[:, c.against] > patched[:, c.token]
        return {
            "change": change[: len(patches)],
            "direction": change[len(patches) :],
            "resolved": resolved.cpu().numpy(),
            "restored": restored.cpu().numpy(),
        }

    def _logits(self, scene: Scene, edits: Sequence[Edit], position: int) -> Tensor:
        """Logits `(edit, vocab)`; edits that start at the same layer ride together."""
        rows_of = [[edit] for edit in edits]
        out: dict[int, Tensor] = {}
        for chunk in scene.chunks(rows_of, self.batch):
            rows = scene.logits([rows_of[i] for i in chunk], [position])[:, 0]
            out |= dict(zip(chunk, rows, strict=True))
        return torch.stack([out[i] for i in range(len(edits))])

    def price(self, result: TokenResult, corpus: Sequence[Item], given: bool) -> dict[str, Any]:
        """What the winners cost."""
        changes = [
            Change((self.components[i],), self.reference, self.options.alpha) for i in result.winner_indices
        ]
        winners = [w.to_dict() for w in result.winners]
        return price_told(
            self.writer, corpus, changes, winners, self.run, self.batch, self.model.window_seconds, given
        )


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
