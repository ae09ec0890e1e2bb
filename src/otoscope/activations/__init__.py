"""Read and edit any PyTorch module through named points."""

from otoscope.activations.cache import ActivationCache
from otoscope.activations.edits import Edit, Visit, load_edits, save_edits
from otoscope.activations.hooked import (
    CACHE_NAMES,
    EditNotApplied,
    HookedModel,
)
from otoscope.activations.placing import HookFunction, head_output_weights
from otoscope.activations.points import HookPoint, Layout, Names, PointTable

__all__ = [
    "CACHE_NAMES", "ActivationCache", "Edit", "EditNotApplied", "HookFunction", "HookPoint", "HookedModel", "Layout", "Names",
    "PointTable", "Visit", "head_output_weights", "load_edits", "save_edits",
]  # fmt: skip
