"""What all documents are made of: strict parts, hostile-proof text and typed arrays."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from otoscope.errors import OutputError
from otoscope.showing import asked

ArrayDtype = Literal["u8", "f16", "f32"]
JsonScalar = str | int | float | bool | None

# Little-endian on every machine: the reader is a browser's typed array.
_NUMPY_DTYPES = {"u8": np.dtype("u1"), "f16": np.dtype("<f2"), "f32": np.dtype("<f4")}

_ROUNDING = 1e-4  # a float32 softmax over a large vocabulary misses 1 by less


def _encodable(text: object) -> object:
    """Spell out lone surrogates (undecodable file names have them), which no UTF-8 file can hold."""
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


def _base64_only(data: str) -> str:
    try:
        base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"data is not base64: {error}") from error
    return data


def _within(low: float, high: float) -> Callable[[Any], Any]:
    """Pull a number that rounding has pushed just past a bound back to the bound."""

    def pull(value: Any) -> Any:
        if isinstance(value, int | float) and low - _ROUNDING <= value <= high + _ROUNDING:
            return min(max(value, low), high)
        return value

    return pull


Text = Annotated[str, BeforeValidator(_encodable)]
"""Text from outside: any characters and any length; whoever draws it must treat it as hostile."""

Base64 = Annotated[str, AfterValidator(_base64_only)]
"""Bytes in standard base64 with padding."""

Index = Annotated[int, Field(ge=0)]
"""A 0-based index."""

Count = Annotated[int, Field(ge=1)]

Probability = Annotated[float, BeforeValidator(_within(0, 1)), Field(ge=0, le=1)]
LogProbability = Annotated[float, BeforeValidator(_within(-math.inf, 0)), Field(le=0)]
Entropy = Annotated[float, BeforeValidator(_within(0, math.inf)), Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """Base of every piece of a document: unknown fields, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def require_numbered(parts: Sequence[Any], count: int, name: str) -> None:
    """Refuse parts that are not so many, numbered from 0 by their `index`.

    Raises:
        ValueError: They are not.
    """
    if [part.index for part in parts] != list(range(count)):
        raise ValueError(f"{name} are misnumbered")


class Document(Part):
    """Base of everything a page can show. Subclasses add a literal `kind` and `version`.

    `note` is what a person wrote beside the whole of it.
    """

    note: Text | None = None

    def dumps(self) -> str:
        """The complete document as JSON text, unknown values omitted."""
        return self.model_dump_json(exclude_none=True)

    def save(self, path: Path | str) -> None:
        """Write the page that shows it: one HTML file, which opens offline.

        Raises:
            OutputError: The file cannot be written.
        """
        asked("page").save_page(self, path)

    def widget(self, model: Any = None) -> Any:
        """The page in a cell of a notebook, with a model behind it.

        Args:
            model: The model that the document was made with, so that the page can run it; None: the page only shows.

        Returns:
            The widget. Its `state` is what is chosen on the page, as in the page's address; it can be read and set.

        Raises:
            OptionError: anywidget is not installed.
        """
        return asked("widget").page_widget(self, model)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return asked("notebook").mimebundle(self)


class Array(Part):
    """A numeric array as it travels in JSON: row-major, little-endian, base64.

    `value = q * scale + offset` for every stored number `q`. Only "u8" needs the two; floats keep 1 and 0.
    """

    dtype: ArrayDtype
    shape: tuple[Index, ...]
    scale: float = 1.0
    offset: float = 0.0
    data: Base64

    @model_validator(mode="after")
    def _fits_its_shape(self) -> Array:
        raw = np.frombuffer(base64.b64decode(self.data), np.uint8)
        expected = int(np.prod(self.shape, dtype=np.int64)) * _NUMPY_DTYPES[self.dtype].itemsize
        if raw.size != expected:
            raise ValueError(f"an array of shape {self.shape} has {raw.size} bytes of data, not {expected}")
        if not np.isfinite(raw.view(_NUMPY_DTYPES[self.dtype])).all():
            raise ValueError("an array holds NaN or infinite values")
        return self

    @classmethod
    def pack(cls, values: npt.ArrayLike, dtype: ArrayDtype = "f32") -> Array:
        """Pack numbers of any shape.

        Args:
            values: Finite numbers.
            dtype: How to store them. "u8" quantises linearly between the smallest and the largest value, so a
                value is off by at most half of `scale`.

        Raises:
            OutputError: A value is NaN or infinite, or too large for `dtype`.
        """
        array = np.asarray(values, dtype=np.float64)
        scale, offset = _span(array) if dtype == "u8" else (1.0, 0.0)
        quantised = np.rint((array - offset) / scale) if dtype == "u8" else array
        with np.errstate(over="ignore", invalid="ignore"):  # overflow shows as infinity and is refused below
            stored = np.ascontiguousarray(quantised, dtype=_NUMPY_DTYPES[dtype])
        if not (np.isfinite(array).all() and np.isfinite(stored).all()):
            raise OutputError(
                "A result holds values that are NaN, infinite or too large to be shown.",
                "Run the model in float32, where activations do not overflow.",
            )
        data = base64.b64encode(stored.tobytes()).decode("ascii")
        return cls(dtype=dtype, shape=array.shape, scale=scale, offset=offset, data=data)

    def unpack(self) -> npt.NDArray[np.float32]:
        """The values, float32, in the shape they were packed in."""
        flat = np.frombuffer(base64.b64decode(self.data), _NUMPY_DTYPES[self.dtype])
        values = flat.astype(np.float64) * self.scale + self.offset
        return values.astype(np.float32).reshape(self.shape)


def _span(array: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Scale and offset that map the array's range onto 0..255; a constant array gets scale 1."""
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return 1.0, 0.0
    low, high = float(finite.min()), float(finite.max())
    return ((high - low) / 255 or 1.0), low


class Resource(Part):
    """A file carried inside a document."""

    media_type: Text
    data: Base64
