"""openai-whisper at transcription, greedy and without timestamps. Run by `workers.Side`, in its own environment.

Its checkpoint is made of the weights of a Transformers checkpoint: the same tensors under OpenAI's names.
"""

import torch
import whisper
from safetensors.torch import load_file
from sounds import sounds, texts
from turns import serve
from whisper.audio import N_FRAMES, N_SAMPLES
from whisper.model import ModelDimensions, Whisper

NAMES = (
    ("model.", ""),
    (".layers.", ".blocks."),
    (".self_attn_layer_norm.", ".attn_ln."),
    (".encoder_attn_layer_norm.", ".cross_attn_ln."),
    (".final_layer_norm.", ".mlp_ln."),
    (".self_attn.", ".attn."),
    (".encoder_attn.", ".cross_attn."),
    (".q_proj.", ".query."),
    (".k_proj.", ".key."),
    (".v_proj.", ".value."),
    (".out_proj.", ".out."),
    (".fc1.", ".mlp.0."),
    (".fc2.", ".mlp.2."),
    ("decoder.embed_tokens.", "decoder.token_embedding."),
    (".embed_positions.weight", ".positional_embedding"),
    ("encoder.layer_norm.", "encoder.ln_post."),
    ("decoder.layer_norm.", "decoder.ln."),
)


def openai_name(name):
    for theirs, ours in NAMES:
        name = name.replace(theirs, ours)
    return name


def load(job):
    state = {openai_name(k): v.float() for k, v in load_file(f"{job['model']}/model.safetensors").items()}
    state.pop("proj_out.weight", None)
    audio, text = state["encoder.positional_embedding"], state["decoder.positional_embedding"]

    def layers(part):
        return len({name.split(".")[2] for name in state if name.startswith(f"{part}.blocks.")})

    dims = ModelDimensions(
        n_mels=state["encoder.conv1.weight"].shape[1], n_audio_ctx=audio.shape[0], n_audio_state=audio.shape[1],
        n_audio_head=audio.shape[1] // 64, n_audio_layer=layers("encoder"),
        n_vocab=state["decoder.token_embedding.weight"].shape[0], n_text_ctx=text.shape[0],
        n_text_state=text.shape[1], n_text_head=text.shape[1] // 64, n_text_layer=layers("decoder"),
    )  # fmt: skip
    model = Whisper(dims).eval()
    model.load_state_dict(state)
    recordings = sounds(job)
    options = whisper.DecodingOptions(
        language=job["language"] or "en", without_timestamps=True, fp16=False, sample_len=job["new"]
    )

    def mel(samples):
        return whisper.pad_or_trim(
            whisper.log_mel_spectrogram(samples, dims.n_mels, padding=N_SAMPLES), N_FRAMES
        )

    def one_by_one():
        return texts([whisper.decode(model, mel(samples), options).text for samples in recordings])

    def batch():
        written = []
        for i in range(0, len(recordings), job["batch"]):
            mels = torch.stack([mel(samples) for samples in recordings[i : i + job["batch"]]])
            written += [found.text for found in whisper.decode(model, mels, options)]
        return texts(written)

    return {"one_by_one": one_by_one, "batch": batch}


serve(load)
