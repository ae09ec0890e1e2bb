"""Curves over layers: probes with their controls, lenses over a corpus. Layers are 0-based."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from otoscope.documents.base import Document, Index, JsonScalar, Part, Text
from otoscope.figures.curves import curve_figure
from otoscope.figures.style import Saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CurvePoint(Part):
    """A value at a layer with its 95 % interval, and over how many things it was taken."""

    x: Index
    y: float
    low: float | None = None
    high: float | None = None
    n: Index | None = None


class CurveSeries(Part):
    """One line. A control says what the score would be for another reason than the one in question."""

    name: Text
    role: Literal["score", "control"]
    about: Text | None = None
    points: list[CurvePoint]


class CurvePanel(Part):
    """One picture: lines, or shares that add up to one at every layer."""

    title: Text
    about: Text
    form: Literal["lines", "shares"]
    x_name: Text
    y_name: Text
    y_low: float | None = None
    y_high: float | None = None
    series: list[CurveSeries]


class CurveDoc(Document):
    """Curves over layers."""

    kind: Literal["curve"] = "curve"
    version: Literal[1] = 1
    title: Text
    model: Text
    headline: Text  # what was found, in one sentence
    about: Text  # over what, and how
    cautions: list[Text] = Field(default_factory=list)
    panels: list[CurvePanel]
    settings: dict[str, JsonScalar] = Field(default_factory=dict)
    versions: dict[str, Text] = Field(default_factory=dict)
    notes: list[Text] = Field(default_factory=list)

    @model_validator(mode="after")
    def _layers_come_once(self) -> CurveDoc:
        for panel in self.panels:
            for series in panel.series:
                layers = [point.x for point in series.points]
                if layers != sorted(set(layers)):
                    raise ValueError("the layers of a line are not in order, or one comes twice")
        return self

    def summary(self) -> str:
        """A few lines of plain text."""
        return "\n".join([self.title, self.headline, self.about, *self.cautions])

    def plot(self, path: Saved = None, *, dark: bool = False) -> Figure:
        """Draw the curves for a paper; see `otoscope.figures`.

        Args:
            path: Also write it there, as .png, .svg or .pdf.
            dark: On a dark ground.

        Raises:
            OutputError: The file cannot be written.
        """
        return curve_figure(self.model_dump(), path=path, dark=dark)
