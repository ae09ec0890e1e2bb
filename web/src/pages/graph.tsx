/** One attribution graph, or two beside each other. */

import "../css/graph.css";
import { useCallback } from "preact/hooks";
import type { Annotations, GraphDoc } from "../contract.ts";
import { howOf } from "../model/experiment.ts";
import { Foot } from "../panels/about.tsx";
import { useKeeping } from "../panels/keeping.tsx";
import { shortened } from "../model/numbers.ts";
import { Experiment } from "../panels/experiment.tsx";
import { ChangePanel } from "../panels/intervene.tsx";
import { GraphPanel, type GraphPanelProps } from "../panels/graph/panel.tsx";

export function GraphPage({ doc }: { doc: GraphDoc }) {
  const [keepFirst, trouble] = useKeeping("graph");
  const [keepOther, otherTrouble] = useKeeping("other");
  const keep = useCallback((annotations: Annotations, which: 0 | 1) => (which ? keepOther : keepFirst)?.(annotations), [keepFirst, keepOther]);
  // What can be changed and heard again is a recording, by a recogniser.
  const page = <Shown doc={doc} keep={keepFirst && keep} trouble={trouble ?? otherTrouble} />;
  return doc.sound && doc.graph.streams.some(({ name }) => name === "decoder") ? <Experiment>{page}</Experiment> : page;
}

interface ShownProps {
  doc: GraphDoc;
  keep: GraphPanelProps["onAnnotations"];
  trouble: ReturnType<typeof useKeeping>[1];
}

function Shown({ doc, keep, trouble }: ShownProps) {
  return (
    <main class="graph-page">
      <header>
        <h1>
          <bdi>{shortened(doc.title, 200)}</bdi>
        </h1>
      </header>
      {trouble}
      <h2 class="unseen">Attribution graph</h2>
      <GraphPanel graph={doc.graph} sound={doc.sound} other={doc.other} otherSound={doc.other_sound} resources={doc.resources} onAnnotations={keep} addressed />
      {doc.sound && <ChangePanel model={doc.graph.model} file={doc.sound.audio.file} how={howOf({ audio: doc.sound.audio, settings: doc.settings })} />}
      <Foot doc={{ ...doc, model: doc.graph.model }} />
    </main>
  );
}
