"""What each layer knows of one recording or prompt. Layers, tokens and ranks are 0-based, entropies in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from otoscope.documents.base import Document, Index, JsonScalar, Part, Seconds, Text, require_numbered
from otoscope.documents.explain import EncoderLensLayer, LogitLens
from otoscope.figures.style import Saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ReadToken(Part):
    """A token that was written or, of a prompt, predicted; `after` is then the prompt's token that it is predicted after."""

    index: Index
    id: Index
    text: Text
    after: Text | None = None


class LensDoc(Document):
    """The lenses of one recording or prompt."""

    kind: Literal["lens"] = "lens"
    version: Literal[1] = 1
    title: Text
    model: Text
    text: Text  # what was written; of a prompt, the prompt
    is_prompt: bool = False
    duration: Seconds | None = None  # of the sound that was read
    tokens: list[ReadToken]
    logit_lens: LogitLens
    encoder_lens: list[EncoderLensLayer] = Field(default_factory=list)
    typed_against: Literal["reference", "transcript"] | None = (
        None  # what the encoder's texts were compared with
    )
    cautions: list[Text] = Field(default_factory=list)
    settings: dict[str, JsonScalar] = Field(default_factory=dict)
    versions: dict[str, Text] = Field(default_factory=dict)
    notes: list[Text] = Field(default_factory=list)

    @model_validator(mode="after")
    def _parts_agree(self) -> LensDoc:
        require_numbered(self.tokens, len(self.tokens), "tokens")
        require_numbered(self.logit_lens.tokens, len(self.tokens), "logit_lens.tokens")
        return self

    def summary(self) -> str:
        """A few lines of plain text: what was written, and where its tokens settle."""
        settled = [token.saturation_layer for token in self.logit_lens.tokens]
        known = sorted(layer for layer in settled if layer is not None)
        last = self.logit_lens.layers - 1
        lines = [self.title, self.text.strip() or "(nothing)"]
        if known:
            middle = known[len(known) // 2]
            lines.append(f"Half of the settled tokens stay on top from layer {middle} of 0 to {last} on.")
        return "\n".join([*lines, *self.cautions])

    def plot(self, path: Saved = None, *, dark: bool = False) -> Figure:
        """Draw the logit lens for a paper; see `otoscope.figures`.

        Args:
            path: Also write it there, as .png, .svg or .pdf.
            dark: On a dark ground.

        Raises:
            OutputError: The file cannot be written.
            OptionError: There is no token.
        """
        return self.logit_lens.plot([token.text for token in self.tokens], self.title, path, dark=dark)
