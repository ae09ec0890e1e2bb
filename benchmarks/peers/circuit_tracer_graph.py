"""circuit-tracer at one graph; runs in its own environment: `python circuit_tracer_graph.py JOB.json`.

The job names a Llama checkpoint of Hugging Face, a folder with transcoders in circuit-tracer's format, token ids, the target's
id, nodes and batch size. Writes the graph as `.npz` and prints seconds and memory as JSON. Nothing of otoscope is imported.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from turns import Watch, resident_gb


def load(job):
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


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    model = load(job)
    from circuit_tracer import attribute

    ids = torch.tensor(job["ids"])
    before = resident_gb()
    watch = Watch()
    watch.start()
    start = time.perf_counter()
    graph = attribute(
        ids,
        model,
        attribution_targets=torch.tensor([job["target"]]),
        batch_size=job["batch"],
        max_feature_nodes=job["nodes"],
        update_interval=job["update"],
    )
    seconds = time.perf_counter() - start
    watch.running = False
    watch.join()
    active = graph.active_features[graph.selected_features]
    np.savez(
        job["out"],
        features=active.numpy(),
        matrix=graph.adjacency_matrix.numpy(),
        activation=graph.activation_values[graph.selected_features].detach().numpy(),
    )
    print(
        json.dumps(
            {
                "seconds": seconds,
                "gb_above_loaded": watch.most - before,
                "active": len(graph.active_features),
                "probability": float(graph.logit_probabilities[0]),
            }
        )
    )


if __name__ == "__main__":
    main()
