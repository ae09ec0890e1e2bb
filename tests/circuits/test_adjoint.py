"""The adjoint sweep: every row sums to its target, and equals what autograd says."""

from __future__ import annotations

import pytest
import torch
from tests.circuits.cases import FAMILIES, IDS, LAYERS, dictionaries, model_of

from otoscope.circuits.adjoint import Seeds, Sweep, feature_seeds, final_seeds, moved_to_keys, stream_seeds
from otoscope.circuits.interventions import intervening
from otoscope.circuits.sources import feature_input, find_sources
from otoscope.circuits.tape import attention_out, record
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.errors import GraphError

pytestmark = pytest.mark.usefixtures("one_thread")


class Case:
    """A random model's tape, and seeds of random features, logits and stream directions."""

    def __init__(self, family: str, dictionary=None) -> None:
        self.model = model_of(family)
        self.tape = record(self.model, torch.tensor(IDS))
        self.use(dictionary or NeuronBasis(self.model))

    def use(self, dictionary) -> Case:
        self.dictionary = dictionary
        self.sources = find_sources(self.tape, dictionary)
        self.sweep = Sweep(self.tape, dictionary, self.sources)
        order = torch.randperm(self.sources.features, generator=torch.Generator().manual_seed(1))
        self.columns = order[:24]
        return self

    def seeds(self) -> Seeds:
        unembedding = self.tape.wiring.unembedding.weight.detach()
        directions = unembedding[[4, 5]] - unembedding.mean(dim=0)
        features = feature_seeds(self.tape, self.dictionary, self.sources, self.columns)
        logits = final_seeds(self.tape, torch.tensor([8, 5]), directions)
        stream = stream_seeds(self.tape, 2, torch.tensor([6]), directions[:1])
        return Seeds.join([features, logits, stream])

    def values(self) -> torch.Tensor:
        """What the seeds' rows sum to, from the forward pass."""
        unembedding = self.tape.wiring.unembedding.weight.detach()
        directions = unembedding[[4, 5]] - unembedding.mean(dim=0)
        logits = (self.tape.final(self.tape.last)[[8, 5]] * directions).sum(dim=-1)
        _, cache = self.model.run_with_cache(torch.tensor([IDS]), "blocks.2.hook_resid_pre")
        stream = cache["resid_pre", 2][0, 6] @ directions[0]
        return torch.cat([self.sources.activation[self.columns], logits, stream[None]])


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    return Case(request.param)


def test_every_row_sums_to_its_target_for_every_kind_of_dictionary(case):
    for name, dictionary in dictionaries(case.model).items():
        case.use(dictionary)
        rows, values = case.sweep.rows(case.seeds()), case.values()
        assert ((rows.sum(dim=1) - values).abs() <= 1e-9 * values.abs()).all(), name


def test_batches_their_order_and_their_size_change_no_row(case):
    case.use(NeuronBasis(case.model))
    seeds = case.seeds()
    whole = case.sweep.rows(seeds)
    shuffled = torch.randperm(len(seeds), generator=torch.Generator().manual_seed(2))
    memory = torch.full((len(seeds) + 3, case.sources.columns), torch.nan, dtype=torch.float64)
    scale = whole.abs().amax(dim=1, keepdim=True)
    for size in (1, 7, len(seeds)):
        parts = [case.sweep.rows(seeds[part], memory).clone() for part in shuffled.split(size)]
        again = torch.cat(parts)[shuffled.argsort()]
        assert ((again - whole).abs() <= 1e-12 * scale).all()


def test_rows_reach_only_lower_layers_and_earlier_positions(case):
    case.use(dictionaries(case.model)["cross-layer relu"])
    rows = case.sweep.rows(case.seeds())[: len(case.columns), : case.sources.features]
    layer, pos, _ = case.sources.entries(torch.arange(case.sources.features))
    own_layer, own_pos, _ = case.sources.entries(case.columns)
    allowed = (layer[None] < own_layer[:, None]) & (pos[None] <= own_pos[:, None])
    assert not rows[~allowed].any()
    assert rows[allowed].any()


