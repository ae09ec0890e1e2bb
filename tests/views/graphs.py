"""Made-up attribution graphs of any size, of a recogniser whose encoder is opened, and their documents."""

from __future__ import annotations

import numpy as np

from otoscope.audio import Clip
from otoscope.circuits.graph import BIAS, FEATURE, FRAME, TARGET, TOKEN, AttributionGraph, Nodes, TargetInfo
from otoscope.documents.annotations import Annotations
from otoscope.studies.graph_page import graph_doc

WORDS = [
    "and", "so", "my", "fellow", "americans", "ask", "not", "what", "your", "country", "can", "do", "for", "you",
]  # fmt: skip
LAYERS = 4


def made_up_graph(features=40, edges=300, seconds=7.0, words=WORDS, seed=0, texts=None, twins=False):
    """Rows sum to their values; weights are exact in float32, so that every reader prunes alike.

    `twins`: the first two features have the same inputs and both speak for the target.
    """
    rng = np.random.default_rng(seed)
    count = len(words)
    tokens = ["<|sot|>", "<|en|>", *(texts or [f" {word}" for word in words])]
    cuts = np.linspace(0, seconds, count + 1)
    spans = np.stack([cuts[:-1], cuts[1:]], axis=1)
    hears = np.arange(features) >= features // 2  # features of the decoder come first
    places = sorted({(int(h), int(rng.integers(LAYERS)), int(rng.integers(count if h else len(tokens))), int(f))
                     for h, f in zip(hears, rng.permutation(features), strict=True)})  # fmt: skip
    names = ("decoder", "encoder")

    def nodes(rows, stream, span=None, activation=None):
        return Nodes.of_rows(rows, stream, activation, span)

    own = [[place for place in places if place[0] == h] for h in (0, 1)]
    parts = [
        nodes([(FEATURE, *place[1:]) for place in own[h]], names[h],
              spans[[place[2] for place in own[h]]] if h else None, rng.random(len(own[h])) + 0.1)
        for h in (0, 1) if own[h]
    ]  # fmt: skip
    parts.append(nodes([(TOKEN, -1, i, 100 + i) for i in range(len(tokens))], "decoder"))
    parts.append(nodes([(BIAS, layer, -1, -1) for layer in range(LAYERS + 1)], "decoder"))
    parts.append(nodes([(FRAME, -1, i, -1) for i in range(count)], "encoder", spans))
    parts.append(nodes([(TARGET, LAYERS, len(tokens) - 1, 7)], "decoder"))
    joined = Nodes.join(parts)
    depth = _depth(joined)
    rows = np.concatenate([joined.of(FEATURE), joined.of(TARGET)])
    each = np.maximum(1, rng.multinomial(edges, np.full(len(rows), 1 / len(rows))))
    indptr, indices, weights = [0], [], []
    for row, wanted in zip(rows, each, strict=True):
        sources = np.flatnonzero(depth < depth[row])
        few = len(sources) if row == rows[-1] else min(wanted, len(sources))  # nothing leads nowhere
        chosen = rng.choice(sources, few, replace=False)
        indices.append(np.sort(chosen))
        weights.append(
            np.round(rng.standard_normal(len(chosen)) * rng.gamma(0.5, 2.0, len(chosen)), 2) + 0.01
        )
        indptr.append(indptr[-1] + len(chosen))
    if twins:
        indices[1], weights[1] = indices[0], weights[0]
        others = [i for i, source in enumerate(indices[-1]) if source > 1]
        indices[-1] = np.concatenate([[0, 1], indices[-1][others]])
        weights[-1] = np.concatenate([[3.0, 3.0], weights[-1][others]])
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in indices])])
    flat = np.concatenate(weights).astype(np.float32).astype(np.float64)
    rest = np.full(len(rows), 0.5)
    sums = np.add.reduceat(flat, indptr[:-1])
    sound = rng.standard_normal(count)
    sound[-5] = 6.0  # "country" is heard
    account = {
        "value": float(sound.sum() + 3.0), "sound": sound.tolist(), "tokens": [0.1] * len(tokens), "positions": 1.0,
        "biases": 2.0 - 0.1 * len(tokens), "errors": 0.0, "heads": [(3, 4, count - 5, 2.5)],
    }  # fmt: skip
    record = {
        "model": {"name": "whisper-made-up", "layers": LAYERS},
        "dictionary": {"kind": "neurons"}, "encoder_dictionary": {"kind": "neurons"},
        "encoder_features": 9000, "encoder_layers": LAYERS, "active_features": 5000, "prompt_tokens": 2,
        "token_indices": [count - 5], "transcript": " ".join(words), "totals": [account],
        "segments": {"kind": "words", "spans": spans.tolist(), "labels": list(words)},
        "words": [{"start": float(a), "end": float(b), "first_token": i, "last_token": i} for i, (a, b) in enumerate(spans)],
        "audio": {"source": "made/up.wav", "start": 0.0, "duration": seconds, "frame_seconds": 0.02},
        "settings": {"nodes": features, "segments": "words", "encoder_nodes": 20},
    }  # fmt: skip
    return AttributionGraph(
        joined, np.array(indptr), np.concatenate(indices), flat, rest, np.full(len(rows), 0.75), sums + rest,
        (TargetInfo(f" {words[-5]}", len(tokens) - 1, 0.9, 7, 0.9),), tuple(tokens), record,
    )  # fmt: skip


def _depth(nodes):
    """Sources are less deep than what they may supply."""
    hears = np.array([stream == "encoder" for stream in nodes.stream])
    depth = np.where(hears, nodes.layer, nodes.layer + LAYERS).astype(float)
    depth[np.isin(nodes.kind, (TOKEN, BIAS, FRAME))] = -9
    depth[nodes.kind == TARGET] = 99
    return depth


def tone(seconds=7.0):
    t = np.arange(round(16_000 * seconds)) / 16_000
    return Clip(
        (0.3 * np.sin(2 * np.pi * 180 * t) * np.sin(np.pi * 2 * t) ** 4).astype(np.float32), "made/up.wav"
    )


def made_up_doc(graph=None, seconds=7.0, pins=(), **more):
    """Everything of the graph, nothing pruned."""
    graph = graph or made_up_graph(seconds=seconds)
    doc = graph_doc(graph, clip=tone(seconds), node_share=1.0, edge_share=1.0, **more)
    doc.graph.annotations = Annotations(pins=list(pins))
    return doc
