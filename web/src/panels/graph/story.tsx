/** What made the word, before any picture: the account in logits, and the sounds and words that speak most for it, to be heard. */

import type { Account, GraphData, GraphTarget } from "../../contract.ts";
import { SOURCES } from "../../model/accounts.ts";
import { change, probability, shortened, visible } from "../../model/numbers.ts";
import type { GraphProps } from "./shared.tsx";

const MOST = 4;

export function Story(props: GraphProps) {
  const { graph, choose } = props;
  const { data } = graph;
  const target = data.targets.find((one) => one.node === props.target)!;
  return (
    <div class="graph-story" data-testid="story">
      {data.targets.length > 1 && (
        <p class="actions" role="group" aria-label="Explained words">
          {data.targets.map((one) => (
            <button key={one.node} type="button" aria-pressed={one === target} onClick={() => choose(one.node)}>
              <bdi>{shortened(visible(one.text), 24)}</bdi>
            </button>
          ))}
        </p>
      )}
      <p class="said">
        <Written data={data} target={target} />
      </p>
      {target.account ? <Accounted {...props} told={target} account={target.account} /> : <Direct {...props} />}
    </div>
  );
}

/** The text up to the word, and the word. */
function Written({ data, target }: { data: GraphData; target: GraphTarget }) {
  const before = data.tokens.filter((token, i) => !token.prompt && i <= target.position).map(({ text }) => text);
  return (
    <>
      <bdi>{shortened(before.join("").trim(), 300)}</bdi>{" "}
      <mark>
        <bdi>{shortened(target.text.trim() || visible(target.text), 60)}</bdi>
      </mark>
      {target.p !== undefined && <small title="among all tokens of the vocabulary"> p = {probability(target.p)} among all tokens</small>}
    </>
  );
}

function Accounted(props: GraphProps & { told: GraphTarget; account: Account }) {
  const { graph, account } = props;
  const { data } = graph;
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  const prompt = data.tokens.map((token) => token.prompt);
  const parts = [
    { name: SOURCES.sound, part: sum(account.sound) },
    { name: SOURCES.text, part: sum(account.tokens.filter((_, i) => !prompt[i])) },
    { name: SOURCES.prompt, part: sum(account.tokens.filter((_, i) => prompt[i])) },
    { name: SOURCES.anyCase, part: account.biases + account.positions, hint: "there whatever is heard" },
    { name: SOURCES.errors, part: account.errors },
  ].filter(({ part }) => Math.abs(part) > 0.005);
  const reach = Math.max(...parts.map(({ part }) => Math.abs(part)), 1e-9);
  return (
    <div class="account">
      <div>
        <h3>Where its {change(account.value)} logits come from</h3>
        <dl data-testid="account">
          {parts.map(({ name, part, hint }) => (
            <div key={name} title={hint}>
              <dt>{name}</dt>
              <dd>
                <span class={part < 0 ? "bar falls" : "bar"} style={{ width: `${(7 * Math.abs(part)) / reach}rem` }} />
                {change(part)}
              </dd>
            </div>
          ))}
        </dl>
        <p class="note">Every path counted; the parts sum to the logit, over the mean of the vocabulary{props.told.against !== undefined && " or over the other word"}.</p>
      </div>
      {account.sound.length > 0 && <Sounds {...props} />}
      <Words {...props} />
    </div>
  );
}

