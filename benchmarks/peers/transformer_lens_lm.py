"""TransformerLens at a language model: capture, logit lens, patching. Run by `workers.Side`, in its own environment.

The bridge is not in its compatibility mode, so that weights and activations are those of the model itself.
"""

import torch
import transformer_lens.patching as patching
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import logit_lens
from transformers import AutoModelForCausalLM, AutoTokenizer
from turns import serve


def load(job):
    hf = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = TransformerBridge.boot_transformers(job["model"], hf_model=hf, tokenizer=tokenizer, device="cpu")
    model.eval()
    clean, spoilt = torch.tensor([job["clean"]]), torch.tensor([job["spoilt"]])
    layers = range(model.cfg.n_layers)
    streams = [f"blocks.{i}.hook_resid_post" for i in layers]

    def plain():
        with torch.no_grad():
            model(clean)
        return {}

    def capture():
        with torch.no_grad():
            logits, cache = model.run_with_cache(clean, names_filter=streams)
        return {"logits": logits, **{str(i): cache[name] for i, name in enumerate(streams)}}

    def lens():
        """At every position and layer: how probable the next token of the text is, its rank, and the entropy."""
        read = logit_lens(
            model, clean[:, :-1], positions=None, targets=clean[:, 1:], return_type="log_probs",
            layers=[i + 1 for i in layers],
        )  # fmt: skip
        found = {"next": read.values, "rank": read.readout.target_ranks, "entropy": read.readout.entropy}
        return {name: value.reshape(len(layers), -1) for name, value in found.items()}

    def patch_heads():
        def metric(logits):
            return logits[0, -1, job["answer"]] - logits[0, -1, job["other"]]

        with torch.no_grad():
            _, cache = model.run_with_cache(clean, names_filter=[f"blocks.{i}.attn.hook_z" for i in layers])
            return {"difference": patching.get_act_patch_attn_head_out_all_pos(model, spoilt, cache, metric)}

    return {"plain": plain, "capture": capture, "lens": lens, "patch_heads": patch_heads}


serve(load)
