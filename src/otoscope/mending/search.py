"""Searching repairs: which heads are gated and how far, where is steered or projected, when loops are broken.

Every trial writes the discovery corpus again under one repair, from encoder outputs that were computed once, and has three
objectives: the share of loops that is left, the share of invented text that is left, and the price, as a multiple of what may be
paid. Optuna's tree-structured Parzen estimator (Bergstra et al. 2011; several objectives, Ozaki et al. 2022) proposes the next.
Trials begin with a quarter of the recordings, and what is far too dear there goes no further: successive halving by recordings
(Jamieson and Talwalkar 2016) with one rung. What comes out is the Pareto front, and the best of it that is within the budget.
"""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.activations import Edit
from otoscope.corpora import Item
from otoscope.errors import OptionError
from otoscope.files import atomic_write
from otoscope.mending.applying import repaired, weakened
from otoscope.mending.baseline import baseline
from otoscope.mending.breaker import Breaker
from otoscope.mending.directions import (
    decoder_states,
    invented_subspace,
    mean_difference,
    projecting,
    steering,
)
from otoscope.mending.lessons import HeardItem, hear_items, kind_of, write_heard
from otoscope.mending.pricing import used
from otoscope.mending.repair import Repair
from otoscope.mending.tuning import Head
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import error_rates, is_loop, repeat_fidelity
from otoscope.progress import notice, track
from otoscope.runs import Run
from otoscope.showing import Shows
from otoscope.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("gates", "steer", "project", "breaker", "empty", "strength")
KIND = "search for a repair"
RESULT = "search.json"
_LOG = "trials.log"
_UNTOUCHED = 2.0  # all of the loops and all of the invented text
_FIRST_SHARE = 0.25
_TOO_DEAR = 30.0
"""Price, in budgets, on the first share of the recordings above which a trial goes no further; on few recordings one word is many
budgets."""
_STEER = 4.0  # multiples of the mean difference
_RANKS = 8


@dataclass(frozen=True)
class SearchOptions:
    """What is searched.

    Attributes:
        heads: Heads of the decoder's self-attention that may be gated (layer, head; from 0).
        parts: Of `gates`, `steer`, `project`, `breaker`, `empty` (whether a text may be empty) and `strength`
            (how far the weights of the repair to start from go from the model's own).
        gates: Heads gated at once, at most.
        trials: Trials in all, those of a begun search among them.
        wer_budget: What English may lose, in WER (0.003 is 0.3 points).
        cer_budget: What each other language may lose, in CER.
        max_tokens: Tokens written at most.
        seed: Of the search.
    """

    heads: tuple[Head, ...]
    parts: tuple[str, ...] = ("gates", "breaker", "empty")
    gates: int = 3
    trials: int = 40
    wer_budget: float = 0.003
    cer_budget: float = 0.01
    max_tokens: int = 224
    seed: int = 0

    def __post_init__(self) -> None:
        require_parts(self.parts)
        if min(self.trials, self.gates) < 1 or min(self.wer_budget, self.cer_budget) <= 0:
            raise OptionError(
                "A search needs trials, gates and budgets above 0.", "Raise what is 0; a budget may be tiny."
            )


def require_parts(parts: Sequence[str], *, started: bool = True) -> None:
    """Refuse what cannot be searched.

    Args:
        parts: What is to be searched.
        started: Whether there is a repair to start from.

    Raises:
        OptionError: A part is unknown, there is none, or there are no weights to take a part of the way.
    """
    wrong = [part for part in parts if part not in PARTS]
    if wrong or not parts:
        named = ", ".join(map(repr, wrong)) or "nothing"
        raise OptionError(f"There is no way to search {named}.", f"Choose of: {', '.join(PARTS)}.")
    if "strength" in parts and not started:
        raise OptionError(
            "Strength is how far the weights of a repair to start from go, and there are none.",
            "Name a repair of tuned heads with --start, or leave strength out of --parts.",
        )


@dataclass(frozen=True)
class Score:
    """How a repair does on the discovery corpus, beside the untouched model.

    Attributes:
        loops: Share of the loops that is left (1: as before).
        invented: Share of the sounds with text that is left.
        price: The greatest of: what English lost, in WER budgets; what another language lost, in CER budgets; and the share of
            kept repetitions that was lost, in tenths. Up to 1 is within the budget.
        n: Recordings.
    """

    loops: float
    invented: float
    price: float
    n: int

    @property
    def values(self) -> tuple[float, float, float]:
        """What is minimised."""
        return self.loops, self.invented, max(0.0, self.price)

    @property
    def mends(self) -> bool:
        """Whether less is left than the untouched model leaves."""
        return self.loops + self.invented < _UNTOUCHED


