"""circuit-tracer at one graph; runs in its own environment.

The job names a Llama checkpoint of Hugging Face, a folder with transcoders in circuit-tracer's format, token ids, the target's
id, nodes and batch size. Nothing of otoscope is imported.
"""

from pathlib import Path

import torch
from turns import serve


def load(job):
    from circuit_tracer import attribute

    model, ids = replacement_model(job), torch.tensor(job["ids"])

    def graph():
        found = attribute(
            ids,
            model,
            attribution_targets=torch.tensor([job["target"]]),
            batch_size=job["batch"],
            max_feature_nodes=job["nodes"],
            update_interval=job["update"],
        )
        return {
            "features": found.active_features[found.selected_features].numpy(),
            "matrix": found.adjacency_matrix.numpy(),
        }

    return {"graph": graph}


def replacement_model(job):
    """The model with its transcoders in place of its MLPs."""
    from circuit_tracer.replacement_model.replacement_model_transformerlens import (
        TransformerLensReplacementModel,
    )
    from circuit_tracer.transcoder.single_layer_transcoder import load_transcoder_set
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    dtype = getattr(torch, job["dtype"])
    torch.set_default_dtype(dtype)
    hf = LlamaForCausalLM.from_pretrained(job["model"], dtype=dtype)
    c = hf.config
    cfg = HookedTransformerConfig(
        n_layers=c.num_hidden_layers,
        d_model=c.hidden_size,
        n_ctx=c.max_position_embeddings,
        d_head=c.hidden_size // c.num_attention_heads,
        n_heads=c.num_attention_heads,
        n_key_value_heads=c.num_key_value_heads,
        d_mlp=c.intermediate_size,
        d_vocab=c.vocab_size,
        act_fn=c.hidden_act,
        eps=c.rms_norm_eps,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_dim=c.hidden_size // c.num_attention_heads,
        rotary_adjacent_pairs=False,
        rotary_base=int(c.rope_parameters["rope_theta"] if hasattr(c, "rope_parameters") else c.rope_theta),
        gated_mlp=True,
        final_rms=True,
        original_architecture="LlamaForCausalLM",
        model_name="llama",
        device="cpu",
        dtype=dtype,
        default_prepend_bos=False,
    )
    cfg.use_qk_norm = False
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(job["tokenizer"]) / "tokenizer.json"), **special
    )
    weights = convert_llama_weights(hf, cfg)
    folder = Path(job["transcoders"])
    transcoders = load_transcoder_set(
        {i: str(folder / f"layer_{i}.safetensors") for i in range(cfg.n_layers)},
        scan="benchmark",
        feature_input_hook="mlp.hook_in",
        feature_output_hook="mlp.hook_out",
        device=torch.device("cpu"),
        dtype=dtype,
        lazy_encoder=False,
        lazy_decoder=False,
    )
    model = TransformerLensReplacementModel.from_config(cfg, transcoders)
    model.tokenizer = tokenizer  # its own way of setting one asks a hub
    model.load_state_dict(renamed(weights), strict=False)
    return model


def renamed(weights):
    """The replacement model wraps its MLPs and its unembedding."""
    return {
        name.replace(".mlp.", ".mlp.old_mlp.").replace("unembed.", "unembed.old_unembed."): value
        for name, value in weights.items()
    }


serve(load)
