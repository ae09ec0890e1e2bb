/** How to read the numbers, what the page does not show, and how long it took. */

import type { ExplainDoc } from "../contract.ts";
import { shortened } from "../model/numbers.ts";
import { Notes } from "./about.tsx";
import { Sentence } from "./common.tsx";

export function Footer({ doc }: { doc: ExplainDoc }) {
  const total = doc.timings.reduce((sum, timing) => sum + timing.seconds, 0);
  return (
    <footer>
      {doc.left_out.length > 0 && (
        <section data-testid="left-out">
          <h2>What this leaves out</h2>
          <ul>
            {doc.left_out.map((line, i) => (
              <li key={i}>
                <Sentence text={shortened(line, 1000)} />
              </li>
            ))}
          </ul>
        </section>
      )}
      <Notes notes={doc.notes}>
        <li>Tokens, layers, heads and ranks are numbered from 0; so are positions in a circuit, which count the tokens of the prompt, too. Rank 0 is the most probable token.</li>
        <li>Log-probabilities, their changes and entropies are in nats; times are seconds from the start of the sound shown.</li>
      </Notes>
      {doc.timings.length > 0 && (
        <details>
          <summary>Made in {total.toFixed(1)} s</summary>
          <dl class="timings">
            {doc.timings.map(({ stage, seconds }, i) => (
              <div key={i}>
                <dt>
                  <bdi>{stage}</bdi>
                </dt>
                <dd>{seconds.toFixed(2)} s</dd>
              </div>
            ))}
          </dl>
        </details>
      )}
    </footer>
  );
}
