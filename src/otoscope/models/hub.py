"""Takes safetensors weights from the model hub, after one quick look whether it can be reached."""

from __future__ import annotations

import functools
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.errors import ModelError
from otoscope.models.cache import require_space, sha256
from otoscope.progress import Task, notice, track

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

__all__ = ["cached_snapshot", "fetch_snapshot", "hub_reachable", "is_hub_id", "published_sha256"]

_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
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
    import json

    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return all((folder / str(shard)).is_file() for shard in shards)


def fetch_snapshot(hub_id: str, *, force: bool = False) -> Path:
    """Download the safetensors, configuration and tokenizer of a hub model into the hub's own cache.

    Args:
        hub_id: "owner/model".
        force: Download even what is cached.

    Returns:
        The folder of the snapshot.

    Raises:
        ModelError: The hub does not know the model or does not let it be read, the model has no safetensors,
            the disk is full, or a file does not have the SHA-256 that the hub states.
    """
    from huggingface_hub import HfApi, constants

    try:
        info = HfApi().model_info(hub_id, files_metadata=True, timeout=10)
    except Exception as error:
        raise _hub_error(hub_id, error) from error
    wanted = _wanted(hub_id, info.siblings or [])
    size = sum(file.size or 0 for file in wanted)
    store = Path(constants.HF_HUB_CACHE)
    notice(f"Fetching {hub_id}, {size / 1e6:.0f} MB, from the model hub into {store}.")
    try:
        store.mkdir(parents=True, exist_ok=True)
        require_space(store, size)
        with track(f"Downloading {hub_id}", size, "bytes") as task:
            paths = [_download(hub_id, file, task, force=force) for file in wanted]
    except ModelError:
        raise
    except Exception as error:
        raise _hub_error(hub_id, error) from error
    return next(path.parent for path in paths if path.name == "config.json")


def _wanted(hub_id: str, files: list[RepoSibling]) -> list[RepoSibling]:
    wanted = [file for file in files if file.rfilename.endswith(_SUFFIXES) and "/" not in file.rfilename]
    names = {file.rfilename for file in wanted}
    if not any(name.endswith(".safetensors") for name in names):
        raise ModelError(
            f"The hub model {hub_id} has no safetensors, and other formats can run code when opened.",
            "Name a hub model with safetensors, or convert it with safetensors' own converter first.",
        )
    if "config.json" not in names:
        raise ModelError(f"The hub model {hub_id} has no config.json.", "Name a model made for Transformers.")
    return wanted


def _download(hub_id: str, file: RepoSibling, task: Task, *, force: bool) -> Path:
    from huggingface_hub import hf_hub_download

    name, bar = file.rfilename, _forwarding_to(task)
    path = Path(hf_hub_download(hub_id, name, force_download=force, tqdm_class=bar))
    if file.lfs and sha256(path) != file.lfs.sha256:
        raise ModelError(
            f"{path} does not have the SHA-256 that the hub states.",
            f"Fetch it again: `otoscope models get {hub_id} --force`.",
        )
    return path


def _forwarding_to(task: Task) -> Any:
    """A bar class for the hub's client that draws nothing and hands its progress on."""
    from tqdm.auto import tqdm

    class Forwarding(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(
                *args, **{key: kwargs[key] for key in ("total", "initial") if key in kwargs}, disable=True
            )

        def update(self, n: float | None = 1) -> bool | None:
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
