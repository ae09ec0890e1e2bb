"""`load_model`: from a name or a path to a model with named places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.errors import ModelError
from otoscope.models.base import Family, Model, Origin, pick_device, pick_dtype
from otoscope.models.families import families, family_of
from otoscope.models.published import find_published
from otoscope.models.sources import Local, locate
from otoscope.text_values import object_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_MODEL = "whisper-tiny.en"


def load_model(
    name: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    attention: str | None = None,
    batch: int = 16,
) -> Model:
    """Load a model, fetching its weights first if they are not here yet.

    Args:
        name: A registered alias (`otoscope models list`), a hub id, a Transformers directory, a CTranslate2 Whisper directory,
            or a GGUF file.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`; `meta` for shapes without weights (see `weightless`).
        dtype: `auto` (float32 on the CPU; on accelerators float16 for Whisper, bfloat16 for others),
            `float32`, `float16`, `bfloat16`, `float64`.
        attention: Attention implementation (`sdpa`, `eager`, ...); None: Transformers' own choice.
        batch: Rows run at once by default.

    Returns:
        A `SpeechModel`, `AudioLanguageModel` or `LanguageModel`.

    Raises:
        ModelError: The model is unknown, cannot be fetched, is damaged, or has weights that are pickled.
        OptionError: The device or precision cannot be used.
    """
    if device == "meta":
        return weightless(name, dtype, attention=attention, batch=batch)
    place = pick_device(device)
    precision = pick_dtype(dtype, place)
    local = locate(name)
    if dtype == "auto" and place.type != "cpu" and not _is_whisper(local):
        precision = (
            torch.bfloat16
        )  # what language models are trained in; Gemma's activations overflow float16
    hf, family, processor = _LOADERS[local.layout](local, precision, attention)
    origin = Origin(local.name, local.source, local.sha256, local.path)
    return family.model(hf.to(place), family, processor, origin, batch)  # type: ignore[arg-type]


def weightless(
    name: str | Path, dtype: str | torch.dtype = "auto", *, attention: str | None = None, batch: int = 16
) -> Model:
    """A model that has its shapes and hook points, and no weights: nothing is fetched and nothing takes memory.

    Args:
        name: A hub id whose configuration is kept here (see `otoscope.models.published`), a Transformers directory, of which
            `config.json` alone is read, or any other model that is here already.
        dtype: As for `load_model`; `auto` is float32.
        attention: Attention implementation; None: Transformers' own choice.
        batch: Rows run at once by default.

    Raises:
        ModelError: The configuration is neither kept nor here, or cannot be used.
        OptionError: The name is not a precision.
    """
    import transformers
    from transformers.initialization import no_init_weights

    config = _configuration(name)
    if attention:
        config._attn_implementation = attention
    family = family_of(config.model_type)
    auto = getattr(transformers, family.auto_class)
    build = auto.from_config if hasattr(auto, "from_config") else auto
    with torch.device("meta"), no_init_weights():
        hf = build(config)
    hf = hf.to(pick_dtype(dtype, torch.device("cpu")))
    hf.tie_weights()  # what is shared counts once
    return family.model(
        hf, family, None, Origin(str(name), "its configuration alone, without weights"), batch
    )


def _configuration(name: str | Path) -> Any:
    """The Transformers configuration of a model, without a look at its weights where that is possible."""
    from transformers import AutoConfig

    kept = None if Path(name).is_dir() else find_published(str(name))
    if kept is not None:
        return kept.configuration()
    folder = Path(name)
    if not (folder / "config.json").is_file() or (folder / "model.bin").is_file():
        local = locate(name)
        if local.layout == "ctranslate2":
            from otoscope.models.ctranslate2 import load

            return load(local.path).config
        folder = local.path
        if local.layout == "gguf":
            from otoscope.models.gguf import safetensors_copy

            folder = safetensors_copy(local.path, local.sha256)
    _model_type(folder)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the classes of Transformers make of values that cannot be
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{folder}/config.json cannot be used: {first}", "Replace it with the model's own file."
        ) from error


def _is_whisper(local: Local) -> bool:
    if local.layout == "transformers":
        return _model_type(local.path) == "whisper"
    return local.layout == "ctranslate2"


def _from_ctranslate2(
    local: Local, dtype: torch.dtype, attention: str | None
) -> tuple[PreTrainedModel, Family, Any]:
    from transformers import WhisperForConditionalGeneration

    from otoscope.models.ctranslate2 import load

    parts = load(local.path)
    if attention:
        parts.config._attn_implementation = attention
    with torch.device("meta"):
        hf = WhisperForConditionalGeneration(parts.config)
    state = {name: tensor.to(dtype) for name, tensor in parts.state_dict.items()}
    missing, unexpected = hf.load_state_dict(state, strict=False, assign=True)
    if set(missing) - {"proj_out.weight"} or unexpected:
        raise ModelError(
            f"{local.path} does not hold a whole Whisper model: missing {missing[:3]}, unexpected {unexpected[:3]}.",
            "Fetch it again.",
        )
    hf.tie_weights()
    hf.generation_config = parts.generation_config
    return hf, families()["whisper"], parts.processor


def _from_transformers(
    local: Local, dtype: torch.dtype, attention: str | None
) -> tuple[PreTrainedModel, Family, Any]:
    import transformers

    family = family_of(_model_type(local.path))
    options = {"attn_implementation": attention} if attention else {}
    try:
        _require_layers(local.path)
        hf, report = getattr(transformers, family.auto_class).from_pretrained(
            local.path, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False,
            output_loading_info=True, ignore_mismatched_sizes=True, **options,
        )  # fmt: skip
        _require_whole(local.path, report)
        return hf, family, family.load_processor(local.path)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{local.path} asks for code of its own to be run, and otoscope runs none that comes with a model.",
                f"Name a {family.name} model that the classes of Transformers can read.",
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{local.path} cannot be loaded as a {family.name} model: {first}",
            "Check that all its files are there and whole.",
        ) from error
    except Exception as error:  # safetensors raises its own type, which is no subclass of any of these
        if type(error).__name__ != "SafetensorError":
            raise
        raise ModelError(
            f"The weights in {local.path} are damaged: {error}.", "Fetch or copy them again."
        ) from error


def _require_layers(directory: Path) -> None:
    """Refuse a configuration of more layers than there are tensors, before a model of so many is begun.

    Raises:
        ModelError: It is one.
    """
    from safetensors import safe_open

    tensors = 0
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            tensors += len(file.keys())
    layers = max(_layers_in(object_in(directory / "config.json")), default=0)
    if layers > tensors:
        raise ModelError(
            f"{directory}/config.json announces {layers} layers, and its weights are {tensors} tensors.",
            "Put the model's own config.json there.",
        )


def _layers_in(config: dict[str, Any]) -> Iterator[int]:
    """How many layers a configuration says, those of its parts included."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _layers_in(value)
        elif name.endswith("layers") and isinstance(value, int):
            yield value


def _require_whole(path: Path, report: dict[str, Any]) -> None:
    """Refuse weights that Transformers filled in at random; tied ones it does not count as missing."""
    missing = sorted(report["missing_keys"])
    mismatched = sorted(name for name, *_ in report["mismatched_keys"])
    for names, what in ((missing, "lacks"), (mismatched, "has in another shape than its config.json says")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"{path} {what}: {', '.join(names[:3])}{more}.",
                "Fetch or copy the model again, or name the directory with all of its weights.",
            )


def _from_gguf(
    local: Local, dtype: torch.dtype, attention: str | None
) -> tuple[PreTrainedModel, Family, Any]:
    from dataclasses import replace

    from otoscope.models.gguf import safetensors_copy

    return _from_transformers(
        replace(local, path=safetensors_copy(local.path, local.sha256)), dtype, attention
    )


def _model_type(directory: Path) -> str:
    try:
        return str(object_in(directory / "config.json")["model_type"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{directory} has no readable config.json with a model_type.",
            "Name a Transformers model directory.",
        ) from error


_LOADERS = {"ctranslate2": _from_ctranslate2, "transformers": _from_transformers, "gguf": _from_gguf}
