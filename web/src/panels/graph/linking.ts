/** Ties what the pointer is on in a graph to what it is on elsewhere on the page, both ways. */

import { useEffect } from "preact/hooks";
import type { Linked } from "../../linked.ts";
import type { Graph } from "../../model/graph.ts";
import { meantBy, nodeMeant } from "../../model/graph-linking.ts";
import type { Watched } from "../../model/store.ts";

export function useLinking(linked: Linked | undefined, graph: Graph, shown: Uint8Array, hovered: Watched<number>): void {
  useEffect(() => {
    if (!linked) return undefined;
    let telling = false; // one side does not answer what it has just been told
    const tell = (what: () => void) => {
      if (telling) return;
      telling = true;
      what();
      telling = false;
    };
    const away = hovered.follow((node) =>
      tell(() => {
        if (node < 0) return linked.nothing();
        const meant = meantBy(graph, node);
        return meant.time === undefined ? linked.mean(meant) : linked.at(meant.time, meant.feature);
      }),
    );
    const back = linked.follow((meant) => tell(() => hovered.set(nodeMeant(graph, shown, meant))));
    return () => {
      away();
      back();
    };
  }, [linked, graph, shown, hovered]);
}
