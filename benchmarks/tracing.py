"""Attribution graphs beside circuit-tracer 0.5.0: the same nodes and edges, time, memory, and how both grow.

The peer runs in its own environment (`benchmarks/peers`), both read the same checkpoint and the same transcoders. Its 0.5.0 is
Caerii's fork of decoderesearch/circuit-tracer; TransformerLens is its backend. Times are of the graph alone, after loading.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure
from benchmarks.peers.answers import Answer
from benchmarks.peers.workers import Checked, NotInstalledError, Side, not_measured

CLAIM = (
    "Graphs of a random Llama (12 layers of 576, ReLU transcoders of 4,096, about 65 active, 500 feature nodes): the nodes and "
    "edges of circuit-tracer 0.5.0 (1e-4 of a row's largest edge), at least 20 times "
    "faster and at most half its memory at 16, 64 and 256 tokens"
)
LENGTHS, NODES, BATCH, UPDATE, ACTIVE = (16, 64, 256), (125, 250, 500, 1000), 64, 4, 65
FIGURES = (
    *(
        Figure(
            f"Graph of {t} tokens: times faster than circuit-tracer", f"tokens_{t}/times_faster", at_least=20
        )
        for t in LENGTHS
    ),
    Figure(
        "memory of these graphs over circuit-tracer's",
        tuple(f"tokens_{t}/share_of_its_memory" for t in LENGTHS),
        at_most=0.5,
    ),
    Figure("the same nodes as circuit-tracer in all graphs", "same_nodes", at_least=True),
    Figure(
        "largest difference of an edge from circuit-tracer's, over the largest edge of its row",
        "largest_difference",
        at_most=1e-4,
    ),
    Figure("otoscope's own error by that measure, against float64", "largest_error", at_most=1e-4),
    Figure("circuit-tracer's error by that measure, against otoscope in float64", "its_largest_error"),
)
MEASURES = ("largest_difference", "largest_error", "its_largest_error")  # over the largest edge of a row
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "tracing-beside-circuit-tracer.png"
SCRIPTS = {"otoscope": "otoscope_graph.py", "circuit_tracer": "circuit_tracer_graph.py"}


def run() -> dict[str, Any]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            random = _random_llama(root / "llama")
            lengths = {t: _beside(root, random, t, 500) for t in LENGTHS}
            nodes = {n: lengths[16] if n == 500 else _beside(root, random, 16, n) for n in NODES}
            smollm = _smollm(root / "smollm")
            real = _beside(root, smollm, 16, 500)
    except NotInstalledError as error:
        return not_measured(error)
    _draw(lengths, nodes)
    agree = [found["agreement"] or {} for found in (*lengths.values(), *nodes.values(), real)]
    same = all(a.get("same_nodes") for a in agree)
    told = {f"tokens_{t}": found for t, found in lengths.items()}
    told |= {f"nodes_{n}_at_16_tokens": found for n, found in nodes.items() if n != 500}
    return {
        **told,
        "smollm2_135m_at_16_tokens": real,
        "same_nodes": same,
        **{name: max(a[name] for a in agree) if same else None for name in MEASURES},
    }


# One graph, both ways ----------------------------------------------------------------------------------------------------


def _job(root: Path, patient: dict[str, Any], tokens: int, nodes: int) -> dict[str, Any]:
    ids = patient["ids"][:tokens]
    target = _top(patient["model"], ids)
    told = {"ids": ids, "target": target, "nodes": nodes, "batch": BATCH, "update": UPDATE}
    return {**patient, **told, "dtype": "float32", "folder": str(root)}


def _beside(root: Path, patient: dict[str, Any], tokens: int, nodes: int) -> dict[str, Any]:
    job = _job(root, patient, tokens, nodes)
    ours: list[Checked] = []
    theirs: list[Checked] = []
    failed = None
    for i in range(3 if tokens <= 64 else 1):
        ours.append(_graph("otoscope", job))
        if failed is None and (i == 0 or (tokens <= 16 and nodes == 500)):
            try:
                theirs.append(_graph("circuit_tracer", job))
            except RuntimeError as error:
                failed = str(error).splitlines()[-1][:300]
    seconds, gb = _medians(ours)
    told: dict[str, Any] = {
        "active_features": int(ours[0].answer["active"]),
        "seconds": round(seconds, 2),
        "gb": round(gb, 3),
        "circuit_tracer_seconds": None,
        "circuit_tracer_gb": None,
        "times_faster": None,
        "share_of_its_memory": None,
        "agreement": None,
    }
    if failed:
        return told | {"circuit_tracer_failed": failed}
    its_seconds, its_gb = _medians(theirs)
    return told | {
        "circuit_tracer_seconds": round(its_seconds, 2),
        "circuit_tracer_gb": round(its_gb, 3),
        "times_faster": round(its_seconds / seconds, 1),
        "share_of_its_memory": round(gb / its_gb, 3),
        "agreement": _agreement(ours[-1].answer, theirs[-1].answer, tokens, job),
    }


def _graph(side: str, job: dict[str, Any]) -> Checked:
    """One graph in a process that has made none before."""
    with Side(side, SCRIPTS[side], job) as process:
        return process.check("graph")


def _medians(runs: list[Checked]) -> tuple[float, float]:
    """Seconds, and GB above the loaded model."""
    return statistics.median(run.seconds for run in runs), statistics.median(run.gb for run in runs)


def _agreement(ours: Answer, theirs: Answer, tokens: int, job: dict[str, Any]) -> dict[str, Any]:
    """Edges of both over the same nodes, and those of otoscope in float64: differences over the largest edge of the row."""
    exact = _graph("otoscope", {**job, "dtype": "float64"}).answer
    order = [tuple(f) for f in theirs["features"].tolist()]
    same = set(order) == {tuple(f) for f in ours["features"].tolist()}
    if not same:
        return {"same_nodes": False}
    y = theirs["matrix"][[*range(len(order)), -1]].astype(float)
    x, z = (_in_order(m, order, y.shape[1], tokens) for m in (ours, exact))
    largest = np.abs(z).max(axis=1, keepdims=True)
    found = dict(zip(MEASURES, (np.abs(pair) / largest for pair in (x - y, x - z, y - z)), strict=True))
    return {
        "same_nodes": True,
        "edges": int((z != 0).sum()),
        **{name: float(of.max()) for name, of in found.items()},
        **{f"{name}_of_a_row_median": float(np.median(of.max(axis=1))) for name, of in found.items()},
    }


def _in_order(told: Answer, order: list[tuple[int, ...]], columns: int, tokens: int) -> np.ndarray:
    """Our matrix with circuit-tracer's rows and columns: features, errors by layer and position, tokens, the target."""
    from scipy.sparse import csr_matrix

    from otoscope.circuits.graph import ERROR, TOKEN

    place = {tuple(f): i for i, f in enumerate(told["features"].tolist())}
    rows = [place[f] for f in order]
    shape = (len(told["indptr"]) - 1, len(told["kind"]))
    edges = csr_matrix((told["weights"], told["indices"], told["indptr"]), shape=shape)
    dense = edges[[*rows, -1]].toarray().astype(float)
    out = np.zeros((len(order) + 1, columns))
    layers = (columns - len(order) - 1) // tokens - 1
    for column, (kind, layer, pos) in enumerate(zip(told["kind"], told["layer"], told["pos"], strict=True)):
        if kind == ERROR:
            out[:, len(order) + layer * tokens + pos] = dense[:, column]
        elif kind == TOKEN:
            out[:, len(order) + layers * tokens + pos] = dense[:, column]
    out[:, : len(order)] = dense[:, rows]
    return out


