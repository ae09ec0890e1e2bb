"""otoscope at what `transformer_lens_lm.py` does."""

import torch
from turns import serve

import otoscope as oto
from otoscope.lenses.logit_lens import logit_lens
from otoscope.patching.activation_patching import get_act_patch_attn_head_out_all_pos
from otoscope.patching.metrics import logit_difference
from otoscope.patching.scene import Scene


def load(job):
    model = oto.load_model(job["model"], dtype="float32")
    clean, spoilt = torch.tensor([job["clean"]]), torch.tensor([job["spoilt"]])
    streams = "blocks.*.hook_resid_post"
    difference = logit_difference(job["answer"], job["other"])

    def plain():
        with torch.no_grad():
            model.forward({"input_ids": clean})
        return {}

    def capture():
        output, cache = model.run_with_cache({"input_ids": clean}, streams)
        return {"logits": output.logits, **{str(i): cache[name] for i, name in enumerate(cache)}}

    def lens():
        """The same, and the five most probable tokens."""
        _, cache = model.run_with_cache({"input_ids": clean[:, :-1]}, streams)
        read = logit_lens(model, [cache[name][0] for name in cache], clean[0, 1:])
        return {"next": read.p_final.log(), "rank": read.rank_final, "entropy": read.entropy}

    def patch_heads():
        cache = Scene.of(model, {"input_ids": clean}).read("blocks.*.attn.hook_z")
        scene = Scene.of(model, {"input_ids": spoilt})
        return {"difference": get_act_patch_attn_head_out_all_pos(model, scene, cache, difference)}

    return {"plain": plain, "capture": capture, "lens": lens, "patch_heads": patch_heads}


serve(load)