def test_attention_and_norms_satisfy_the_adjoint_identity(case):
    random = torch.Generator().manual_seed(3)
    for a in case.tape.attention:
        v, w = (torch.randn(9, 32, generator=random, dtype=torch.float64) for _ in range(2))
        norm_out = a.norm(v) - a.norm(torch.zeros_like(v))
        moved = attention_out(a, norm_out) - attention_out(a, torch.zeros_like(v))
        post = w[:, None] if a.post is None else a.post.adjoint(w[:, None])
        back = a.norm.adjoint(moved_to_keys(a, post @ a.wiring.o.weight) @ a.wiring.v.weight)[:, 0]
        assert (moved * w).sum() == pytest.approx(float((v * back).sum()), rel=1e-11)


def test_autograd_through_the_frozen_model_gives_the_same_rows(case):
    """Norm scales, patterns and MLP outputs held by hooks; the gradient at an MLP's output times a write vector is an edge."""
    case.use(dictionaries(case.model)["relu, skip True"])
    rows = case.sweep.rows(case.seeds())
    leaves = [torch.zeros_like(mlp.raw, requires_grad=True) for mlp in case.tape.mlp]
    # Hooks run in order: these join what is held because they are placed inside.
    frozen = {"tape": case.tape, "sources": case.sources, "freeze": "all"}
    final = next(p.module for n, p in case.model.points.items() if n == "ln_final.hook_out")
    got = {}
    with torch.enable_grad(), intervening(case.model, case.dictionary, [[]], **frozen):
        handles = [
            block.mlp.down_module.register_forward_hook(lambda m, a, out, leaf=leaf: out + leaf)
            for block, leaf in zip(case.tape.wiring.blocks, leaves, strict=True)
        ]
        handles.append(
            case.model.hf.get_submodule(final).register_forward_hook(lambda m, a, out: got.update(y=out))
        )
        case.model.forward(torch.tensor([IDS]))
    for handle in handles:
        handle.remove()
    unembedding = case.tape.wiring.unembedding.weight.detach()
    target = got["y"][0, 8] @ (unembedding[4] - unembedding.mean(dim=0))
    gradients = torch.autograd.grad(target, leaves)
    row, s = rows[len(case.columns)], case.sources
    for layer, gradient in enumerate(gradients):
        active = s.actives[layer]
        vectors = case.dictionary.decoder(layer, layer, active.feature)
        expected = active.activation * (gradient[active.pos] * vectors).sum(dim=-1)
        torch.testing.assert_close(
            row[s.starts[layer] : s.starts[layer + 1]], expected, rtol=1e-9, atol=1e-11
        )
        errors = (gradient * s.errors[layer]).sum(dim=-1)
        at = s.features + layer * len(IDS)
        torch.testing.assert_close(row[at : at + len(IDS)], errors, rtol=1e-9, atol=1e-11)


def test_the_sum_over_all_paths_is_one_sweep_through_the_features(case):
    """With all features expanded, signed paths from any source to a logit add up to its total effect."""
    for name, dictionary in dictionaries(case.model).items():
        case.use(dictionary)
        s = case.sources
        logit = case.seeds()[torch.tensor([len(case.columns)])]
        through = Sweep(case.tape, dictionary, s, through=True).rows(logit)[0]
        full = case.sweep.rows(feature_seeds(case.tape, dictionary, s, torch.arange(s.features)))
        relative = full / s.activation[:, None]
        direct = case.sweep.rows(logit)[0]
        carried, total = direct, torch.zeros_like(direct)
        for _ in range(LAYERS + 1):
            total = total + carried
            carried = carried[: s.features] @ relative
        assert not carried.any(), name
        torch.testing.assert_close(through, total, rtol=1e-9, atol=1e-11, msg=name)
        torch.testing.assert_close(through[s.features :].sum(), direct.sum(), rtol=1e-9, atol=1e-11, msg=name)


def test_reading_the_stream_below_or_above_the_model_is_refused():
    case = Case("gpt2")
    with pytest.raises(GraphError, match="no stream before layer 4"):
        stream_seeds(case.tape, 4, torch.tensor([0]), torch.zeros(1, 32, dtype=torch.float64))


def test_what_features_read_is_named_by_the_norm_convention():
    case = Case("gpt2")
    for name, dictionary in dictionaries(case.model).items():
        if " to " in name:
            x = feature_input(dictionary, case.tape.mlp[1])
            assert (x.square().mean(dim=-1).sub(1).abs() < 1e-2).all() == (dictionary.reads == "normalized")
