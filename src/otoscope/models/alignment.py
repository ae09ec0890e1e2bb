"""When each token was said: cross-attention of the alignment heads, joined to a monotonic path.

The method of OpenAI's `whisper.timing`, over the written tokens alone (theirs counts the prompt's rows, too): attention of
each alignment head over the frames of the recording, standardised over tokens, median-filtered over frames, averaged over
heads; dynamic time warping then finds the cheapest monotonic path. Attention is not proof of cause: the times say where the
model looked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.ndimage
import torch

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

_MEDIAN_WIDTH = 7


def attention_over_frames(q: Tensor, k: Tensor, frames: int) -> Tensor:
    """Attention of every token over the frames that hold sound.

    Args:
        q: Scaled queries, `(head, token, d_head)`; row i is the query that wrote token i.
        k: Keys, `(head, frame, d_head)`.
        frames: Frames that belong to the recording (20 ms each).

    Returns:
        `(head, token, frame)`, rows summing to 1.
    """
    return torch.softmax((q @ k[:, :frames].transpose(1, 2)).float(), dim=-1)


def token_frames(attention: Tensor) -> npt.NDArray[np.int64]:
    """First frame of each token.

    Args:
        attention: `(head, token, frame)`, the end token included as the last row.

    Returns:
        `(token,)` frame indices, never falling.
    """
    tokens, frames = warp(-smoothed(attention).mean(axis=0, dtype=np.float64))
    first = np.r_[True, np.diff(tokens) > 0]
    return frames[first]


def smoothed(attention: Tensor) -> npt.NDArray[np.float32]:
    """Attention standardised over tokens, then median-filtered over frames: `(head, token, frame)`, the same shape."""
    std, mean = torch.std_mean(attention, dim=1, keepdim=True, correction=0)
    standardised = ((attention - mean) / std.clamp_min(1e-9)).numpy()
    width = min(_MEDIAN_WIDTH, standardised.shape[2])
    return scipy.ndimage.median_filter(standardised, size=(1, 1, width), mode="mirror")


def warp(cost: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Dynamic time warping: the cheapest monotonic path from the first to the last cell.

    The recurrence `D[i,j] = c[i,j] + min(D[i-1,j-1], D[i-1,j], D[i,j-1])` is solved a row at a time: with prefix sums `S` of
    the row's costs, `D[i,j] = S[j] + min over k <= j of (min(D[i-1,k-1], D[i-1,k]) - S[k-1])`.

    Args:
        cost: `(n, m)`.

    Returns:
        Row and column indices of the path, from first to last.
    """
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    for i in range(n):
        sums = np.cumsum(cost[i])
        entering = np.minimum(total[i, :-1], total[i, 1:])
        total[i + 1, 1:] = sums + np.minimum.accumulate(entering - (sums - cost[i]))
    return _backtrack(total)


def _backtrack(total: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    i, j = total.shape[0] - 1, total.shape[1] - 1
    path = []
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        step = int(np.argmin((total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])))
        i, j = (i - (step != 2), j - (step != 1))
    rows, columns = np.array(path[::-1], dtype=np.int64).T
    return rows, columns
