"""Takes safetensors weights from the model hub, after one quick look whether it can be reached."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.errors import ModelError
from otoscope.models.cache import require_space, sha256
from otoscope.progress import Task, notice, track
from otoscope.text_values import object_in

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

__all__ = [
    "cached_snapshot",
    "fetch_snapshot",
    "hub_reachable",
    "is_hub_id",
    "published_sha256",
    "weight_names",
]

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SUFFIXES = (".json", ".txt", ".model", ".jinja")
_PART = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form of a hub id, "owner/model"."""
    return name.count("/") == 1 and all(_PART.fullmatch(part) for part in name.split("/"))


@functools.cache
def hub_reachable(timeout: float = 2.0) -> bool:
    """Whether the model hub answers, found out once a process.

    One request with the person's own proxy and certificate settings; `HF_HUB_OFFLINE` and `HF_ENDPOINT`
    count.

    Args:
        timeout: Seconds to wait, name look-up included.
    """
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    answers: list[bool] = []
    worker = threading.Thread(target=lambda: answers.append(_answers(timeout)), daemon=True)
    worker.start()
    worker.join(timeout)
    return bool(answers and answers[0])


def _answers(timeout: float) -> bool:
    from huggingface_hub import constants, get_session

    try:
        return get_session().head(constants.ENDPOINT, timeout=timeout).status_code < 500
    except Exception:  # whatever the HTTP client raises, the answer is no
        return False


def cached_snapshot(hub_id: str) -> Path | None:
    """The complete copy of a model in the hub's own cache, if there is one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None
    return folder if (folder / "config.json").is_file() and _weights_complete(folder) else None


def _weights_complete(folder: Path) -> bool:
    try:
        return bool(weight_names({file.name for file in folder.iterdir()}, folder.joinpath, str(folder)))
    except ModelError:
        return False


def weight_names(there: Collection[str], fetch: Callable[[str], Path], where: str) -> list[str]:
    """The safetensors files that Transformers reads of a model, leaving out copies in another precision.

    That is `model.safetensors`, or, where there is none, the shards that `model.safetensors.index.json` names.

    Args:
        there: Names of the files that the model has at its top level.
        fetch: Gives the local path of one of them; called for the index at most.
        where: The model, for people.

    Returns:
        Sorted names, at least one.

    Raises:
        ModelError: It has neither of the two, or the index is corrupted or names what is not there.
    """
    if _WEIGHTS in there:
        return [_WEIGHTS]
    if _INDEX not in there:
        raise ModelError(
            f"{where} has neither {_WEIGHTS} nor {_INDEX}.", "Give its weights one of these names."
        )
    index = fetch(_INDEX)
    try:
        names = sorted(set(object_in(index)["weight_map"].values()))
        foreign = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} is corrupted.", "Replace it with the model's own file.") from error
    missing = foreign or [name for name in names if name not in there]
    if missing or not names:
        raise ModelError(
            f"{index} names weights that are not beside it: {missing[:1]}.",
            "Put all shards of the model there.",
        )
    return names


def fetch_snapshot(hub_id: str, *, force: bool = False) -> Path:
    """Download the safetensors, configuration and tokenizer of a hub model into the hub's own cache.

    All files are of the one revision that the model was at when asked. The configuration comes first, so that a
    model that otoscope cannot use costs no weights, and the weights come last.

    Args:
        hub_id: "owner/model".
        force: Download even what is cached.

    Returns:
        The folder of the snapshot, whose name is the revision.

    Raises:
        ModelError: The hub does not know the model or does not let it be read, the model has no safetensors or
            is of a type that otoscope does not know, the disk is full, or a file does not have the SHA-256 that the hub states.
    """
    from huggingface_hub import HfApi, hf_hub_download

    try:
        info = HfApi().model_info(hub_id, files_metadata=True, timeout=10)
        files = {file.rfilename: file for file in info.siblings or [] if "/" not in file.rfilename}
        _require_usable(hub_id, files)
        download = functools.partial(_download, hub_id, str(info.sha), force=force)
        config = download(files["config.json"])
        _require_known_type(config)
        weights = weight_names(files, lambda name: download(files[name]), f"The hub model {hub_id}")
        rest = [name for name in files if name.endswith(_SUFFIXES) and name != "config.json"]
        _download_all(hub_id, [files[name] for name in rest + weights], download)
        # Files asked for by revision leave no note of which revision is the current one; this call leaves it.
        hf_hub_download(hub_id, "config.json")
    except ModelError:
        raise
    except Exception as error:
        raise _hub_error(hub_id, error) from error
    return config.parent


def _download_all(hub_id: str, files: list[RepoSibling], download: Callable[..., Path]) -> None:
    from huggingface_hub import constants

    size = sum(file.size or 0 for file in files)
    store = Path(constants.HF_HUB_CACHE)
    notice(f"Fetching {hub_id}, {size / 1e6:.0f} MB, from the model hub into {store}.")
    require_space(store, size)
    with track(f"Downloading {hub_id}", size, "bytes") as task:
        for file in files:
            download(file, task)


def _require_known_type(config: Path) -> None:
    from otoscope.models.families import family_of

    try:
        model_type = str(object_in(config)["model_type"])
    except (ValueError, KeyError) as error:
        raise ModelError(f"{config} names no model_type.", "Name a model made for Transformers.") from error
    family_of(model_type)


def _require_usable(hub_id: str, names: Collection[str]) -> None:
    if not any(name.endswith(".safetensors") for name in names):
        raise ModelError(
            f"The hub model {hub_id} has no safetensors, and other formats can run code when opened.",
            "Name a hub model with safetensors, or convert it with safetensors' own converter first.",
        )
    if "config.json" not in names:
        raise ModelError(f"The hub model {hub_id} has no config.json.", "Name a model made for Transformers.")


def _download(
    hub_id: str, revision: str, file: RepoSibling, task: Task | None = None, *, force: bool
) -> Path:
    from huggingface_hub import hf_hub_download

    bar = _forwarding_to(task)
    path = Path(
        hf_hub_download(hub_id, file.rfilename, revision=revision, force_download=force, tqdm_class=bar)
    )
    if file.lfs and sha256(path) != file.lfs.sha256:
        raise ModelError(
            f"{path} does not have the SHA-256 that the hub states.",
            f"Fetch it again: `otoscope models get {hub_id} --force`.",
        )
    return path


def _forwarding_to(task: Task | None) -> Any:
    """A bar class for the hub's client that draws nothing and hands its progress on, if anybody listens."""
    from tqdm.auto import tqdm

    class Forwarding(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(
                *args, **{key: kwargs[key] for key in ("total", "initial") if key in kwargs}, disable=True
            )

        def update(self, n: float | None = 1) -> bool | None:
            if task is not None:
                task.advance(n or 0)
            return None

    return Forwarding


def published_sha256(path: Path) -> str | None:
    """The SHA-256 that the hub states for a file of its cache, if it states one.

    The hub's cache names the content of each large file after its SHA-256.
    """
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


def _hub_error(hub_id: str, error: Exception) -> ModelError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return ModelError(
            f"The hub model {hub_id} is open only to people who accepted its terms.",
            "Accept them on the model's page and sign in with `hf auth login`.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(
            f"The hub has no model {hub_id} that is open to you.",
            "Check the spelling, or sign in with `hf auth login` if it is a private one.",
        )
    why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
    return ModelError(
        f"Fetching {hub_id} from the hub failed: {why}.", "Try again, or pass a local directory."
    )