@dataclass(frozen=True)
class Trial:
    """One repair that was tried.

    Attributes:
        number: From 0.
        params: What was chosen.
        score: How it did.
        whole: Whether on all recordings.
    """

    number: int
    params: Mapping[str, Any]
    score: Score
    whole: bool


@dataclass(frozen=True)
class SearchResult(Shows):
    """What a search found.

    Attributes:
        repair: The best within the budget, or the cheapest of the front; None where that leaves as much as doing nothing.
        within: Whether the best is within the budget.
        front: Trials that no other beats in everything.
        trials: All.
    """

    repair: Repair | None
    within: bool
    front: tuple[Trial, ...]
    trials: tuple[Trial, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "repair": self.repair and self.repair.to_dict(),
            "within_budget": self.within,
            "front": [asdict(trial) for trial in self.front],
            "trials": [asdict(trial) for trial in self.trials],
            "versions": versions(),
        }


def search_repair(
    model: SpeechModel,
    corpus: Sequence[Item],
    options: SearchOptions,
    out: Path | str,
    *,
    start: Repair | None = None,
    name: str = "searched",
    batch: int | None = None,
) -> SearchResult:
    """Search a repair on a discovery corpus. A search that was stopped goes on in its directory.

    Args:
        model: The recogniser.
        corpus: Sounds without speech, recordings that may loop, ordinary speech with its text, and genuine repetitions.
        options: What is searched.
        out: Directory for the trials, `search.json` and the repair.
        start: A repair that every trial is added to, such as tuned heads; of the decoder alone.
        name: Of the repair.
        batch: Recordings at once.

    Raises:
        OptionError: optuna is not installed; the corpus has nothing to mend or nothing to pay with; or the directory belongs to
            another search.
    """
    optuna = _optuna()
    require_parts(options.parts, started=start is not None and bool(start.weights))
    start = start or Repair.of(model, "nothing")
    start.require_fit(model)
    facts = {key: value for key, value in model.describe().items() if key not in ("device", "source")}
    settings = {
        "model": facts,
        "options": {k: v for k, v in asdict(options).items() if k != "trials"},
        "corpus": [[item.audio_filepath, item.offset, *item.file_stamp()] for item in corpus],
        "start": start.to_dict(),
    }
    with Run.opened(out, KIND, settings) as run:
        bench = _Bench.of(model, corpus, options, start, batch, run)
        study = _study(optuna, run.path / _LOG)
        _run_trials(optuna, study, bench, options)
        trials = _trials(study)
        front = pareto_front([trial for trial in trials if trial.whole])
        best, within = pick(front)
        made = {"how": "searched", "options": asdict(options), "trial": asdict(best), "used": used(corpus)}
        repair = bench.repair(best.params, name, made) if best.score.mends else None
        result = SearchResult(repair, within, tuple(front), tuple(trials))
        if repair:
            repair.save(run.path)
        with atomic_write(run.path / RESULT) as file:
            json.dump(result.to_dict(), file, indent=1, allow_nan=False)
        return result


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that no other beats or equals in everything and beats in something; of equal ones the first."""
    front: list[Trial] = []
    for trial in trials:
        mine = trial.score.values
        others = (other for other in trials if other is not trial)
        beaten = any(
            all(a <= b for a, b in zip(o.score.values, mine, strict=True))
            and (o.score.values != mine or o.number < trial.number)
            for o in others
        )
        if not beaten:
            front.append(trial)
    return front


def pick(front: Sequence[Trial]) -> tuple[Trial, bool]:
    """Of the front the trial within the budget that leaves least; the cheapest where none is; and whether it is within."""
    affordable = [trial for trial in front if trial.score.price <= 1]
    if affordable:
        return min(affordable, key=lambda t: (t.score.loops + t.score.invented, t.score.price)), True
    return min(front, key=lambda t: t.score.values[::-1]), False


# Trials -----------------------------------------------------------------------------------------------------------------


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise OptionError(
            "optuna is not installed.", "Install it with `pip install otoscope[search]`."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class _HeldByRun:
    """The journal's lock. Its own would outlive a killed process; a run lets no second process into its directory anyway."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _study(optuna: Any, log: Path) -> Any:
    """The search in its journal, a text of JSON lines; what a killed process left half-done is put right."""
    _cut_half_line(log)
    journal = importlib.import_module("optuna.storages.journal")
    storage = optuna.storages.JournalStorage(journal.JournalFileBackend(str(log), _HeldByRun()))
    study = optuna.create_study(
        storage=storage, study_name="repair", directions=["minimize"] * 3, load_if_exists=True
    )
    for begun in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(begun.number, state=optuna.trial.TrialState.FAIL)
    return study


def _cut_half_line(log: Path) -> None:
    """Take away the end of a journal that a full disk or a crash cut off: one line more after it, and it could not be read."""
    text = log.read_bytes() if log.exists() else b""
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with log.open("r+b") as file:
            file.truncate(whole)


