"""Reads Whisper weights kept in CTranslate2's directory layout into Transformers' classes.

The layout of `model.bin` (binary version 6, little-endian): u32 version, string spec name, u32 spec revision,
u32 variable count; per variable a string name, u8 rank, u32 sizes, u8 dtype, u32 byte count, bytes; then u32
alias count and pairs of strings. A string is a u16 length that counts a trailing NUL, then bytes. Source: the
serialisation code of CTranslate2 4 (`ctranslate2/specs/model_spec.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.errors import ModelError
from otoscope.models.cursor import Cursor
from otoscope.text_values import object_in

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperProcessor, WhisperTokenizer

    Tensors = dict[str, torch.Tensor]

__all__ = ["WhisperParts", "load", "read_variables"]

_BINARY_VERSION = 6
_SPEC = "WhisperSpec"
_MAX_RANK = 4
_ITEM_BYTES = {0: 4, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2}
_DTYPE_NAMES = {0: "float32", 1: "int8", 2: "int16", 3: "int32", 4: "float16", 5: "bfloat16"}

_HEAD_SIZE = 64  # every published Whisper; files usually state the head count as well
_MULTILINGUAL_VOCABULARY = 51865  # OpenAI's own rule: a smaller vocabulary is an English-only model's
_SAMPLES_PER_POSITION = 320
_SAMPLING_RATE = 16_000
_MAX_INITIAL_TIMESTAMP = 50  # in steps of 20 ms: OpenAI's limit of one second on the first timestamp
_TIMESTAMPS = 1501

_ARCHITECTURE_SCALARS = {
    "activation": 3,  # exact GELU in CTranslate2's numbering
    "alibi": 0,
    "pre_norm": 1,
    "scale_embeddings": 0,
    "start_from_zero_embedding": 0,
}


@dataclass(frozen=True, eq=False)
class WhisperParts:
    """Everything that `WhisperForConditionalGeneration` and its callers need.

    Attributes:
        config: Sizes and special tokens, derived from the shapes and the tokenizer.
        state_dict: Transformers' parameter names to tensors in the precision of the file (quantised ones as
            float32). Complete for a strict `load_state_dict`, `proj_out.weight` included. Tensors of stacked
            projections are views into one storage.
        generation_config: What Hugging Face's `generate` needs to decode as with the official checkpoints.
        processor: Tokenizer and feature extractor.
    """

    config: WhisperConfig
    state_dict: dict[str, torch.Tensor]
    generation_config: GenerationConfig
    processor: WhisperProcessor


def load(directory: Path | str) -> WhisperParts:
    """Read a CTranslate2 Whisper directory (`model.bin`, `config.json`, `tokenizer.json`).

    Args:
        directory: The folder.

    Returns:
        The parts of the model, on the CPU.

    Raises:
        ModelError: A file is missing, truncated, corrupted, or holds another architecture.
    """
    directory = Path(directory)
    settings = _read_settings(directory / "config.json")
    variables = read_variables(directory / "model.bin")
    sizes = _sizes(variables, directory / "model.bin")
    tokenizer = _tokenizer(directory / "tokenizer.json", sizes["vocab_size"])
    state_dict = _state_dict(variables, directory / "model.bin")
    tied = state_dict["proj_out.weight"] is state_dict["model.decoder.embed_tokens.weight"]
    return WhisperParts(
        config=_config(sizes, settings, tokenizer, tied=tied),
        state_dict=state_dict,
        generation_config=_generation_config(sizes, settings, tokenizer),
        processor=_processor(sizes, tokenizer),
    )


def read_variables(path: Path | str) -> dict[str, torch.Tensor]:
    """Read every variable of a CTranslate2 Whisper `model.bin`.

    Every size is checked against the length of the file before memory is taken. Integer weights that come
    with a `weight_scale` are dequantised to float32 (`weight / scale`, one scale a row).

    Args:
        path: The file.

    Returns:
        Names, aliases included, to tensors on the CPU in the precision of the file.

    Raises:
        ModelError: The file is missing, is no such file, or is truncated or corrupted.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _dequantised(_Reader(path, file).variables(), path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelError(
            f"{path} cannot be read: {reason}.", "Check the path and its permissions."
        ) from error


class _Reader(Cursor):
    """Over `model.bin`."""

    def variables(self) -> Tensors:
        self._header()
        variables = dict(self._variable() for _ in range(self.integer("<I")))
        for _ in range(self.integer("<I")):
            alias, target = self._string(), self._string()
            if target not in variables:
                raise _corrupted(self.path, f"the alias {alias[:80]!r} points at nothing")
            variables[alias] = variables[target]
        if self.left:
            raise _corrupted(self.path, f"{self.left} bytes follow its end")
        return variables

    def _header(self) -> None:
        version = self.integer("<I")
        if version != _BINARY_VERSION:
            raise ModelError(
                f"{self.path} is not CTranslate2's binary version {_BINARY_VERSION} (it says {version}).",
                "Convert the model again with ct2-transformers-converter of CTranslate2 3 or 4.",
            )
        spec = self._string()
        if spec != _SPEC:
            raise ModelError(
                f"{self.path} holds a {spec[:80]!r}, not a {_SPEC}.",
                "Name a CTranslate2 directory of a Whisper model, or a Transformers directory.",
            )
        self.integer("<I")

    def _variable(self) -> tuple[str, torch.Tensor]:
        name = self._string()
        rank = self.integer("<B")
        if rank > _MAX_RANK:
            raise _corrupted(self.path, f"the variable {name[:80]!r} has {rank} axes")
        shape = tuple(self.integer("<I") for _ in range(rank))
        dtype, size = self.integer("<B"), self.integer("<I")
        if dtype not in _ITEM_BYTES or math.prod(shape) * _ITEM_BYTES[dtype] != size:
            raise _corrupted(self.path, f"the size of the variable {name[:80]!r} does not fit its shape")
        return name, self._tensor(shape, dtype, size)

    def _tensor(self, shape: tuple[int, ...], dtype: int, size: int) -> torch.Tensor:
        import torch

        self.take(size)
        buffer = bytearray(size)
        if self.file.readinto(buffer) != size:  # type: ignore[attr-defined]
            raise self.too_short()
        kind = getattr(torch, _DTYPE_NAMES[dtype])
        return torch.frombuffer(buffer, dtype=kind).reshape(shape) if size else torch.empty(shape, dtype=kind)

    def _string(self) -> str:
        raw = self.raw(self.integer("<H"))
        try:
            return raw.rstrip(b"\0").decode("utf-8")
        except UnicodeDecodeError:
            raise _corrupted(self.path, "a name is not text") from None

    def too_short(self) -> ModelError:
        return ModelError(f"{self.path} is truncated: it announces more than it holds.", _AGAIN)


_AGAIN = "Fetch or convert the model again."


def _corrupted(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is corrupted: {what}.", _AGAIN)


def _dequantised(variables: Tensors, path: Path) -> Tensors:
    done: dict[
        int, torch.Tensor
    ] = {}  # an alias of a weight shares its float copy, so that tied weights stay tied
    result: Tensors = {}
    for name, value in variables.items():
        if name.endswith("_scale") and name.removesuffix("_scale") in variables:
            continue
        if name.endswith("weight") and not value.is_floating_point():
            if id(value) not in done:
                done[id(value)] = _dequantise(value, _scale_of(variables, name), name, path)
            value = done[id(value)]
        result[name] = value
    return result


def _scale_of(variables: Tensors, name: str) -> torch.Tensor | None:
    """The scale beside a weight, or beside the weight that it is an alias of."""
    same = (other for other, value in variables.items() if value is variables[name])
    return next((variables[f"{other}_scale"] for other in same if f"{other}_scale" in variables), None)


def _dequantise(weight: torch.Tensor, scale: torch.Tensor | None, name: str, path: Path) -> torch.Tensor:
    if scale is None or scale.numel() not in (1, weight.shape[0]) or not bool((scale != 0).all()):
        raise _corrupted(path, f"the integer weight {name[:80]!r} has no usable scale")
    rows = scale.float().reshape(-1, *[1] * (weight.dim() - 1))
    return weight.float() / rows


def _sizes(variables: Tensors, path: Path) -> dict[str, int]:
    """The model's dimensions under the names of `WhisperConfig`, read off the shapes."""
    try:
        width, mels, _ = variables["encoder/conv1/weight"].shape
        sizes = {
            "d_model": width,
            "num_mel_bins": mels,
            "vocab_size": variables["decoder/embeddings/weight"].shape[0],
            "max_source_positions": variables["encoder/position_encodings/encodings"].shape[0],
            "max_target_positions": variables["decoder/position_encodings/encodings"].shape[0],
        }
        for stack in ("encoder", "decoder"):
            _require_whisper(variables, stack, path)
            heads = variables.get(f"{stack}/num_heads")
            sizes[f"{stack}_layers"] = _layer_count(variables, stack)
            sizes[f"{stack}_ffn_dim"] = variables[f"{stack}/layer_0/ffn/linear_0/weight"].shape[0]
            sizes[f"{stack}_attention_heads"] = width // _HEAD_SIZE if heads is None else int(heads)
    except (KeyError, ValueError, RuntimeError) as error:
        raise _corrupted(path, f"a variable is missing or misshapen ({error})") from error
    heads = [sizes["encoder_attention_heads"], sizes["decoder_attention_heads"]]
    if any(count < 1 or width % count for count in heads):
        raise _corrupted(path, f"{width} dimensions cannot be shared between {max(heads)} heads")
    return sizes


def _layer_count(variables: Tensors, stack: str) -> int:
    prefix = f"{stack}/layer_"
    return len({name.split("/")[1] for name in variables if name.startswith(prefix) and name.count("/") > 2})


def _require_whisper(variables: Tensors, stack: str, path: Path) -> None:
    for name, expected in _ARCHITECTURE_SCALARS.items():
        value = variables.get(f"{stack}/{name}")
        if value is not None and int(value) != expected:
            raise ModelError(
                f"{path} sets {stack}/{name} to {int(value)}, where Whisper has {expected}.",
                "Only unmodified Whisper architectures can be read: name another model.",
            )


_LINEAR = {"weight": "weight", "bias": "bias"}
_NORM = {"gamma": "weight", "beta": "bias"}


def _state_dict(variables: Tensors, path: Path) -> Tensors:
    """Transformers' names and shapes for CTranslate2's variables, every one used."""
    unused = {name: value for name, value in variables.items() if value.dim()}
    state: Tensors = {}
    try:
        for stack in ("encoder", "decoder"):
            _take_stack(unused, state, stack, _layer_count(variables, stack))
        state["proj_out.weight"] = unused.pop("decoder/projection/weight")
    except (KeyError, ValueError) as error:
        raise _corrupted(path, f"a variable is missing or misshapen ({error})") from error
    if unused:
        raise _corrupted(path, f"Whisper has no {min(unused)[:80]!r}")
    return state


def _take_stack(unused: Tensors, state: Tensors, stack: str, layers: int) -> None:
    target = f"model.{stack}"
    if stack == "encoder":
        for convolution in ("conv1", "conv2"):
            _take(unused, state, f"encoder/{convolution}", f"{target}.{convolution}", _LINEAR)
    else:
        state[f"{target}.embed_tokens.weight"] = unused.pop("decoder/embeddings/weight")
    state[f"{target}.embed_positions.weight"] = unused.pop(f"{stack}/position_encodings/encodings")
    _take(unused, state, f"{stack}/layer_norm", f"{target}.layer_norm", _NORM)
    for layer in range(layers):
        _take_layer(
            unused, state, f"{stack}/layer_{layer}", f"{target}.layers.{layer}", cross=stack == "decoder"
        )


def _take_layer(unused: Tensors, state: Tensors, source: str, target: str, *, cross: bool) -> None:
    attention = f"{target}.self_attn"
    _take_stacked(
        unused, state, f"{source}/self_attention/linear_0", attention, ("q_proj", "k_proj", "v_proj")
    )
    _take(unused, state, f"{source}/self_attention/linear_1", f"{attention}.out_proj", _LINEAR)
    _take(unused, state, f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm", _NORM)
    if cross:
        attention = f"{target}.encoder_attn"
        _take(unused, state, f"{source}/attention/linear_0", f"{attention}.q_proj", _LINEAR)
        _take_stacked(unused, state, f"{source}/attention/linear_1", attention, ("k_proj", "v_proj"))
        _take(unused, state, f"{source}/attention/linear_2", f"{attention}.out_proj", _LINEAR)
        _take(unused, state, f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm", _NORM)
    _take(unused, state, f"{source}/ffn/linear_0", f"{target}.fc1", _LINEAR)
    _take(unused, state, f"{source}/ffn/linear_1", f"{target}.fc2", _LINEAR)
    _take(unused, state, f"{source}/ffn/layer_norm", f"{target}.final_layer_norm", _NORM)


def _take(
    unused: Tensors,
    state: Tensors,
    source: str,
    target: str,
    names: dict[str, str],
) -> None:
    for theirs, ours in names.items():
        state[f"{target}.{ours}"] = unused.pop(f"{source}/{theirs}")


def _take_stacked(
    unused: Tensors,
    state: Tensors,
    source: str,
    target: str,
    parts: tuple[str, ...],
) -> None:
    for kind in ("weight", "bias"):
        stacked = unused.pop(f"{source}/{kind}")
        if stacked.shape[0] % len(parts):
            raise ValueError(f"{source}/{kind}")
        for part, values in zip(parts, stacked.chunk(len(parts)), strict=True):
            if (part, kind) == ("k_proj", "bias"):
                if values.any():
                    raise ValueError(f"{source}/{kind}: Whisper's keys have no bias")
                continue
            state[f"{target}.{part}.{kind}"] = values


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = object_in(path)
        for key in ("suppress_ids", "suppress_ids_begin", "alignment_heads"):
            _require_integers(key, settings.get(key))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be used: {str(error)[:200]}.",
            "Put the config.json that ct2-transformers-converter wrote beside model.bin.",
        ) from error
    return settings


def _require_integers(key: str, values: Any) -> None:
    rows = (
        values
        if key == "alignment_heads" and isinstance(values, list)
        else [[] if values is None else values]
    )
    if not all(isinstance(row, list) and all(type(number) is int for number in row) for row in rows):
        raise ValueError(f"{key} is no list of whole numbers")


def _tokenizer(path: Path, vocabulary: int) -> WhisperTokenizer:
    from tokenizers import AddedToken, Tokenizer
    from transformers import WhisperTokenizer

    try:
        backend = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the tokenizers library raises bare Exception for anything it cannot parse
        raise ModelError(
            f"{path} cannot be used: {str(error)[:200]}.",
            "Put the tokenizer.json of the original model beside model.bin.",
        ) from error
    if (
        max(backend.get_vocab().values(), default=0) >= vocabulary
    ):  # copying it goes through all numbers up to there
        raise ModelError(
            f"{path} numbers tokens beyond the {vocabulary} that the model has.",
            "Put the tokenizer.json of the original model beside model.bin.",
        )
    known = backend.get_added_tokens_decoder()
    special = [known[index].content for index in sorted(known) if known[index].special]
    tokenizer = WhisperTokenizer(tokenizer_object=backend, extra_special_tokens=special)
    if tokenizer.backend_tokenizer.get_vocab_size() == vocabulary - _TIMESTAMPS:
        stamps = [AddedToken(f"<|{step * 0.02:.2f}|>", normalized=False) for step in range(_TIMESTAMPS)]
        tokenizer.add_tokens(stamps)  # type: ignore[arg-type]
    _require_tokens(tokenizer, vocabulary, path)
    return tokenizer


def _require_tokens(tokenizer: WhisperTokenizer, vocabulary: int, path: Path) -> None:
    known = tokenizer.get_vocab()
    missing = [token for token in _SPECIAL_TOKENS if token not in known]
    if missing or max(known.values()) >= vocabulary:
        what = f"it lacks {missing[0]}" if missing else f"it has more tokens than the model's {vocabulary}"
        raise ModelError(
            f"{path} does not belong to this model: {what}.",
            "Put the tokenizer.json of the original model beside model.bin.",
        )


_SPECIAL_TOKENS = ("<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>")


def _token_ids(tokenizer: WhisperTokenizer) -> dict[str, int]:
    known = tokenizer.get_vocab()
    end, start = known["<|endoftext|>"], known["<|startoftranscript|>"]
    return {"decoder_start_token_id": start, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}


def _config(
    sizes: dict[str, int], settings: dict[str, Any], tokenizer: WhisperTokenizer, *, tied: bool
) -> WhisperConfig:
    from transformers import WhisperConfig

    values: dict[str, Any] = {**sizes, **_token_ids(tokenizer)}
    return WhisperConfig(
        **values,
        begin_suppress_tokens=settings.get("suppress_ids_begin"),
        tie_word_embeddings=tied,
        architectures=["WhisperForConditionalGeneration"],
    )


def _generation_config(
    sizes: dict[str, int], settings: dict[str, Any], tokenizer: WhisperTokenizer
) -> GenerationConfig:
    from transformers import GenerationConfig

    multilingual = sizes["vocab_size"] >= _MULTILINGUAL_VOCABULARY
    values: dict[str, Any] = {**_token_ids(tokenizer)}
    if settings.get("alignment_heads"):
        values["alignment_heads"] = settings["alignment_heads"]
    if multilingual:
        values |= _language_ids(tokenizer)
    return GenerationConfig(
        **values,
        suppress_tokens=settings.get("suppress_ids"),
        begin_suppress_tokens=settings.get("suppress_ids_begin"),
        is_multilingual=multilingual,
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        prev_sot_token_id=tokenizer.convert_tokens_to_ids("<|startofprev|>"),
        max_initial_timestamp_index=_MAX_INITIAL_TIMESTAMP,
        max_length=sizes["max_target_positions"],
        return_timestamps=False,
    )


def _language_ids(tokenizer: WhisperTokenizer) -> dict[str, Any]:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    known = tokenizer.get_vocab()
    languages = {f"<|{code}|>": known[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in known}
    tasks = {task: known[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return {"lang_to_id": languages, "task_to_id": tasks, "task": "transcribe"}


def _processor(sizes: dict[str, int], tokenizer: WhisperTokenizer) -> WhisperProcessor:
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    seconds = max(1, sizes["max_source_positions"] * _SAMPLES_PER_POSITION // _SAMPLING_RATE)
    extractor = WhisperFeatureExtractor(feature_size=sizes["num_mel_bins"], chunk_length=seconds)
    return WhisperProcessor(extractor, tokenizer)
