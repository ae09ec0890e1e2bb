"""otoscope at what `circuit_tracer_graph.py` does."""

import numpy as np
import torch
from turns import serve

from otoscope.circuits.graph import FEATURE
from otoscope.circuits.tracer import Tracer, TraceSettings
from otoscope.dictionaries.loading import load_dictionary
from otoscope.models.loading import load_model


def load(job):
    model = load_model(job["model"], dtype=job["dtype"])
    dictionary = load_dictionary(job["transcoders"], model)
    for layer in range(dictionary.layers):
        dictionary.decoder(layer, layer, None)  # as the other side, which loads all before it begins
    rows = job["update"] * job["batch"]
    settings = TraceSettings(nodes=job["nodes"], update=rows, conventions="circuit-tracer")

    def graph():
        found = Tracer(model, torch.tensor(job["ids"]), dictionary, settings).graph(job["target"])
        n, features = found.nodes, found.nodes.of(FEATURE)
        return {
            "features": np.stack([n.layer[features], n.pos[features], n.feature[features]], axis=1),
            "indptr": found.indptr,
            "indices": found.indices,
            "weights": found.weights,
            "kind": n.kind,
            "layer": n.layer,
            "pos": n.pos,
            "active": found.record["active_features"],
        }

    return {"graph": graph}


serve(load)
