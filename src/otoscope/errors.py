"""Errors that tell the reason and the remedy, one sentence each.

The command line turns every `OtoscopeError` into two lines and exit code 2; library users catch them like any exception.
"""

from __future__ import annotations

_LONGEST = 1_000  # characters of a sentence: it may quote what a hostile file holds


class OtoscopeError(Exception):
    """Something a person can put right.

    Args:
        reason: One sentence: what is wrong, naming the thing (file, option, point).
        remedy: One sentence: what to do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason, self.remedy = _shortened(reason), _shortened(remedy)
        super().__init__(f"{self.reason} {self.remedy}")

    def __str__(self) -> str:
        return f"{self.reason} {self.remedy}"

    def __reduce__(self) -> tuple[type[OtoscopeError], tuple[str, str]]:
        """As two sentences, so that it comes back whole from another process."""
        return type(self), (self.reason, self.remedy)


def _shortened(sentence: str) -> str:
    """A sentence with its middle left out where it is too long to be read."""
    half = _LONGEST // 2 - 1
    return sentence if len(sentence) <= _LONGEST else f"{sentence[:half]}…{sentence[-half:]}"


class AudioError(OtoscopeError):
    """A recording that cannot be read or used."""


class ManifestError(OtoscopeError):
    """A manifest, folder or label that cannot be used."""


class ModelError(OtoscopeError):
    """A model that cannot be found, fetched, verified or loaded."""


class PointError(OtoscopeError, KeyError):
    """A hook point that does not exist or cannot be read or written here."""


class EditError(OtoscopeError):
    """An edit that does not fit the model or the call it is made around."""


class OptionError(OtoscopeError):
    """An option whose value cannot be used."""


class OutputError(OtoscopeError):
    """A result that cannot be written (full disk, read-only folder)."""


class DocumentError(OtoscopeError):
    """A page or document that cannot be read."""


class DictionaryError(OtoscopeError):
    """A dictionary of features that cannot be read, or that is of another model."""


class TrainingError(OtoscopeError):
    """A training that cannot go on."""


class GraphError(OtoscopeError):
    """An attribution graph that cannot be made, read or asked what it is asked."""
