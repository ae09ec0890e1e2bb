"""Reads GGUF files by keeping a safetensors copy of them, since unpacking one takes many times as long."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.errors import ModelError
from otoscope.models.cache import cache_dir, combined_sha256, exclusive, landing, require_space
from otoscope.models.cache import sha256 as file_sha256
from otoscope.models.gguf_head import check_head
from otoscope.progress import Task, notice, track

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["safetensors_copy"]

_UNPACKED_PER_PACKED = 5  # four-bit weights and their scales against sixteen bits, with some room
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SEAL = "copy.sha256"


def safetensors_copy(path: Path, sha256: str) -> Path:
    """The Transformers directory with the same weights and tokenizer as a GGUF file, made on first use.

    The copy carries the SHA-256 of its own files; one that no longer has it is made anew.

    Weights are kept as float16: dequantised values are rounded by at most 2^-11 of themselves, far less than
    one step of the quantisation. A model with a weight beyond float16's range is kept as float32.

    Args:
        path: The GGUF file.
        sha256: Its SHA-256, under which the copy is kept.

    Returns:
        The directory (config.json, safetensors, tokenizer files).

    Raises:
        ModelError: The packages that read GGUF are missing, the file is truncated, corrupted or of an
            architecture that Transformers cannot unpack, or the cache cannot be written.
    """
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"not a SHA-256: {sha256[:80]!r}")
    target = cache_dir() / "converted" / sha256
    if _whole(target):
        return target
    _require_packages()
    with exclusive(target):
        if not _whole(target):  # another process may have made it while this one waited
            if target.is_dir():
                notice(f"The unpacked copy of {path.name} does not match its checksum and is made anew.")
            notice(f"Unpacking {path.name} into safetensors, once; this takes about half a minute.")
            with landing(target) as staging:
                require_space(staging, _UNPACKED_PER_PACKED * path.stat().st_size)
                _convert(path, staging / "content")
                (staging / "content" / _SEAL).write_text(_digest(staging / "content"), encoding="ascii")
    return target


def _whole(folder: Path) -> bool:
    try:
        return (folder / _SEAL).read_text(encoding="ascii") == _digest(folder)
    except (OSError, ValueError, ModelError):  # no copy, no seal, or a file that cannot be read
        return False


def _digest(folder: Path) -> str:
    files = [file for file in folder.iterdir() if file.name != _SEAL]
    return combined_sha256({file.name: file_sha256(file) for file in files})


def _require_packages() -> None:
    missing = [package for package in ("gguf", "accelerate") if util.find_spec(package) is None]
    if missing:
        raise ModelError(
            f"Reading GGUF files needs {' and '.join(missing)}, not installed here.",
            "Run `pip install 'otoscope[gguf]'`.",
        )


def _convert(path: Path, folder: Path) -> None:
    with track(f"Unpacking {path.name}", unit="tensors") as task, _bars_to(task):
        try:
            check_head(path)
            tokenizer, model = _read(path)
        except ModelError:
            raise
        except Exception as error:  # a broken file surfaces as whatever the parser stumbled over
            why = (str(error).splitlines() or [""])[0].rstrip(".")[:200] or type(error).__name__
            raise ModelError(
                f"{path} cannot be unpacked: {why}.",
                "Fetch the file again; if it is whole, name the model's safetensors instead.",
            ) from error
        # These are plain weights by now, but Transformers refuses to save what once was quantised.
        model.hf_quantizer = None  # type: ignore[assignment]
        model.config.__dict__.pop("quantization_config", None)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _read(path: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False
    )
    model = _unpacked(path, torch.float16)
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        model = _unpacked(path, torch.float32)
    return tokenizer, model


def _unpacked(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    import transformers

    options: dict[str, Any] = {"gguf_file": path.name, "dtype": dtype, "local_files_only": True}
    if hasattr(transformers, "GgufConfig"):  # newer Transformers leave the weights packed unless told
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, trust_remote_code=False, **options)


@contextmanager
def _bars_to(task: Task) -> Iterator[None]:
    """Hand the progress that Transformers draws while unpacking to `task`."""
    from transformers import modeling_gguf_pytorch_utils as unpacking
    from transformers.utils import logging

    def forwarding(items: Iterable[Any], **_: Any) -> Iterator[Any]:
        for item in items:
            yield item
            task.advance()

    drawn, shown = unpacking.tqdm, logging.is_progress_bar_enabled()
    unpacking.tqdm = forwarding
    logging.disable_progress_bar()
    try:
        yield
    finally:
        unpacking.tqdm = drawn
        if shown:
            logging.enable_progress_bar()
