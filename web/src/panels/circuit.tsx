/** The circuit of the chosen token, where one was traced. */

import "../css/graph.css";
import { useCallback } from "preact/hooks";
import type { Annotations, Circuit, ExplainDoc } from "../contract.ts";
import type { Linked } from "../linked.ts";
import { explainLine, howOf } from "../model/lines.ts";
import { GraphPanel } from "./graph/panel.tsx";
import { Panel, type PanelProps, Quoted } from "./common.tsx";
import { useKeeping } from "./keeping.tsx";

const WHY: Record<Circuit["why"], string> = {
  alarm: "it is in alarm",
  "asked for": "it was asked for",
  "least certain": "it is among the least certain",
};

export function CircuitPanel({ doc, token, select, linked }: PanelProps & { linked: Linked }) {
  const circuit = doc.circuits.find((one) => one.token === token);
  const others = doc.circuits.filter((one) => one !== circuit);
  if (doc.circuits.length === 0 && !doc.transcript.tokens[token]) return null;
  return (
    <Panel
      name="circuit"
      title="Circuit"
      lead="Which sounds, words and features supplied the token’s logit, and through which others: a graph of this one run, with attention and gates as they were."
    >
      {circuit ? <Shown key={token} doc={doc} circuit={circuit} linked={linked} /> : <NotTraced doc={doc} token={token} />}
      {others.length > 0 && (
        <p class="note">
          {circuit ? "Traced, too: " : "Traced: "}
          {others.map((one) => (
            <button key={one.token} type="button" class="link" data-token={one.token} onClick={() => select(one.token)}>
              <Quoted text={doc.transcript.tokens[one.token]?.text ?? ""} />
            </button>
          ))}
        </p>
      )}
    </Panel>
  );
}

function Shown({ doc, circuit, linked }: { doc: ExplainDoc; circuit: Circuit; linked: Linked }) {
  const { graph } = circuit;
  const place = `circuits/${doc.circuits.indexOf(circuit)}/graph`;
  const [keep, trouble] = useKeeping(place);
  // Another token's circuit may take this one's place: what is written stays with the document, on every host.
  const remember = useCallback(
    (annotations: Annotations) => {
      graph.annotations = annotations;
      keep?.(annotations);
    },
    [graph, keep],
  );
  return (
    <>
      <p class="note">
        Traced because {WHY[circuit.why]}: {graph.left_out.shown_features} of {graph.left_out.active_features} active features
        are shown, {graph.left_out.shown_edges} of {graph.left_out.traced_edges} edges.
      </p>
      {trouble}
      <GraphPanel graph={graph} sound={doc} resources={doc.resources} story={false} place={place} linked={linked} onAnnotations={remember} />
      <details>
        <summary>The circuit in words</summary>
        <pre class="in-words">
          <bdi>{graph.summary.join("\n")}</bdi>
        </pre>
      </details>
    </>
  );
}

function NotTraced({ doc, token }: { doc: ExplainDoc; token: number }) {
  return (
    <p class="note">
      This token’s circuit was not traced. This does it:{" "}
      <code>
        <bdi dir="ltr">{explainLine(doc.model.name, doc.audio.file, token, howOf(doc))}</bdi>
      </code>
    </p>
  );
}
