"""faster-whisper at transcription, greedy and without timestamps, in float32. Run by `workers.Side`, in its own environment.

It is given whole windows: a shorter sound it fills up with zeros in the spectrogram, which is not the spectrogram of silence that
Whisper is trained on, so that any model writes other texts there. A batch is one long sound with the places of its clips.
"""

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from sounds import sounds, texts
from turns import serve

WINDOW = 30 * 16_000


def load(job):
    model = WhisperModel(
        job["ctranslate2"],
        device="cpu",
        compute_type="float32",
        cpu_threads=job["threads"],
        local_files_only=True,
    )
    whole = [np.pad(samples, (0, WINDOW - len(samples))) for samples in sounds(job)]
    batched = BatchedInferencePipeline(model)
    places = [{"start": 30 * i, "end": 30 * (i + 1)} for i in range(len(whole))]
    # CTranslate2 writes half of the length that it is allowed, as OpenAI's own decoding does.
    most = {"max_new_tokens": min(2 * job["new"], model.max_length) - job["prompt"]}
    told = {
        "language": job["language"] or "en", "beam_size": 1, "temperature": 0.0, "without_timestamps": True,
        "vad_filter": False, "suppress_tokens": job["suppress"], **most,
    }  # fmt: skip
    lenient = {
        "compression_ratio_threshold": None, "log_prob_threshold": None, "no_speech_threshold": None,
        "condition_on_previous_text": False,
    }  # fmt: skip

    def one_by_one():
        written = [model.transcribe(samples, **told, **lenient)[0] for samples in whole]
        return texts(["".join(segment.text for segment in segments) for segments in written])

    def batch():
        written = [""] * len(whole)
        segments, _ = batched.transcribe(
            np.concatenate(whole), clip_timestamps=places, batch_size=job["batch"], **told
        )
        for segment in segments:
            written[int(segment.start // 30)] += segment.text
        return texts(written)

    return {"one_by_one": one_by_one, "batch": batch}


serve(load)
