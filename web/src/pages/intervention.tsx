/** One intervention and what came of it, on a page of its own. */

import type { Outcome } from "../contract.ts";
import { changesOf, inWords } from "../model/experiment.ts";
import { shortened } from "../model/numbers.ts";
import { Lines } from "../panels/lines.tsx";
import { OutcomeView } from "../panels/outcome.tsx";
import "../css/intervene.css";

export function InterventionPage({ doc }: { doc: Outcome }) {
  return (
    <main>
      <header>
        <p class="title">
          <bdi title={doc.title}>{shortened(doc.title, 200)}</bdi>
        </p>
        <h1>
          <bdi>{shortened(changesOf(doc.intervention).map(inWords).join("; "), 300) || "Nothing was changed"}</bdi>
        </h1>
      </header>
      <section class="panel" data-testid="outcome" aria-labelledby="came-of-it">
        <h2 id="came-of-it" class="unseen">
          What came of it
        </h2>
        <OutcomeView outcome={doc} />
      </section>
      <Lines python={doc.python} command={doc.command} />
    </main>
  );
}
