/** One attribution graph, or two beside each other. */

import "../css/graph.css";
import { useCallback } from "preact/hooks";
import type { Annotations, GraphDoc } from "../contract.ts";
import { type Given, type How, howOf } from "../model/lines.ts";
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
  const page = <Shown doc={doc} keep={keepFirst && keep} trouble={trouble ?? otherTrouble} />;
  return givenBy(doc) ? <Experiment>{page}</Experiment> : page;
}

/** What can be changed and written again: a recording, by a recogniser, or a prompt, by a language model. */
function givenBy({ graph, sound }: GraphDoc): Given | undefined {
  const has = (stack: string) => graph.streams.some(({ name }) => name === stack);
  if (sound) return has("decoder") ? { of: "recording", text: sound.audio.file } : undefined;
  return has("text") && graph.streams.length === 1 ? { of: "prompt", text: graph.text } : undefined;
}

interface ShownProps {
  doc: GraphDoc;
  keep: GraphPanelProps["onAnnotations"];
  trouble: ReturnType<typeof useKeeping>[1];
}

function Shown({ doc, keep, trouble }: ShownProps) {
  const given = givenBy(doc);
  const how: How = doc.sound ? howOf({ audio: doc.sound.audio, settings: doc.settings }) : {};
  return (
    <main class="graph-page">
      <header>
        <h1>
          <bdi>{shortened(doc.title, 200)}</bdi>
        </h1>
      </header>
      {trouble}
      <h2 class="unseen">Attribution graph</h2>
      <GraphPanel graph={doc.graph} sound={doc.sound} other={doc.other} otherSound={doc.other_sound} resources={doc.resources} onAnnotations={keep} addressed place="graph" />
      {given && <ChangePanel model={doc.graph.model} given={given} how={how} />}
      <Foot doc={{ ...doc, model: doc.graph.model }} />
    </main>
  );
}
