"""A graph in words: what was said, what carried it, and the strongest paths from the prompt to the word."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from otoscope.circuits.graph import BIAS, ERROR, FEATURE, FRAME, HEARING, POSITION, PROJECTOR, TARGET, TOKEN
from otoscope.circuits.heads import after_post_norm, linear
from otoscope.circuits.influence import normalised

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.graph import AttributionGraph
    from otoscope.circuits.scores import Scores
    from otoscope.circuits.tracer import Tracer

_PATHS, _NODES, _DIRECT, _TOKENS = 6, 8, 5, 3


@dataclass(frozen=True)
class Path:
    """One way from a source to a target.

    Attributes:
        nodes: Node indices, source first.
        share: Product of the edges' shares: the part of the target's inputs that comes this way.
        sign: 1 if it speaks for the target, -1 against.
    """

    nodes: tuple[int, ...]
    share: float
    sign: int


def strongest_paths(graph: AttributionGraph, count: int = _PATHS) -> list[Path]:
    """Paths from inputs (tokens, positions, biases, errors) to a target, the largest share first.

    Best first search from the targets down: shares only shrink along a path, so the first that arrive are the largest.
    """
    shares, row_of = normalised(graph), {int(node): row for row, node in enumerate(graph.row_nodes)}
    first = len(graph.rest) - len(graph.targets)
    total = float(graph.target_weights.sum()) or 1.0
    ahead: list[tuple[float, tuple[int, ...]]] = [
        (-float(graph.target_weights[row]) / total, (int(graph.row_nodes[row]),))
        for row in range(first, len(graph.rest))
    ]
    heapq.heapify(ahead)
    found: list[Path] = []
    while ahead and len(found) < count:
        share, nodes = heapq.heappop(ahead)
        row = row_of.get(nodes[0])
        if row is None:
            found.append(Path(nodes, -share, _sign(graph, nodes, row_of)))
            continue
        entries = slice(shares.indptr[row], shares.indptr[row + 1])
        steps = np.asarray(shares.data[entries])
        for i in np.argsort(steps, kind="stable")[::-1][: 4 * count]:
            step = float(steps[i])
            if step:
                heapq.heappush(ahead, (share * step, (int(shares.indices[entries][i]), *nodes)))
    return found


def _sign(graph: AttributionGraph, nodes: tuple[int, ...], row_of: dict[int, int]) -> int:
    """Of the product of edges over the activations that they supply."""
    sign = 1.0
    for source, target in pairwise(nodes):
        row = row_of[target]
        entries = slice(graph.indptr[row], graph.indptr[row + 1])
        weight = graph.weights[entries][np.flatnonzero(graph.indices[entries] == source)[0]]
        last = target == nodes[-1]
        sign *= np.sign(weight) * (1.0 if last else np.sign(graph.values[row]) or 1.0)
    return int(sign) or 1


def node_words(graph: AttributionGraph, i: int) -> str:
    """A node as a person would name it."""
    n, kind = graph.nodes, int(graph.nodes.kind[i])
    layer, pos = int(n.layer[i]), int(n.pos[i])
    if kind == PROJECTOR:
        return f"heard {n.span[i][0]:.2f}–{n.span[i][1]:.2f} s"
    if n.stream[i] in HEARING or kind == FRAME:
        return _heard_words(graph, i)
    where = f"at {_token(graph, pos)}" if 0 <= pos < len(graph.tokens) else ""
    if kind == FEATURE:
        return f"L{layer} feature {n.feature[i]} {where}"
    if kind == TARGET:
        return f"says {graph.targets[int(i - n.of(TARGET)[0])].label!r}"
    bias = "the output's own bias" if is_output(graph, i) else f"L{layer} bias"
    words = {ERROR: f"L{layer} error {where}", TOKEN: _token(graph, pos), BIAS: bias}
    return words.get(kind, f"position {pos}" if kind == POSITION else graph.names[i])


def is_output(graph: AttributionGraph, i: int) -> bool:
    """Whether a node is where targets are read, behind the last layer."""
    n = graph.nodes
    return n.stream[i] not in HEARING and bool(n.layer[i] == n.layer[n.of(TARGET)[0]])


def _heard_words(graph: AttributionGraph, i: int) -> str:
    n, kind, layer = graph.nodes, int(graph.nodes.kind[i]), int(graph.nodes.layer[i])
    if kind == BIAS:
        return f"encoder L{layer} bias"
    where = segment_words(graph, int(n.pos[i]))
    if kind == FRAME:
        return f"sound {where}" if layer < 0 else f"heard {where}"
    words = {FEATURE: f"encoder L{layer} feature {n.feature[i]}", ERROR: f"encoder L{layer} error"}
    return f"{words.get(kind, 'encoder positions')} {where}"


def segment_words(graph: AttributionGraph, segment: int) -> str:
    """A segment of sound as a person would name it: its time, and the word that is heard there."""
    told = graph.record["segments"]
    (start, end), label = told["spans"][segment], told["labels"][segment]
    return f"{start:.2f}–{end:.2f} s" + (f" ({label})" if label else "")


def _token(graph: AttributionGraph, pos: int) -> str:
    return f"{graph.tokens[pos]!r} ({pos})"


def summary_lines(graph: AttributionGraph) -> list[str]:
    """The whole summary."""
    return list(_lines(graph))


def _lines(graph: AttributionGraph) -> Iterator[str]:
    told, scores = graph.record, graph.scores()
    if "transcript" in told:
        yield f"{told['model']['name']} wrote: {told['transcript'].strip() or '(nothing)'}"
    for i, target in enumerate(graph.targets):
        p = "" if target.probability is None else f" (p = {target.probability:.3f})"
        before = _said_before(graph, target.pos)
        yield f"{repr(before) if before else '(the beginning)'} -> {target.label!r}{p}"
        if "segments" in told:
            yield _loudest(graph, i)
    heard = np.isin(graph.nodes.stream, HEARING)
    features = int(((graph.nodes.kind == FEATURE) & ~heard).sum())
    kind = told.get("dictionary", {}).get("kind", "unknown")
    yield f"{features} of {told.get('active_features', features)} active features ({kind}); layers and positions from 0"
    if told.get("encoder_features"):
        inside = int(((graph.nodes.kind == FEATURE) & heard).sum())
        yield f"{inside} of {told['encoder_features']} features of the encoder, each over one segment of sound"
    yield ""
    if "segments" in told:
        for i in range(len(graph.targets)):
            yield from _account_lines(graph, i)
    for i in range(len(graph.targets)):
        yield from _direct_lines(graph, i)
    yield "Strongest paths (share of what the targets read):"
    for path in strongest_paths(graph):
        sign = "for" if path.sign > 0 else "against"
        yield f"  {100 * path.share:6.2f} % {sign:<8}{' -> '.join(node_words(graph, i) for i in path.nodes)}"
    yield ""
    yield "Features with most influence, and the tokens whose logits each raises most by itself:"
    influence = graph.influence()
    features_first = graph.nodes.of(FEATURE)
    for i in features_first[np.argsort(-influence[features_first], kind="stable")[:_NODES]]:
        yield f"  {100 * influence[i]:6.2f} %  {node_words(graph, i)}{_promoted(graph, int(i))}"
    yield ""
    yield from _score_lines(scores, told.get("active_features", features) - features, kind)


def _said_before(graph: AttributionGraph, pos: int) -> str:
    """What stood there when a target was written: the prompt, of a recogniser the text alone."""
    first = int(graph.record.get("prompt_tokens", 0))
    return "".join(graph.tokens[first : pos + 1]) if first else str(graph.record.get("prompt", ""))


def _loudest(graph: AttributionGraph, target: int) -> str:
    """The sound that counts most for a target, which is what most people want to know."""
    told = graph.record["totals"][target]
    sound = np.array(told["sound"])
    most = int(np.argmax(np.abs(sound)))
    return f"  the sound that counts most: {segment_words(graph, most)}, {sound[most]:+.2f} of {told['value']:.2f} logits"


def _account_lines(graph: AttributionGraph, target: int) -> Iterator[str]:
    """What was heard and what was guessed: the account of all paths."""
    from otoscope.circuits.scores import grounding

    told, first = graph.record["totals"][target], int(graph.record.get("prompt_tokens", 0))
    sound, text = np.array(told["sound"]), np.array(told["tokens"])
    yield f"{graph.targets[target].label!r}: {told['value']:.2f} logits, every path counted"
    for words, part in (
        ("the sound", sound.sum()),
        ("the words before", text[first:].sum()),
        ("the prompt", text[:first].sum()),
        ("said in any case (biases and positions)", told["biases"] + told["positions"]),
        ("errors of the dictionary", told["errors"]),
    ):
        if part:
            yield f"  {part:+8.2f}  {words}"
    yield "  the sound:"
    for i in np.argsort(-np.abs(sound), kind="stable")[:_DIRECT]:
        heads = [f"L{layer}H{head} {part:+.2f}" for layer, head, at, part in told["heads"] if at == i]
        by = f", by {', '.join(heads[:2])}" if heads else ""
        yield f"  {sound[i]:+8.2f}  {segment_words(graph, int(i))}{by}"
    yield "  the text:"
    for i in np.argsort(-np.abs(text[first:]), kind="stable")[:_TOKENS] + first:
        yield f"  {text[i]:+8.2f}  {_token(graph, int(i))}"
    shares = grounding(graph, target)
    yield (
        f"Grounding ratio {shares.ratio:.2f}: of the influence that ends in sound ({100 * shares.sound:.0f} %), text "
        f"({100 * shares.text:.0f} %), prompt ({100 * shares.prompt:.0f} %), positions ({100 * shares.positions:.0f} %) and "
        f"biases ({100 * shares.biases:.0f} %), the sound's part; {100 * shares.errors:.0f} % end in errors, "
        f"{100 * shares.rest:.0f} % in features that the graph leaves out."
    )
    yield ""


def _score_lines(scores: Scores, others: int, kind: str) -> Iterator[str]:
    """How much of the answer this is."""
    if others > 0 and scores.rest > 0:
        yield (
            f"{100 * scores.rest:.0f} % of the influence comes through the {others} active features that the graph leaves out; "
            "they are summed, exactly, in the rest. More --nodes take more of it in."
        )
    if kind == "neurons":
        yield "Neurons miss nothing of an MLP: there are no errors (replacement 1, completeness 1)."
    else:
        yield f"replacement {scores.replacement:.3f}, completeness {scores.completeness:.3f} (1: nothing ends in errors)"


def _direct_lines(graph: AttributionGraph, target: int) -> Iterator[str]:
    """What speaks for and against a target without a feature in between."""
    row = len(graph.rest) - len(graph.targets) + target
    entries = slice(graph.indptr[row], graph.indptr[row + 1])
    weights, sources = graph.weights[entries], graph.indices[entries]
    told = graph.targets[target]
    above = "" if told.against is not None else " above the mean"
    yield f"{told.label!r} reads {graph.values[row]:.2f} logits{above}; directly"
    for words, order in (("for it", np.argsort(-weights)), ("against it", np.argsort(weights))):
        yield f"  {words}:"
        for i in order[:_DIRECT]:
            node = int(sources[i])
            yield f"  {weights[i]:+8.2f}  {node_words(graph, node)}{_promoted(graph, node)}"
    yield ""


def _promoted(graph: AttributionGraph, node: int) -> str:
    """The tokens that a feature writes toward, where the model is at hand: `, raises ' Paris'`."""
    tracer = graph.tracer
    n = graph.nodes
    if tracer is None or tracer.model.tokenizer is None or n.kind[node] != FEATURE:
        return ""
    if n.stream[node] in HEARING:
        return ""
    scores = promoted_tokens(tracer, graph, node)
    tokens = [repr(tracer.model.tokenizer.decode([int(i)])) for i in scores.topk(_TOKENS).indices]
    return f", raises {' '.join(tokens)}"


def promoted_tokens(tracer: Tracer, graph: AttributionGraph, node: int) -> Tensor:
    """`(vocab,)` what a feature's own write vector, times its activation, adds to each logit if nothing else reads it.

    The final norm's scale is that of the feature's position (a logit lens of the feature).
    """
    import torch

    with torch.no_grad():
        return written_vector(tracer, graph, node) @ tracer.tape.wiring.unembedding.weight.T  # type: ignore[operator,union-attr]


def written_vector(tracer: Tracer, graph: AttributionGraph, node: int) -> Tensor:
    """`(d,)` the same before the unembedding: what the final norm makes of what a feature wrote."""
    import torch

    n, tape, dictionary = graph.nodes, tracer.tape, tracer.dictionary
    layer, pos, feature = int(n.layer[node]), int(n.pos[node]), torch.tensor([int(n.feature[node])])
    written = torch.zeros_like(tape.embed)
    for out in dictionary.targets(layer):
        raw = torch.zeros_like(written)
        raw[pos] = float(n.activation[node]) * dictionary.decoder(layer, out, feature)[0]
        written += after_post_norm(tape.mlp[out], raw, dictionary.writes)
    with torch.no_grad():
        return linear(tape.final, written)[pos]
