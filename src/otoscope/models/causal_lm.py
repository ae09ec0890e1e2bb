"""Language models: Llama, Qwen2, Qwen3, Gemma 1, 2 and 3 (text), GPT-2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations import HookPoint, PointTable
from otoscope.errors import OptionError
from otoscope.models.base import AttentionModule, BlockSpec, Family, Model, block_points, pad_left, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedConfig

_ROW = ("batch", "pos", "d_model")


def llama_block(config: Any, prefix: str, layers: str, stack: str) -> BlockSpec:
    """Layout of a Llama-like stack (Llama, Qwen2, Qwen3, Gemma 1 to 3): RMSNorm, rotary, gated MLP."""
    kind = config.model_type
    gemma = kind in ("gemma2", "gemma3_text")  # sandwich norms: a post-norm ends each sublayer
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    swapped = {"qwen3": False, "gemma3_text": True}.get(kind)
    before_mlp = "pre_feedforward_layernorm" if gemma else "post_attention_layernorm"
    return BlockSpec(
        prefix=prefix,
        layers=layers,
        count=config.num_hidden_layers,
        stack=stack,
        position="pos",
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        d_head=d_head,
        d_model=config.hidden_size,
        d_mlp=config.intermediate_size,
        attentions=(AttentionModule("self_attn", "attn", out="o_proj", rotary=True, q_norm_swapped=swapped),),
        norms=(("ln1", "input_layernorm"), ("ln2", before_mlp)),
        resid_mid=before_mlp,
        mlp_in="mlp.gate_proj",
        mlp_up="mlp.up_proj",
        mlp_down="mlp.down_proj",
        attn_out="post_attention_layernorm" if gemma else "self_attn",
        mlp_out="post_feedforward_layernorm" if gemma else "mlp",
    )


def _llama_points(config: Any) -> PointTable:
    spec = llama_block(config, "blocks", "model.layers", "text")
    points = [
        whole("embed.hook_out", "model.embed_tokens", _ROW, config.hidden_size, "text"),
        *block_points(spec),
        whole("ln_final.hook_out", "model.norm", _ROW, config.hidden_size, "text"),
        whole("unembed.hook_out", "lm_head", ("batch", "pos", "vocab"), config.vocab_size, "text"),
    ]
    return table(points, "blocks", "model", "model.layers")


def _gpt2_points(config: Any) -> PointTable:
    spec = BlockSpec(
        prefix="blocks",
        layers="transformer.h",
        count=config.n_layer,
        stack="text",
        position="pos",
        heads=config.n_head,
        kv_heads=config.n_head,
        d_head=config.n_embd // config.n_head,
        d_model=config.n_embd,
        d_mlp=config.n_inner or 4 * config.n_embd,
        attentions=(AttentionModule("attn", "attn", fused="c_attn", out="c_proj"),),
        norms=(("ln1", "ln_1"), ("ln2", "ln_2")),
        resid_mid="ln_2",
        mlp_in="mlp.c_fc",
        mlp_down="mlp.c_proj",
        attn_out="attn",
        mlp_out="mlp",
    )
    points = [
        whole("embed.hook_out", "transformer.wte", _ROW, config.n_embd, "text"),
        # One row serves the whole batch unless position_ids are given, so rows cannot be told apart here.
        whole(
            "pos_embed.hook_out", "transformer.wpe", ("batch_or_1", "pos", "d_model"), config.n_embd, "text"
        ),
        *block_points(spec),
        whole("ln_final.hook_out", "transformer.ln_f", _ROW, config.n_embd, "text"),
        whole("unembed.hook_out", "lm_head", ("batch", "pos", "vocab"), config.vocab_size, "text"),
    ]
    return table(points, "blocks", "transformer", "transformer.h")


def table(points: list[HookPoint], prefix: str, clock: str, layers: str) -> PointTable:
    """The point table of a model with one stack."""
    return PointTable({p.name: p for p in points}, {"text": prefix}, (clock,), {"text": layers})


class LanguageModel(Model):
    """A causal language model with named hook points."""

    def inputs(self, prompts: str | Sequence[str] | Tensor) -> dict[str, Tensor]:
        """Model inputs for texts (padded on the left) or token ids `(batch, pos)`.

        Raises:
            OptionError: A prompt is empty or longer than the context.
        """
        if isinstance(prompts, torch.Tensor):
            ids = prompts if prompts.dim() == 2 else prompts[None]
            mask = torch.ones_like(ids)
        else:
            texts = [prompts] if isinstance(prompts, str) else list(prompts)
            rows = [self.tokenizer(text)["input_ids"] for text in texts]
            if not rows or not all(rows):
                raise OptionError("A prompt is empty.", "Give at least one token of text.")
            fill = next(
                i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if i is not None
            )
            ids, mask = pad_left(rows, fill)
        limit = getattr(self.config, "max_position_embeddings", None)
        if limit and ids.shape[1] > limit:
            raise OptionError(
                f"The prompt has {ids.shape[1]} tokens, the context holds {limit}.", "Shorten the prompt."
            )
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        return {
            "input_ids": ids.to(self.device),
            "attention_mask": mask.to(self.device),
            "position_ids": positions.to(self.device),
        }

    def forward(self, inputs: Any) -> Any:
        """Run the model on texts, token ids `(batch, pos)` or a dict of Transformers inputs; no cache is kept."""
        feed = dict(inputs) if isinstance(inputs, dict) else self.inputs(inputs)
        return self.hf(**({"use_cache": False} | feed))

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits of a residual stream `(..., d_model)` -> `(..., vocab)`: final norm, `lm_head`, Gemma 2's softcap."""
        base = self.hf.base_model
        norm = base.norm if hasattr(base, "norm") else base.ln_f
        logits = self.hf.lm_head(norm(residual))  # type: ignore[operator]
        cap = getattr(self.config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits


def _load_tokenizer(path: str | Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def _tiny(model_type: str) -> PreTrainedConfig:
    """Three layers, grouped-query heads where the family has them, a sliding layer for Gemma."""
    from transformers import AutoConfig

    if model_type == "gpt2":
        return AutoConfig.for_model(
            "gpt2",
            vocab_size=97,
            n_positions=64,
            n_embd=32,
            n_layer=3,
            n_head=4,
            bos_token_id=1,
            eos_token_id=2,
        )
    small = {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    if model_type in ("llama",):
        small |= {"attention_bias": True, "mlp_bias": True}
    if model_type in ("gemma2", "gemma3_text"):
        small |= {
            "sliding_window": 6,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        }
    return AutoConfig.for_model(model_type, **small)


FAMILIES = (
    Family(
        "llama", ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), "AutoModelForCausalLM", _llama_points,
        LanguageModel, _load_tokenizer, _tiny,
    ),
    Family("gpt2", ("gpt2",), "AutoModelForCausalLM", _gpt2_points, LanguageModel, _load_tokenizer, _tiny),
)  # fmt: skip
