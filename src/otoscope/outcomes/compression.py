from __future__ import annotations

import zlib


def compression_ratio(text: str) -> float:
    """How much zlib shrinks a text: high for loops.

    Bytes of the UTF-8 text over bytes of its zlib stream, as Whisper's own decoder computes it (it distrusts
    more than 2.4). The empty text gives 0. Half a surrogate pair, which no UTF-8 can hold, counts as the three
    bytes it would have.

    Source: OpenAI's `whisper.utils.compression_ratio`; Radford et al. 2022, section 4.5.
    """
    encoded = text.encode("utf-8", "surrogatepass")
    return len(encoded) / len(zlib.compress(encoded))
