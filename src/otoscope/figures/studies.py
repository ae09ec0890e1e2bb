"""The figures of a published experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from otoscope.figures.curves import detection_figure, lens_curves, probe_figure
from otoscope.figures.grids import patch_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def study_figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a study by file stem.

    Args:
        results: What the study's `results.json` holds.
    """
    model = results["model"]["name"]
    if results["study"] == "probes":
        return {
            f"{one['property']}-{_stem(one['corpus'])}": probe_figure(
                one | {"label": f"{one['label']} ({one['corpus']})"}
            )
            for one in results["findings"]
        }
    if results["study"] == "lens":
        return {
            f"lens-{name}": lens_curves(name, found, model) for name, found in results["languages"].items()
        }
    if results["study"] == "why":
        return {}  # its graphs are looked at on a page
    if "sweeps" in results:
        swept = {name: sweep for name, sweep in results["sweeps"].items() if sweep["n_outcome"]}
        return {f"sweep-{_stem(name)}": patch_figure(sweep) for name, sweep in swept.items()}
    return {f"telling-{task['label']}": detection_figure(task, model) for task in results["tasks"]}


def _stem(name: str) -> str:
    """A name that is safe in every folder."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:60]
