"""otoscope at what `nnsight_whisper.py` does."""

import numpy as np
import torch
from turns import padded, serve

import otoscope as oto
from otoscope.patching.activation_patching import get_act_patch_attn_head_out_all_pos
from otoscope.patching.metrics import logit_difference
from otoscope.patching.scene import Scene


def load(job):
    model = oto.load_model(job["model"], dtype="float32", batch=64)
    features = torch.from_numpy(np.load(job["features"]))
    ids = torch.tensor([job["tokens"]])
    streams = ["encoder_blocks.*.hook_resid_post", "decoder_blocks.*.hook_resid_post"]
    difference = logit_difference(job["answer"], job["other"])

    def inputs(rows):
        return {"input_features": features[rows], "decoder_input_ids": ids.expand(len(features[rows]), -1)}

    def plain():
        with torch.no_grad():
            model.forward(inputs(slice(None)))
        return {}

    def capture():
        output, cache = model.run_with_cache(inputs(slice(None)), streams)
        return {"logits": output.logits, **{str(i): cache[name] for i, name in enumerate(cache)}}

    def patch_heads():
        clean = Scene.of(model, inputs(slice(0, 1))).read("decoder_blocks.*.cross_attn.hook_z")
        spoilt = Scene.of(model, inputs(slice(1, 2)))
        return {
            "difference": get_act_patch_attn_head_out_all_pos(
                model, spoilt, clean, difference, part="cross_attn"
            )
        }

    def generate():
        with model.editing(oto.Edit.zero("decoder_blocks.0.self_attn.hook_z", heads=0)):
            written = model.generate(features, max_new_tokens=job["new"])
        return {"tokens": padded(written.tolist())}

    return {"plain": plain, "capture": capture, "patch_heads": patch_heads, "generate": generate}


serve(load)
