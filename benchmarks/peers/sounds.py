"""What the transcribers hear: recordings of at most a window, as `transcribing.py` keeps them for every side."""

import numpy as np


def sounds(job):
    """Samples at 16 kHz, one array a recording."""
    with np.load(job["sounds"]) as kept:
        return [kept[name] for name in sorted(kept.files)]


def texts(written):
    """An answer: texts without the space that they begin with."""
    return {"texts": np.array([text.strip() for text in written])}
