"""Where interventions are tried: a model, and whatever it reads or hears; one run of it under a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otoscope.activations import Edit
from otoscope.circuits import interventions as circuit
from otoscope.dictionaries.loading import load_dictionary
from otoscope.documents.changes import ComponentChange, FeatureChange
from otoscope.documents.intervention import Intervention, Written
from otoscope.errors import OptionError
from otoscope.models.wiring import stack_wiring
from otoscope.patching.components import Component, components, main_stack

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model


@dataclass(frozen=True, eq=False)
class Plan:
    """An intervention made ready for a model.

    Attributes:
        intervention: What it was made of.
        edits: Of components, by stack.
        changes: Of features, by stack.
        clip: The sound, silenced where it is to be; None: there is none.
    """

    intervention: Intervention
    edits: dict[str, tuple[Edit, ...]]
    changes: dict[str, circuit.Row]
    clip: Clip | None = None


class Lab(ABC):
    """A model and what it is given.

    Args:
        model: The model.

    Attributes:
        duration: Seconds of sound; 0 where there is none.
    """

    duration: float = 0.0

    def __init__(self, model: Model) -> None:
        self.model = model
        self._dictionaries: dict[tuple[str, str], Dictionary] = {}

    @abstractmethod
    def run(self, plan: Plan) -> Run:
        """Write under a plan."""

    def plan(self, intervention: Intervention) -> Plan:
        """Make an intervention ready.

        Raises:
            OptionError: It names what the model does not have.
        """
        edits: dict[str, list[Edit]] = {}
        for change in intervention.components():
            edits.setdefault(change.stack, []).append(self._edit(change))
        changes: dict[str, list[circuit.Intervention]] = {}
        for change in intervention.changes():
            changes.setdefault(change.stack, []).append(self._change(intervention, change))
        return Plan(
            intervention,
            {stack: tuple(row) for stack, row in edits.items()},
            {stack: tuple(row) for stack, row in changes.items()},
        )

    def dictionary(self, intervention: Intervention, stack: str) -> Dictionary:
        """Features of a stack.

        Raises:
            OptionError: They stand for a place of the model and not for its MLPs.
            DictionaryError: They cannot be read, or are of another model.
        """
        name = intervention.encoder_dictionary if stack == "encoder" else intervention.dictionary
        if (name, stack) not in self._dictionaries:
            found = load_dictionary(name, self.model, stack)
            if found.reads == "point":
                raise OptionError(
                    f"{name} is an SAE, which stands for a place of the model and not for its MLPs.",
                    "Name a transcoder, or neurons for the model's own.",
                )
            self._dictionaries[name, stack] = found
        return self._dictionaries[name, stack]

    def places(self, change: FeatureChange) -> tuple[int, ...] | None:
        """Positions at which a feature is changed; None: all."""
        return change.positions or None

    @contextmanager
    def under(self, plan: Plan, stacks: Sequence[str] | None = None) -> Iterator[None]:
        """The model inside the block is changed as planned; the sound is not touched here.

        Args:
            plan: What is changed.
            stacks: Those that run inside the block; None: all.
        """
        running = tuple(self.model.points.stacks) if stacks is None else stacks
        with ExitStack() as stack:
            edits = [edit for name, own in plan.edits.items() if name in running for edit in own]
            stack.enter_context(self.model.editing(edits))
            for name, row in plan.changes.items():
                if name in running:
                    dictionary = self.dictionary(plan.intervention, name)
                    stack.enter_context(circuit.intervening(self.model, dictionary, [row], stream=name))
            yield

    def _edit(self, change: ComponentChange) -> Edit:
        """The edit that makes a change of a component.

        Raises:
            OptionError: The model has none of that name.
        """
        own = components(self.model, change.stack) if change.stack in self.model.points.stacks else []
        found = next((one for one in own if spelled(one) == change.place), None)
        if found is None:
            raise OptionError(
                f"{self.model.origin.name} has no component {change.place!r}.",
                f"Its components are such as {self._examples()}; layers and heads are counted from 0.",
            )
        return Edit.scale(found.point, change.factor, **found.where()) if change.factor else found.zeroed()

    def _examples(self) -> str:
        """The last layer's components, with the last head of each attention."""
        own = components(self.model, main_stack(self.model))
        last = [one for one in own if one.layer == own[-1].layer]
        heads = {one.part: one for one in last if one.head is not None}
        return ", ".join(map(spelled, [*heads.values(), last[-1] if last[-1].head is None else last[0]]))

    def _change(self, intervention: Intervention, change: FeatureChange) -> circuit.Intervention:
        if change.stack not in self.model.points.stacks:
            raise OptionError(
                f"{change} is of a stack that {self.model.origin.name} does not have.",
                f"Its stacks are {', '.join(self.model.points.stacks)}.",
            )
        dictionary = self.dictionary(intervention, change.stack)
        size = dictionary.size(change.layer) if change.layer < dictionary.layers else 0
        if change.feature >= size:
            raise OptionError(
                f"{change} names a feature that the {change.stack} does not have.",
                f"Layers are 0 to {dictionary.layers - 1}; layer {change.layer} has {size} features, counted from 0.",
            )
        return circuit.Intervention(
            change.layer, change.feature, change.op, change.value, self.places(change)
        )


class Run(ABC):
    """One text, written under a plan.

    Args:
        lab: Where.
        plan: Under which.
    """

    def __init__(self, lab: Any, plan: Plan) -> None:
        self.lab, self.plan = lab, plan

    @property
    @abstractmethod
    def text(self) -> str:
        """What was written."""

    @abstractmethod
    def forced(self, written: Any) -> Tensor:
        """Log-probability of each token that another run wrote, `(token,)`, float32: the model is given them."""

    @abstractmethod
    def told(self) -> Written:
        """What the document says of it."""

    @abstractmethod
    def replay(self, stack: str) -> None:
        """Run a stack once more, over all that it read and wrote; hooks and edits that are in force see it."""

    def read_of(self, stack: str, dictionary: Dictionary, layer: int) -> Tensor:
        """What the features of a layer read, `(frame or pos, d)`."""
        mlp = stack_wiring(self.lab.model, stack).blocks[layer].mlp
        point = mlp.input_point if dictionary.reads == "mlp_in" else mlp.stream_point
        with self.lab.under(self.plan, [stack]), self.lab.model.capturing([point]) as cache:
            self.replay(stack)
        x = cache[point][0]
        return circuit.divided(x, mlp.norm) if dictionary.reads == "normalized" else x


def spelled(component: Component) -> str:
    """A component as an intervention spells it, the head last."""
    return component.id if component.head is None else f"{component.id}.{component.head}"