def _run_trials(optuna: Any, study: Any, bench: _Bench, options: SearchOptions) -> None:
    done = len(_finished(study))
    if not done and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
        study.enqueue_trial(_nothing(options))  # so that the front begins with what costs nothing
    notice(
        f"{options.trials} trials ({done} done) of {len(bench.heard)} recordings: {', '.join(options.parts)}; "
        f"{len(options.heads)} heads may be gated."
    )
    with track("Searching", options.trials, "trials") as task:
        task.advance(min(done, options.trials))
        for number in range(done, options.trials):
            # By the trial's number: a search that goes on proposes what it would have proposed without a stop.
            study.sampler = optuna.samplers.TPESampler(seed=options.seed + number)
            study.optimize(bench.objective, n_trials=1)
            task.advance()


def _nothing(options: SearchOptions) -> dict[str, Any]:
    """The parameters of a trial that adds nothing."""
    gates = {f"head_{i}": "none" for i in range(options.gates)}
    rest = {"steer_layer": 0, "steer_strength": 0.0, "project_layer": 0, "project_rank": 0}
    return gates | rest | {"may_be_empty": False, "breaker": "none", "strength": 0.0}


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.values is not None]


def _trials(study: Any) -> list[Trial]:
    return [
        Trial(i, trial.params, Score(*trial.user_attrs["score"]), trial.user_attrs["whole"])
        for i, trial in enumerate(_finished(study))
    ]


class _Bench:
    """The discovery corpus, heard and written once, on which repairs are tried."""

    def __init__(
        self,
        model: SpeechModel,
        heard: list[HeardItem],
        texts: list[str],
        options: SearchOptions,
        start: Repair,
        states: tuple[dict[int, Tensor], dict[int, Tensor]] | None,
        batch: int | None,
    ) -> None:
        self.model, self.heard, self.texts = model, heard, texts
        self.options, self.start, self.states, self.batch = options, start, states, batch
        self.first = _spread_sample(heard, _FIRST_SHARE, options.seed)

    @classmethod
    def of(
        cls,
        model: SpeechModel,
        corpus: Sequence[Item],
        options: SearchOptions,
        start: Repair,
        batch: int | None,
        run: Run,
    ) -> _Bench:
        heard = hear_items(model, corpus, batch)
        written = baseline(model, heard, options.max_tokens, batch, run)
        texts = [model.tokenizer.decode(w.ids, skip_special_tokens=True).strip() for w in written]
        states = None
        if {"steer", "project"} & set(options.parts):
            tokens = [[*w.prompt, *w.ids] for w in written]
            prompt = len(written[0].prompt)
            sides = (
                [i for i, h in enumerate(heard) if (kind_of(h.item) == "sound") is sound]
                for sound in (True, False)
            )
            invented, said = (
                decoder_states(model, [heard[i] for i in side], [tokens[i] for i in side], prompt)
                if side
                else {}
                for side in sides
            )
            states = invented, said
        return cls(model, heard, texts, options, start, states, batch)

    def repair(
        self, params: Mapping[str, Any], name: str = "trial", made: Mapping[str, Any] | None = None
    ) -> Repair:
        """The repair that a trial's parameters stand for, added to the start."""
        edits = [*self._gates(params), *self._vectors(params)]
        breaker = None
        if params.get("breaker") in ("end", "forbid"):
            breaker = Breaker(params["copies"], params["tokens"], action=params["breaker"])
        empty = bool(params.get("may_be_empty"))
        added = Repair.of(self.model, name, edits=tuple(edits), breaker=breaker, may_be_empty=empty)
        base = weakened(self.model, self.start, params["strength"]) if "strength" in params else self.start
        start = {"start": dict(base.made)} if base.made else {}
        return replace(base.joined(added), name=name, made={**(made or {}), **start})

    def _gates(self, params: Mapping[str, Any]) -> list[Edit]:
        chosen: dict[str, float] = {}
        for i in range(self.options.gates):
            head = params.get(f"head_{i}", "none")
            if head != "none":
                chosen[head] = params[f"gate_{i}"]
        edits = []
        for head, factor in chosen.items():
            layer, number = (int(part) for part in head.removeprefix("L").split("H"))
            edits.append(Edit.scale(f"decoder_blocks.{layer}.self_attn.hook_z", factor, heads=number))
        return edits

    def _vectors(self, params: Mapping[str, Any]) -> list[Edit]:
        if self.states is None:
            return []
        invented, said = self.states
        edits = []
        if params.get("steer_strength"):
            layer = params["steer_layer"]
            edits.append(
                steering(mean_difference(said[layer], invented[layer]), layer, params["steer_strength"])
            )
        if params.get("project_rank"):
            layer = params["project_layer"]
            edits.append(
                projecting(invented_subspace(invented[layer], said[layer], params["project_rank"]), layer)
            )
        return edits

    def objective(self, trial: Any) -> tuple[float, float, float]:
        """Optuna's objective."""
        repair = self.repair(self._suggest(trial))
        score, whole = self.score(repair, self.first), False
        if score.price <= _TOO_DEAR:
            score, whole = self.score(repair, range(len(self.heard))), True
        trial.set_user_attr("score", [score.loops, score.invented, score.price, score.n])
        trial.set_user_attr("whole", whole)
        return score.values

    def _suggest(self, trial: Any) -> dict[str, Any]:
        parts = self.options.parts
        if "gates" in parts:
            names = ["none", *(f"L{layer}H{head}" for layer, head in self.options.heads)]
            for i in range(self.options.gates):
                if trial.suggest_categorical(f"head_{i}", names) != "none":
                    trial.suggest_float(f"gate_{i}", 0.0, 1.0, step=0.25)
        last = self.model.config.decoder_layers - 1
        if "steer" in parts:
            trial.suggest_int("steer_layer", 0, last)
            trial.suggest_float("steer_strength", 0.0, _STEER, step=0.25)
        if "project" in parts:
            trial.suggest_int("project_layer", 0, last)
            trial.suggest_int("project_rank", 0, min(_RANKS, len(self.states[0][0]) if self.states else 0))
        if "strength" in parts:
            trial.suggest_float("strength", 0.0, 1.0, step=0.1)
        if "empty" in parts:
            trial.suggest_categorical("may_be_empty", [False, True])
        if "breaker" in parts and trial.suggest_categorical("breaker", ["none", "end", "forbid"]) != "none":
            trial.suggest_int("copies", 2, 5)
            trial.suggest_int("tokens", 6, 20)
        return trial.params

    def score(self, repair: Repair, which: Sequence[int]) -> Score:
        """Write some of the recordings under a repair and compare."""
        chosen = [self.heard[i] for i in which]
        with repaired(self.model, repair):
            decoded = write_heard(self.model, chosen, self.options.max_tokens, self.batch)
        after = [self.model.tokenizer.decode(d.ids, skip_special_tokens=True).strip() for d in decoded]
        return score_texts(chosen, [self.texts[i] for i in which], after, self.options)