# What is traced ----------------------------------------------------------------------------------------------------------


def _random_llama(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=576, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, rms_norm_eps=1e-5, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0, initializer_range=0.06,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    _add_tokenizer(folder / "model")
    ids = [0, *np.random.default_rng(0).integers(20, 8192, 255).tolist()]
    return _with_transcoders(folder, folder / "model", ids, 4096)


def _smollm(folder: Path) -> dict[str, Any]:
    from otoscope.models.loading import load_model

    model = load_model("smollm2-135m")
    model.hf.save_pretrained(folder / "model")
    _add_tokenizer(folder / "model")
    text = "The museum was built in the nineteenth century by an architect who had studied in Florence and"
    return _with_transcoders(folder, folder / "model", [0, *model.tokenizer(text)["input_ids"]], 4096)


def _add_tokenizer(folder: Path) -> None:
    from otoscope.models.loading import load_model

    load_model("smollm2-135m").tokenizer.save_pretrained(folder)


def _with_transcoders(folder: Path, model: Path, ids: list[int], width: int) -> dict[str, Any]:
    """Random ReLU transcoders whose biases let about 65 features be active at a position, in circuit-tracer's format."""
    import torch
    from safetensors.torch import save_file

    from otoscope.models.loading import load_model

    _tell_old_readers(model)
    patient = load_model(str(model))
    torch.manual_seed(1)
    with torch.no_grad():
        _, cache = patient.run_with_cache(
            patient.inputs(torch.tensor([ids[:64]])), ["*.ln2.hook_out", "*.hook_mlp_out"]
        )
    d = int(patient.config.hidden_size)
    place = folder / "transcoders"
    place.mkdir()
    for layer in range(int(patient.config.num_hidden_layers)):
        x, y = cache[f"blocks.{layer}.ln2.hook_out"][0, 1:], cache[f"blocks.{layer}.hook_mlp_out"][0, 1:]
        encoder = torch.randn(width, d) / x.norm(dim=1).mean()
        bias = -torch.quantile((x @ encoder.T).flatten()[:: max(1, x.shape[0] // 8)], 1 - ACTIVE / width)
        decoder = torch.randn(width, d) * (0.3 * y.norm(dim=1).mean() / d**0.5 / ACTIVE**0.5)
        weights = {
            "W_enc": encoder,
            "W_dec": decoder,
            "b_enc": torch.full((width,), float(bias)),
            "b_dec": y.mean(dim=0),
        }
        save_file({k: v.contiguous() for k, v in weights.items()}, place / f"layer_{layer}.safetensors")
    (place / "config.yaml").write_text(
        "model_name: benchmark\nmodel_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out\n"
    )
    return {"model": str(model), "tokenizer": str(model), "transcoders": str(place), "ids": ids}


def _tell_old_readers(model: Path) -> None:
    """Transformers 4 looks for `rope_theta` and `torch_dtype` at the top."""
    path = model / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = (config.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    path.write_text(json.dumps(config))


def _top(model: str, ids: list[int]) -> int:
    import torch

    from otoscope.models.loading import load_model

    patient = load_model(model)
    with torch.no_grad():
        return int(patient.forward(patient.inputs(torch.tensor([ids]))).logits[0, -1].argmax())


# The figure --------------------------------------------------------------------------------------------------------------


def _draw(lengths: dict[int, dict[str, Any]], nodes: dict[int, dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    figure, axes = plt.subplots(2, 2, figsize=(8, 6), sharex="col", layout="constrained")
    for column, (found, label) in enumerate(
        ((lengths, "tokens (500 feature nodes)"), (nodes, "feature nodes (16 tokens)"))
    ):
        for row, (ours, theirs, unit) in enumerate(
            (
                ("seconds", "circuit_tracer_seconds", "seconds"),
                ("gb", "circuit_tracer_gb", "GB above the loaded model"),
            )
        ):
            axis = axes[row, column]
            for key, name, style in ((ours, "otoscope", "o-"), (theirs, "circuit-tracer 0.5.0", "s--")):
                there = [(x, f[key]) for x, f in found.items() if f[key] is not None]
                axis.plot(*zip(*there, strict=True), style, label=name) if there else None
            axis.set(xscale="log", yscale="log", ylabel=unit)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_xticks(list(found), [str(x) for x in found])
            axis.minorticks_off() if row == 0 else axis.xaxis.set_minor_locator(NullLocator())
            if row:
                axis.set_xlabel(label)
    axes[0, 0].legend(frameon=False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=120)