/** The segments that say most for or against it, as buttons that play them. */
function Sounds({ graph, account, choose, play, hovered }: GraphProps & { account: Account }) {
  const { segments } = graph.data;
  const order = account.sound.map((_, i) => i).sort((a, b) => Math.abs(account.sound[b]!) - Math.abs(account.sound[a]!)).slice(0, MOST);
  const nodeOf = (segment: number) => graph.data.nodes.findIndex((node) => node.kind === "frame" && node.segment === segment);
  return (
    <div>
      <h3>The sound that made it</h3>
      <ul class="evidence">
        {order.map((i) => {
          const segment = segments[i]!;
          const node = nodeOf(i);
          const part = account.sound[i] as number;
          const by = account.heads.filter(([, , at]) => at === i).slice(0, 2);
          return (
            <li key={i}>
              <button
                type="button"
                disabled={node < 0}
                onClick={() => {
                  choose(node);
                  if (segment.kind !== "padding") play?.(node);
                }}
                onPointerEnter={() => hovered.set(node)}
                onPointerLeave={() => hovered.set(-1)}
              >
                <span class="play">{segment.kind === "padding" ? "" : "▶"}</span>
                <span class="what">
                  <bdi>{segment.kind === "word" ? `“${shortened(segment.label, 30)}”` : segment.kind === "pause" ? "between words" : segment.kind === "padding" ? "the padding" : "sound"}</bdi>
                  <small>
                    {segment.start.toFixed(2)}–{segment.end.toFixed(2)} s
                    {by.length > 0 && `, by ${by.map(([layer, head]) => `L${layer}H${head}`).join(" and ")}`}
                  </small>
                </span>
                <span class={part < 0 ? "share falls" : "share"}>{change(part)}</span>
              </button>
            </li>
          );
        })}
      </ul>
    </div>
  );
}

function Words({ graph, account, choose, hovered }: GraphProps & { account: Account }) {
  const { tokens } = graph.data;
  const order = account.tokens.map((_, i) => i).filter((i) => !tokens[i]!.prompt && Math.abs(account.tokens[i]!) > 0.005);
  order.sort((a, b) => Math.abs(account.tokens[b]!) - Math.abs(account.tokens[a]!));
  if (order.length === 0) return null;
  return (
    <div>
      <h3>The words before that made it</h3>
      <ul class="evidence">
        {order.slice(0, MOST).map((i) => {
          const node = graph.data.nodes.findIndex((one) => one.kind === "token" && one.position === i);
          const part = account.tokens[i] as number;
          return (
            <li key={i}>
              <button type="button" disabled={node < 0} onClick={() => choose(node)} onPointerEnter={() => hovered.set(node)} onPointerLeave={() => hovered.set(-1)}>
                <span class="what">
                  <q>
                    <bdi>{shortened(tokens[i]!.text.trim() || visible(tokens[i]!.text), 30)}</bdi>
                  </q>
                  <small>token {i}</small>
                </span>
                <span class={part < 0 ? "share falls" : "share"}>{change(part)}</span>
              </button>
            </li>
          );
        })}
      </ul>
    </div>
  );
}

/** Where there is no account: the words through which most influence comes. */
function Direct({ graph, choose, hovered }: GraphProps) {
  const tokens = graph.data.nodes.map((node, i) => ({ node, i })).filter(({ node }) => node.kind === "token");
  tokens.sort((a, b) => b.node.influence - a.node.influence);
  return (
    <div class="account">
      <div>
        <h3>The words it comes from</h3>
        <ul class="evidence">
          {tokens.slice(0, MOST + 1).map(({ node, i }) => (
            <li key={i}>
              <button type="button" onClick={() => choose(i)} onPointerEnter={() => hovered.set(i)} onPointerLeave={() => hovered.set(-1)}>
                <span class="what">
                  <q>
                    <bdi>{shortened(node.label.trim() || visible(node.label), 30)}</bdi>
                  </q>
                  <small>token {node.position}</small>
                </span>
                <span class="share">{(100 * node.influence).toPrecision(2)} %</span>
              </button>
            </li>
          ))}
        </ul>
        <p class="note">
          Share of the influence on the word that ends in each, all paths in the graph counted: together{" "}
          {(100 * tokens.reduce((sum, { node }) => sum + node.influence, 0)).toPrecision(2)} %. The rest ends elsewhere, or in features that
          are no nodes of this graph.
        </p>
      </div>
    </div>
  );
}
