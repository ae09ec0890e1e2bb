"""Dictionaries on the model hub: pushed with a card that says what they are and how good, and pulled without running anything."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.dictionaries.formats.own import FORMAT, HEADER
from otoscope.errors import DictionaryError, OutputError
from otoscope.files import atomic_write
from otoscope.models.hub import is_hub_id
from otoscope.progress import notice
from otoscope.text_values import object_in

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
SHARED = ("dictionary.json", "layer_*.safetensors", "run.json", "scores.json", "judged.json", CARD)
"""What of a dictionary's folder is pushed and pulled: weights, settings and scores; no corpus, no checkpoint."""


def model_card(folder: Path | str) -> str:
    """What a dictionary's page on the hub says: what it reads and writes, how it was trained, and how good it is.

    Args:
        folder: A dictionary of otoscope's own format, with `scores.json`, and `judged.json` where it was evaluated.

    Raises:
        DictionaryError: The folder holds no dictionary.
    """
    folder = Path(folder)
    header = _json(folder / HEADER)
    if header is None or header.get("format") != FORMAT:
        raise DictionaryError(f"{folder} holds no dictionary of otoscope.", "Name a folder that it trained.")
    scores, judged = _json(folder / "scores.json") or {}, _json(folder / "judged.json")
    recipe, config = scores.get("recipe", {}), scores.get("config", {})
    model = str(recipe.get("model") or header.get("name") or "unknown")
    kind = {"sae": "Sparse autoencoder", "skip": "Skip transcoders", "clt": "Cross-layer transcoder"}
    title = (
        f"{kind.get(str(config.get('kind')), 'Transcoders')} for {model}, {recipe.get('point', '')}".strip(
            ", "
        )
    )
    lines = [
        "---",
        "library_name: otoscope",
        "tags:",
        "- otoscope",
        "- interpretability",
        f"- {'sae' if config.get('kind') == 'sae' else 'transcoder'}",
        "---",
        "",
        f"# {_plain(title)}",
        "",
        _plain(str(recipe.get("about", ""))),
        "",
        *_training(header, config, scores),
        *_held_out(scores),
        *(_spliced(judged) if judged else []),
        "## Use",
        "",
        "```python",
        "import otoscope as oto",
        "",
        f'model = oto.load_model("{_plain(model)}")',
        'dictionary = oto.load_dictionary("FOLDER", model)',
        "```",
        "",
        "Weights are safetensors; nothing is run when they are read. Layers and features are counted from 0.",
    ]
    return "\n".join(lines) + "\n"


