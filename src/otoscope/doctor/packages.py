"""Whether the packages that otoscope names as its own needs are here, and in a version that will do."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement

from otoscope.doctor.check import Check

_USES = {
    "gguf": "to read GGUF files",
    "synth": "to speak with espeak-ng",
    "semantic": "to compare meanings",
    "g722": "to read Debian's telephone prompts",
    "ray": "for `--engine ray`",
    "search": "for `otoscope mend search`",
    "ct2": "to export repairs to CTranslate2 and faster-whisper",
    "serve": "for `otoscope serve` and `otoscope monitor serve`",
    "vad": "for the voice activity baseline",
    "notebook": "for live pages in notebooks",
}
"""What each extra is for, as it follows "Run `pip install ...`"; extras of developers are not looked at."""


def look_at_packages() -> list[Check]:
    """Otoscope itself and everything it cannot do without."""
    return [Check("otoscope", "ok", metadata.version("otoscope")), *(_needed(one) for one in _requirements())]


def _needed(requirement: Requirement) -> Check:
    remedy = f"Run `pip install '{requirement.name}{requirement.specifier}'`."
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Check(requirement.name, "broken", "not installed", remedy)
    if not requirement.specifier.contains(found, prereleases=True):
        return Check(requirement.name, "broken", f"{found}, but {requirement.specifier} is needed", remedy)
    return Check(requirement.name, "ok", found)


def look_at_extras() -> list[Check]:
    """Every optional extra, by what it is for."""
    return [_extra(name, use) for name, use in _USES.items()]


def _extra(name: str, use: str) -> Check:
    found = [_needed(one) for one in _requirements(name)]
    detail = ", ".join(f"{one.name} {one.detail}" for one in found)
    if all(one.status == "ok" for one in found):
        return Check(f"[{name}]", "ok", detail)
    return Check(f"[{name}]", "lack", detail, f"Run `pip install 'otoscope[{name}]'` {use}.")


def _requirements(extra: str = "") -> list[Requirement]:
    """What otoscope's own metadata names: without an extra, or only what the extra adds."""
    named = [Requirement(text) for text in metadata.requires("otoscope") or []]
    here = {"extra": extra}
    return [
        one
        for one in named
        if (one.marker is None and not extra)
        or (
            one.marker is not None
            and one.marker.evaluate(here)
            and not (extra and one.marker.evaluate({"extra": ""}))
        )
    ]
