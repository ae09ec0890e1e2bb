"""How the figures of docs/concepts.md are drawn; `make_concepts.py` has what they show."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from otoscope.circuits.graph import FEATURE, FRAME, TARGET, TOKEN
from otoscope.circuits.summary import node_words
from otoscope.figures.style import MEDIUM, SMALL, TWO_COLUMNS, Palette, drawn, new_figure, plain_text


@drawn
def draw_sum(colours: Palette, names: tuple[str, ...], added: np.ndarray) -> Figure:
    figure, axes = new_figure(TWO_COLUMNS, 2.9)
    before = np.concatenate([[0.0], np.cumsum(added)[:-1]])
    shades = [colours.series[0] if a >= 0 else colours.series[1] for a in added]
    axes.bar(range(len(added)), added, bottom=before, color=shades, width=0.7)
    for i in range(len(added) - 1):
        axes.plot([i - 0.35, i + 1.35], [before[i + 1]] * 2, color=colours.muted, linewidth=0.6)
    axes.set_xticks(
        range(len(names)),
        [name.replace(".", " ").replace("_", " ") for name in names],
        rotation=60,
        ha="right",
    )
    axes.axhline(0, color=colours.muted, linewidth=0.6)
    axes.set_ylabel("logit of “country” so far")
    axes.set_title(f"A running sum: it ends at {added.sum():.1f}")
    return figure


@drawn
def draw_heads(colours: Palette, recovered: np.ndarray) -> Figure:
    figure, axes = new_figure(4.6, 2.4)
    image = axes.imshow(recovered, cmap=colours.changes(), vmin=-0.4, vmax=0.4, origin="lower", aspect="auto")
    for (layer, head), value in np.ndenumerate(recovered):
        ink = colours.on(image.cmap(image.norm(value)))
        axes.text(
            head,
            layer,
            f"{value + 0.0:.2f}".replace("-0.00", "0.00"),
            ha="center",
            va="center",
            fontsize=SMALL,
            color=ink,
        )
    axes.set_xticks(range(recovered.shape[1]))
    axes.set_yticks(range(recovered.shape[0]))
    axes.set_xlabel("cross-attention head")
    axes.set_ylabel("decoder layer")
    axes.set_title("How much of “country” each head brings back")
    return figure


@drawn
def draw_feature(
    colours: Palette, mel: np.ndarray, track: np.ndarray, feature: int, explained: float
) -> Figure:
    figure = Figure(figsize=(TWO_COLUMNS, 3.2), layout="constrained")
    sound, line = figure.subplots(2, 1, sharex=True, height_ratios=(1.3, 1))
    seconds = mel.shape[1] / 100
    sound.imshow(
        mel,
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap=colours.amounts(),
        extent=(0, seconds, 0, len(mel)),
    )
    sound.set_ylabel("mel band")
    sound.set_title(
        f"Feature {feature} of a small transcoder of encoder layer 1 ({explained:.0%} of the variance, held out)"
    )
    line.fill_between(0.02 * np.arange(len(track)), track, color=colours.series[0], step="post")
    line.set_ylim(0)
    line.set_xlabel("seconds")
    line.set_ylabel("activation")
    return figure


@drawn
def draw_graph(colours: Palette, graph: Any, features: int, edges: int) -> Figure:
    nodes, influence = graph.nodes, graph.influence()
    layers = int(max(nodes.layer))
    of_layer = [(nodes.kind == FEATURE) & (nodes.layer == layer) for layer in range(layers)]
    text = (nodes.kind == TOKEN) & (nodes.pos >= 2)  # the prompt is two tokens long
    chosen = set(np.flatnonzero(nodes.kind == TARGET))
    for inside, count in [*((mask, features) for mask in of_layer), (nodes.kind == FRAME, 4), (text, 3)]:
        chosen |= set(sorted(np.flatnonzero(inside), key=lambda i: -influence[i])[:count])
    place = places(nodes, chosen)
    figure, axes = new_figure(TWO_COLUMNS, 3.8)
    strongest = [(abs(w), s, t, w) for s, t, w in edges_between(graph, chosen)]
    for size, source, target, weight in sorted(strongest)[-edges:]:
        (x0, y0), (x1, y1) = place[source], place[target]
        colour = colours.series[0] if weight > 0 else colours.series[1]
        axes.plot(
            [x0, x1],
            [y0, y1],
            color=colour,
            linewidth=0.4 + 2.6 * size / max(strongest)[0],
            alpha=0.6,
            zorder=1,
        )
    for node, (x, y) in place.items():
        feature = nodes.kind[node] == FEATURE
        axes.scatter(
            [x], [y], s=22 if feature else 45, marker="o" if feature else "s", color=colours.ink, zorder=2
        )
        if not feature:
            axes.text(x, y + (0.28 if nodes.kind[node] == TARGET else -0.28), label(graph, node), ha="center",
                      va="bottom" if nodes.kind[node] == TARGET else "top", fontsize=SMALL)  # fmt: skip
    axes.set_yticks(
        [-1, *range(layers), layers], ["sound, words", *(f"layer {i}" for i in range(layers)), "written"]
    )
    axes.set_ylim(-1.9, layers + 0.7)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_title(
        "The strongest of the graph of “country”: blue speaks for it, orange against it", fontsize=MEDIUM
    )
    return figure


def places(nodes: Any, chosen: set[int]) -> dict[int, tuple[float, float]]:
    """Where each node stands: sources below, then a row a layer, the target on top; rows are spread evenly."""
    rows: dict[int, list[int]] = {}
    for node in sorted(chosen, key=lambda i: (nodes.kind[i] != FRAME, nodes.pos[i], nodes.feature[i])):
        rows.setdefault(int(nodes.layer[node]) if nodes.kind[node] in (FEATURE, TARGET) else -1, []).append(
            node
        )
    return {node: ((i + 0.5) / len(row), y) for y, row in rows.items() for i, node in enumerate(row)}


def edges_between(graph: Any, chosen: set[int]) -> list[tuple[int, int, float]]:
    rows = np.repeat(np.arange(len(graph.rest)), np.diff(graph.indptr))
    found = zip(graph.indices, graph.row_nodes[rows], graph.weights, strict=True)
    return [(int(s), int(t), float(w)) for s, t, w in found if s in chosen and t in chosen]


def label(graph: Any, node: int) -> str:
    """What a source is: a word and when it is heard, or a word that stood there before."""
    words = node_words(graph, node).removeprefix("heard ")
    heard = re.fullmatch(r"(.+ s) \((.+)\)", words)
    if heard:
        return f"{heard[2]}\n{heard[1]}"
    return words if graph.nodes.kind[node] == TARGET else f"{words.partition(' (')[0]}\nwritten before"


@drawn
def draw_risk(colours: Palette, risks: list[list[float]], threshold: float, invented: str) -> Figure:
    figure, axes = new_figure(TWO_COLUMNS, 2.6)
    for values, name, colour in zip(risks, ("speech", "the same, backwards"), colours.series, strict=False):
        axes.plot(values, marker="o", color=colour, label=name)
    axes.axhline(threshold, color=colours.muted, linestyle="--", label=f"alarm from {threshold:.2f}")
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("token, from 0")
    axes.set_ylabel("risk")
    axes.legend(loc="center right")
    axes.set_title(plain_text(f"Backwards it writes: {invented}", 78), fontsize=MEDIUM)
    return figure
