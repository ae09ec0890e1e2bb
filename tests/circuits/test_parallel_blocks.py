"""Blocks whose attention and MLP read the same stream, in a family that only these tests know (Phi)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.circuits.cases import IDS, Random

from otoscope.circuits.graph import FEATURE
from otoscope.circuits.heads import split_by_head
from otoscope.circuits.qk import qk_attribution
from otoscope.circuits.tracer import Tracer, TraceSettings
from otoscope.errors import GraphError
from otoscope.models.base import AttentionModule, BlockSpec, Family, block_points, whole
from otoscope.models.causal_lm import LanguageModel, table

pytestmark = pytest.mark.usefixtures("one_thread")


def points(config):
    row = ("batch", "pos", "d_model")
    block = BlockSpec(
        prefix="blocks", layers="model.layers", count=config.num_hidden_layers, stack="text", position="pos",
        heads=config.num_attention_heads, kv_heads=config.num_key_value_heads, d_head=8, d_model=config.hidden_size,
        d_mlp=config.intermediate_size, attentions=(AttentionModule("self_attn", "attn", out="dense", rotary=True),),
        norms=(("ln1", "input_layernorm"), ("ln2", "input_layernorm")), resid_mid=None, mlp_in="mlp.fc1",
        mlp_down="mlp.fc2", attn_out="self_attn", mlp_out="mlp",
    )  # fmt: skip
    every = [
        whole("embed.hook_out", "model.embed_tokens", row, 32, "text"),
        *block_points(block),
        whole("ln_final.hook_out", "model.final_layernorm", row, 32, "text"),
        whole("unembed.hook_out", "lm_head", ("batch", "pos", "vocab"), 97, "text"),
    ]
    return table(every, "blocks", "model", "model.layers")


@pytest.fixture(scope="module")
def phi():
    from transformers import AutoModelForCausalLM, PhiConfig

    config = PhiConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, partial_rotary_factor=0.5, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config).double()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64) * 0.2)
    family = Family(
        "phi", ("phi",), "AutoModelForCausalLM", points, LanguageModel, lambda path: None, lambda kind: config
    )
    return LanguageModel(hf, family, None)


@pytest.mark.parametrize("kind", ["neurons", "skip", "cross-layer"])
def test_rows_sum_edges_are_exact_and_heads_add_up_in_parallel_blocks(phi, kind):
    dictionary = {"skip": Random().transcoders("jumprelu", True), "cross-layer": Random().cross_layer()}.get(
        kind
    )
    tracer = Tracer(phi, IDS, dictionary, TraceSettings(nodes=60))
    assert all(block.parallel for block in tracer.tape.wiring.blocks)
    graph = tracer.graph([4, 5])
    np.testing.assert_allclose(
        np.asarray(graph.matrix.sum(axis=1)).ravel() + graph.rest, graph.values, rtol=1e-9
    )
    logits = tracer.tape.logits[-1]
    np.testing.assert_allclose(graph.values[-2:], (logits - logits.mean())[[4, 5]], rtol=1e-9)
    direct = graph.check(20).direct
    np.testing.assert_allclose(
        direct.measured, direct.predicted, rtol=1e-9, atol=1e-9 * abs(direct.measured).max()
    )
    for source in [graph.names[i] for i in graph.nodes.of(FEATURE)[:40:9]] + ["token/3"]:
        split = split_by_head(graph, source, "target/1")
        assert split.edge == pytest.approx(graph.row("target/1").get(source, 0.0), rel=1e-9, abs=1e-12)


def test_a_rotation_of_some_dimensions_only_is_refused(phi):
    with pytest.raises(GraphError, match="not known"):
        qk_attribution(Tracer(phi, IDS), 1, 0, 5, 2)
