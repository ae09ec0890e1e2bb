/** The chosen node: its name, which can be edited, what it is, and what is known of its feature. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { GraphData, GraphFeature, GraphNode } from "../../contract.ts";
import { type Change, type Dictionaries, mayJoin } from "../../model/experiment.ts";
import { changeOf } from "../../model/graph_changes.ts";
import { called, placeOf } from "../../model/graph.ts";
import { change, shortened } from "../../model/numbers.ts";
import { Histogram, Moments, Tokens } from "../feature.tsx";
import { useExperiment } from "../experiment.tsx";
import { type GraphProps, NodeName } from "./shared.tsx";

const LONGEST = 200; // characters of a name

export function ChosenNode(props: GraphProps) {
  const { graph, chosen, view, pin, play } = props;
  const node = graph.node(chosen);
  const pinned = view.annotations.pins.includes(node.id);
  const plays = play && node.start !== undefined;
  return (
    <section class="chosen-node" aria-label="Chosen node" data-testid="chosen-node">
      <Name {...props} key={node.id} />
      <p class="where">{placeOf(graph, chosen)}</p>
      <p class="actions">
        <button type="button" aria-pressed={pinned} onClick={() => pin(chosen)}>
          {pinned ? "Unpin" : "Pin"}
        </button>
        {plays && (
          <button type="button" onClick={() => play(chosen)}>
            ▶ Play its sound
          </button>
        )}
        <TakeAway {...props} />
      </p>
      <p class="note">
        {facts(node).join("; ")}
      </p>
      {node.kind === "feature" && <Feature {...props} />}
    </section>
  );
}

function facts(node: GraphNode): string[] {
  const told = node.kind === "target" ? [] : [`${(100 * node.influence).toPrecision(2)} % of the influence passes through it`];
  if (node.activation !== undefined) told.push(`activation ${node.activation.toPrecision(3)}`);
  if (node.inputs && node.kind === "target") told.push(`what it is given sums to ${change(node.inputs.value)} logits`);
  return told;
}

/** Puts the feature, or all features of its supernode, into the list of changes of the page: taken away, or doubled. */
function TakeAway({ graph, chosen, view }: GraphProps) {
  const experiment = useExperiment();
  const own = changeOf(graph.node(chosen));
  if (!experiment || !own) return null;
  const supernode = view.annotations.supernodes.find(({ nodes }) => nodes.includes(graph.node(chosen).id));
  const group = (factor: number) => (supernode?.nodes ?? []).flatMap((id) => changeOf(graph.data.nodes.find((node) => node.id === id), factor) ?? []);
  const size = group(0).length;
  const offer = (changes: Change[], said: string) => {
    const dictionaries = dictionariesOf(graph.data, changes);
    if (!dictionaries) return null;
    const fits = mayJoin(experiment.wanted, dictionaries);
    const taken = fits && changes.every((change) => experiment.has(change));
    const toggle = () => (taken ? experiment.remove(changes) : experiment.add(changes, dictionaries));
    const title = fits ? "Into the list of changes below" : "The list of changes below holds features of another dictionary. Take them back first";
    return (
      <button type="button" aria-pressed={taken} disabled={!fits} title={title} onClick={toggle}>
        {said}
      </button>
    );
  };
  return (
    <>
      {offer([own], "Take it away")}
      {offer([changeOf(graph.node(chosen), 2) ?? own], "Double it")}
      {size > 1 && offer(group(0), `Take its group of ${size} away`)}
      {size > 1 && offer(group(2), "Double its group")}
    </>
  );
}

/** Where the changed features come from; undefined where the page does not know a folder that could be loaded. */
function dictionariesOf(data: GraphData, changes: Change[]): Dictionaries | undefined {
  const of = (stack: string, folder: string | undefined) => (changes.some(({ text }) => text.startsWith(`${stack}:`)) ? [folder] : []);
  const own = ["decoder", "text"].flatMap((stack) => of(stack, data.dictionary_folder));
  const heard = of("encoder", data.encoder_dictionary_folder);
  if ([...own, ...heard].includes(undefined)) return undefined;
  return { ...(own[0] && { dictionary: own[0] }), ...(heard[0] && { encoder_dictionary: heard[0] }) };
}

function Name({ graph, chosen, view, annotate }: GraphProps) {
  const node = graph.node(chosen);
  const [editing, setEditing] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const named = Object.hasOwn(view.annotations.labels, node.id);
  useEffect(() => {
    if (editing) input.current?.select();
  }, [editing]);
  const save = (text: string) => {
    const wanted = text.trim().slice(0, LONGEST);
    setEditing(false);
    annotate((now) => {
      const { [node.id]: _, ...labels } = now.labels;
      return { ...now, labels: wanted && wanted !== node.label ? { ...labels, [node.id]: wanted } : labels };
    });
  };
  return (
    <>
      {editing ? (
        // No form: the frame of a notebook lets none be sent.
        <div class="naming">
          <input
            ref={input}
            aria-label="Name of the node"
            maxLength={LONGEST}
            defaultValue={called(node, view.annotations)}
            onKeyDown={(event) => {
              if (event.key === "Escape") setEditing(false);
              if (event.key === "Enter") save(event.currentTarget.value);
            }}
          />
          <button type="button" onClick={() => save(input.current?.value ?? "")}>
            Keep
          </button>
        </div>
      ) : (
        <h3>
          <NodeName graph={graph} node={chosen} annotations={view.annotations} length={90} />{" "}
          <button type="button" class="link" onClick={() => setEditing(true)}>
            Rename
          </button>
        </h3>
      )}
      {named && (
        <p class="note">
          By rule: <bdi title={shortened(node.label, 400)}>{shortened(node.label, 90)}</bdi>
        </p>
      )}
    </>
  );
}

function Feature({ graph, chosen, resources }: GraphProps) {
  const node = graph.node(chosen);
  const known = graph.data.features.find((f) => f.stream === node.stream && f.layer === node.layer && f.feature === node.feature);
  if (!known) return <p class="note">Nothing else is known of this feature. Examples can be collected with “otoscope features examples”.</p>;
  return (
    <div class="graph-feature">
      <Tokens title="Writes" tokens={known.promotes} />
      <Tokens title="Writes less" tokens={known.suppresses} />
      {known.about && <About known={known} activation={node.activation} resources={resources} key={node.id} />}
    </div>
  );
}

function About({ known, activation, resources }: { known: GraphFeature; activation: number | undefined; resources: GraphProps["resources"] }) {
  const about = known.about!;
  return (
    <>
      <p class="note">
        On at {(100 * about.density).toPrecision(2)} % of the places of its examples; at most {about.max.toPrecision(3)}.
      </p>
      <Histogram feature={about} at={activation} />
      <Moments resources={resources} feature={about} />
    </>
  );
}
