"""otoscope at transcription: one recording after another, and a batch."""

from sounds import sounds, texts
from turns import serve

import otoscope as oto
from otoscope.audio import Clip


def load(job):
    model = oto.load_model(job["model"], dtype="float32", batch=job["batch"])
    clips = [Clip.of(samples, 16_000) for samples in sounds(job)]
    options = oto.DecodeOptions(language=job["language"], max_positions=len(model.prompt()) + job["new"])

    def one_by_one():
        return texts([oto.transcribe(model, clip, options).text for clip in clips])

    def batch():
        return texts([told.text for told in oto.transcribe_all(model, clips, options)])

    return {"one_by_one": one_by_one, "batch": batch}


serve(load)