def _training(header: Mapping[str, Any], config: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    told = {
        "layers of the model": header.get("layers"),
        "reads": header.get("reads"),
        "writes": header.get("writes"),
        "features a layer": config.get("width"),
        "activation": f"{config.get('activation')}, k = {config.get('k')}" if config else None,
        "started from": config.get("start"),
        "steps": config.get("steps"),
        "vectors a step": config.get("batch"),
        "learning rate": config.get("lr"),
        "learned from": _amount(scores.get("trained_on")),
        "held out": _amount(scores.get("held_out")),
        "seed": config.get("seed"),
    }
    rows = [f"| {name} | {_plain(str(value))} |" for name, value in told.items() if value is not None]
    return ["## What it is", "", "| | |", "|---|---|", *rows, ""]


def _amount(told: Mapping[str, Any] | None) -> str | None:
    if not told:
        return None
    vectors = "streamed vectors" if told["vectors"] is None else f"{told['vectors']:,} vectors"
    return f"{vectors} of {told['items']:,} recordings or texts"


def _held_out(scores: Mapping[str, Any]) -> list[str]:
    if not scores.get("layers"):
        return []
    rows = [
        f"| {s['layer']} | {s['explained_variance']:.3f} | {s['l0']:.1f} | {s['dead']} of {s['width']} | {s['dense']} |"
        for s in scores["layers"]
    ]
    head = ["| layer | explained variance | L0 | dead | dense |", "|---|---|---|---|---|"]
    return ["## On what was held out", "", *head, *rows, ""]


def _spliced(judged: Mapping[str, Any]) -> list[str]:
    lines = [
        "## In the model's place",
        "",
        f"Spliced into the model over {judged['items']} recordings or texts, it recovers {judged['loss_recovered']:.3f} of the "
        "loss.",
    ]
    if "wer" in judged:
        change = judged["wer_difference"]
        lines.append(
            f"Word error rate {100 * judged['wer']:.2f} % without it, {100 * judged['wer_spliced']:.2f} % with it (change "
            f"{100 * change['change']:+.2f} points, 95 % {100 * change['ci_low']:+.2f} to {100 * change['ci_high']:+.2f})."
        )
    return [*lines, ""]


def _plain(text: str) -> str:
    """Text that ends no table cell, no line and no code."""
    return " ".join(text.split()).replace("|", "/").replace("`", "'").replace('"', "'").replace("<", "‹")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return object_in(path)
    except (OSError, ValueError):
        return None


def push(folder: Path | str, repo: str, *, private: bool = True, api: HfApi | None = None) -> str:
    """Put a dictionary on the hub, with a model card.

    Args:
        folder: A dictionary of otoscope's own format.
        repo: "owner/name"; made if it is not there.
        private: Whether a new repository is private.
        api: The hub; None: the one that Hugging Face's settings name, with the person's own token.

    Returns:
        The address of the commit.

    Raises:
        DictionaryError: The folder holds no dictionary, or the hub refuses.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    _require_id(repo)
    card = model_card(folder)
    files = sorted(path for pattern in SHARED for path in folder.glob(pattern))
    size = sum(path.stat().st_size for path in files) + len(card)
    notice(f"Pushing {len(files) + 1} files, {size / 1e6:.0f} MB, to {repo}.")
    with atomic_write(folder / CARD) as file:
        file.write(card)
    api = api or HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        told = api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=list(SHARED), commit_message="Add a dictionary of features"
        )  # fmt: skip
    except Exception as error:  # whatever the HTTP client raises
        raise _refused(
            f"{repo} cannot be pushed to", error, "Sign in with `hf auth login` and try again."
        ) from error
    return str(getattr(told, "commit_url", told))


def pull(repo: str, out: Path | str) -> Path:
    """Fetch a dictionary from the hub into a folder; files of other kinds are left there.

    Args:
        repo: "owner/name".
        out: A new or empty folder.

    Raises:
        DictionaryError: There is no such dictionary.
        OutputError: The folder holds something else.
    """
    from huggingface_hub import HfApi, snapshot_download

    out = Path(out)
    _require_id(repo)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} holds something already.", "Choose a new or an empty folder.")
    begun = out.with_name(f".{out.name}.part")  # a fetch that was stopped goes on there
    try:
        info = HfApi().model_info(repo, files_metadata=True, timeout=10)
        files = [f for f in info.siblings or [] if any(fnmatch(f.rfilename, pattern) for pattern in SHARED)]
        if HEADER not in {file.rfilename for file in files}:
            raise DictionaryError(f"{repo} holds no {HEADER}.", "Name a repository that otoscope pushed to.")
        notice(f"Fetching {repo}, {sum(file.size or 0 for file in files) / 1e6:.0f} MB, into {out}.")
        snapshot_download(repo, revision=info.sha, local_dir=begun, allow_patterns=list(SHARED))
        shutil.rmtree(begun / ".cache", ignore_errors=True)
        if out.is_dir():
            out.rmdir()
        begun.replace(out)
    except DictionaryError:
        raise
    except Exception as error:  # whatever the HTTP client raises
        raise _refused(f"{repo} cannot be fetched", error, "Check the name and the connection.") from error
    return out


def _require_id(repo: str) -> None:
    if not is_hub_id(repo):
        raise DictionaryError(f"{repo!r} is no name on the hub.", "Name it as owner/name.")


def _refused(what: str, error: Exception, remedy: str) -> DictionaryError:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
    return DictionaryError(f"{what}: {why}.", remedy)
