"""nnsight at Whisper: capture, patching of heads, generation with an edit. Run by `workers.Side`, in its own environment."""

import nnsight
import numpy as np
import torch
from nnsight import NNsight
from transformers import WhisperForConditionalGeneration
from turns import padded, serve


def load(job):
    hf = WhisperForConditionalGeneration.from_pretrained(job["model"], dtype=torch.float32).eval()
    model = NNsight(hf)
    encoder, decoder = model.model.encoder, model.model.decoder
    features = torch.from_numpy(np.load(job["features"]))
    ids = torch.tensor([job["tokens"]])
    heads = hf.config.decoder_attention_heads
    width = hf.config.d_model // heads
    layers = range(hf.config.decoder_layers)

    @torch.no_grad()
    def plain():
        hf(input_features=features, decoder_input_ids=ids.expand(len(features), -1))
        return {}

    @torch.no_grad()
    def capture():
        with model.trace(input_features=features, decoder_input_ids=ids.expand(len(features), -1)):
            kept = nnsight.save([])
            for layer in (*encoder.layers, *decoder.layers):
                kept.append(layer.output)
            logits = model.output.logits.save()
        return {"logits": logits, **{str(i): stream for i, stream in enumerate(kept)}}

    @torch.no_grad()
    def patch_heads():
        """All heads of the cross-attention, one in a row of one batch; each sound is encoded once."""
        with model.trace(input_features=features[:1], decoder_input_ids=ids):
            clean = nnsight.save([])
            for layer in decoder.layers:
                clean.append(layer.encoder_attn.out_proj.input)
        heard = hf.model.encoder(features[1:2]).last_hidden_state
        rows = heads * len(layers)
        inputs = {
            "encoder_outputs": (heard.expand(rows, -1, -1),),
            "decoder_input_ids": ids.expand(rows, -1),
        }
        with model.trace(**inputs):
            for i, layer in enumerate(decoder.layers):
                z = layer.encoder_attn.out_proj.input.clone()
                for h in range(heads):
                    part = slice(h * width, (h + 1) * width)
                    z[i * heads + h, :, part] = clean[i][0, :, part]
                layer.encoder_attn.out_proj.input = z
            logits = model.output.logits[:, -1].save()
        return {"difference": (logits[:, job["answer"]] - logits[:, job["other"]]).view(len(layers), heads)}

    with model.edit() as (tracer, edited):
        attention = edited.model.decoder.layers[0].self_attn
        for _ in tracer.iter[:]:
            z = attention.out_proj.input.clone()
            z[..., :width] = 0
            attention.out_proj.input = z

    @torch.no_grad()
    def generate():
        """The first head of the first self-attention zeroed at every step."""
        written = edited.trace(features, fn="generate", trace=False, max_new_tokens=job["new"])
        return {"tokens": padded(written.tolist())}

    return {"plain": plain, "capture": capture, "patch_heads": patch_heads, "generate": generate}


serve(load)
