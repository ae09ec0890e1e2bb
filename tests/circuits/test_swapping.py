"""Swapping features of a minimal pair: what is set is what the other recording has, and the account predicts the change."""

from __future__ import annotations

import pytest
import torch
from tests.circuits.test_speech import FRAMES, IDS, KINDS, OPENED, features, model, tracer

from otoscope.circuits.hearing_runs import Change, react
from otoscope.circuits.swapping import swap
from otoscope.errors import GraphError, OptionError

__all__ = ["features", "model"]  # fixtures
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def other(features):
    """The same sound, but for frames 10 to 17."""
    changed = features.clone()
    noise = torch.Generator().manual_seed(9)
    changed[..., 20:34] += 0.05 * torch.randn(1, 16, 14, generator=noise, dtype=changed.dtype)
    return changed


@pytest.mark.parametrize("kind", KINDS)
def test_for_small_differences_what_is_predicted_comes_near_to_what_happens(model, features, other, kind):
    graph = tracer(model, features, OPENED, *KINDS[kind]()).graph(5)
    second = tracer(model, other, OPENED, *KINDS[kind]())
    found = swap(graph, second, 10)
    assert len(found.names) == len(found.each.predicted) == 20
    assert found.each.correlation > 0.5
    assert found.before == pytest.approx(graph.values[-1])
    # With the whole sound of the other recording the model says what it says of that.
    assert found.before + found.sound == pytest.approx(found.other, rel=1e-9)
    assert found.to_dict()["each"]["n"] == 20


def test_swapping_with_itself_changes_nothing(model, features):
    graph = tracer(model, features, OPENED).graph(5)
    found = swap(graph, tracer(model, features, OPENED), 6)
    assert abs(found.each.measured).max() < 1e-12
    assert abs(found.each.predicted).max() < 1e-12
    assert found.decoder == pytest.approx(0, abs=1e-12)
    assert found.encoder == pytest.approx(0, abs=1e-12)


def test_an_encoder_feature_is_set_frame_by_frame(model, features, other):
    from otoscope.circuits.swapping import _Swapping

    graph, second = tracer(model, features, OPENED).graph(5), tracer(model, other, OPENED)
    made = _Swapping(graph, second, None, 0)
    node = next(i for i, name in enumerate(graph.names) if name.startswith("encoder/feature/1/"))
    change = made.encoder(node)
    layer, segment, feature = (int(getattr(graph.nodes, x)[node]) for x in ("layer", "pos", "feature"))
    at = second.segments.frames(segment)
    values = second.encoder.sources.activation[layer][at, feature]
    assert change.encoder[0].value == pytest.approx(values.tolist())

    def replaced(post, _hook):
        post = post.clone()
        post[:, at, feature] = values
        return post

    inputs = {"input_features": features, "decoder_input_ids": IDS[None]}
    with torch.no_grad(), model.hooks(fwd_hooks=[(f"encoder_blocks.{layer}.mlp.hook_post", replaced)]):
        edited = model.forward(inputs).logits[0, -1]
    clean = made.tracer.tape.logits[-1]
    by_hand = (edited - edited.mean() - clean + clean.mean())[5]
    measured = react(made.tracer, [change, Change()], made.tracer.targets)[0, 0]
    assert float(measured) == pytest.approx(float(by_hand), rel=1e-9)


def test_what_is_no_pair_is_refused(model, features):
    made = tracer(model, features)
    graph = made.graph(5)
    second = tracer(model, features)
    second.ids = second.ids.flip(0)
    with pytest.raises(OptionError, match="different texts"):
        swap(graph, second)
    with pytest.raises(GraphError, match="no recording"):
        swap(graph.without_tracer(), made)
    assert FRAMES