def _spread_sample(heard: Sequence[HeardItem], share: float, seed: int) -> list[int]:
    """A share of every kind of recording and every language, at least one of each."""
    draw = random.Random(seed)
    groups: dict[tuple[str, str], list[int]] = {}
    for i, h in enumerate(heard):
        groups.setdefault((kind_of(h.item), h.language if h.item.text else ""), []).append(i)
    return sorted(i for of in groups.values() for i in draw.sample(of, max(1, round(share * len(of)))))


def score_texts(
    heard: Sequence[HeardItem], before: Sequence[str], after: Sequence[str], options: SearchOptions
) -> Score:
    """The objectives of texts, beside those of the untouched model."""
    kinds = [kind_of(h.item) for h in heard]

    def left(happened: Callable[[int, str], bool]) -> float:
        old, new = (sum(happened(i, text) for i, text in enumerate(side)) for side in (before, after))
        return new / old if old else 1.0 + new

    return Score(
        loops=left(
            lambda i, text: kinds[i] in ("untold", "speech") and is_loop(text, language=heard[i].language)
        ),
        invented=left(lambda i, text: kinds[i] == "sound" and bool(text)),
        price=max(
            _lost_rates(heard, kinds, before, after, options), _lost_repeats(heard, kinds, before, after)
        ),
        n=len(heard),
    )


def _lost_rates(
    heard: Sequence[HeardItem],
    kinds: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    options: SearchOptions,
) -> float:
    """The greatest loss of a language, in budgets."""
    lost = [0.0]
    for language in {h.language for h in heard}:
        rows = [i for i, h in enumerate(heard) if kinds[i] == "speech" and h.language == language]
        said = [heard[i].item.text or "" for i in rows]
        old, new = (error_rates(said, [side[i] for i in rows], language) for side in (before, after))
        measure, budget = ("wer", options.wer_budget) if language == "en" else ("cer", options.cer_budget)
        a, b = getattr(old, measure), getattr(new, measure)
        if a is not None and b is not None:
            lost.append((b - a) / budget)
    return max(lost)


def _lost_repeats(
    heard: Sequence[HeardItem], kinds: Sequence[str], before: Sequence[str], after: Sequence[str]
) -> float:
    """Genuine repetitions that are kept no more, over a tenth of those that were."""
    old, new = (
        sum(
            found.kept
            for i, text in enumerate(side)
            if kinds[i] == "repeat"
            and (found := repeat_fidelity(heard[i].item.text or "", text, heard[i].language))
        )
        for side in (before, after)
    )
    return (old - new) / (0.1 * old) if old else 0.0
