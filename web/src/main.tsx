/** The page: finds out where it is shown, asks for its document, and draws it by its kind. */

import "./css/page.css";
import { render } from "preact";
import type { Doc, Host } from "./host.ts";
import { HostContext } from "./host.ts";
import { hostOfThisPage } from "./hosts/choose.ts";
import { shortened } from "./model/numbers.ts";
import { CurvePage } from "./pages/curve.tsx";
import { ExplainPage } from "./pages/explain.tsx";
import { FeaturesPage } from "./pages/features.tsx";
import { GraphPage } from "./pages/graph.tsx";
import { InterventionPage } from "./pages/intervention.tsx";
import { LensPage } from "./pages/lens.tsx";
import { servedPage } from "./pages/served.tsx";
import { SweepPage } from "./pages/sweep.tsx";
import { SourceContext, sourceOf } from "./panels/figure.tsx";
import { oneSoundAtATime } from "./panels/player.ts";
import { PersonsNote, RunBar } from "./panels/runs/bar.tsx";

function PageOf({ doc }: { doc: Doc }) {
  switch (doc.kind) {
    case "explain":
      return <ExplainPage doc={doc} />;
    case "features":
      return <FeaturesPage doc={doc} />;
    case "intervention":
      return <InterventionPage doc={doc} />;
    case "graph":
      return <GraphPage doc={doc} />;
    case "curve":
      return <CurvePage doc={doc} />;
    case "lens":
      return <LensPage doc={doc} />;
    case "sweep":
      return <SweepPage doc={doc} />;
    default:
      throw new Error("This page cannot show that kind of document.");
  }
}

/** What stands above a document: on a server's own page of it a bar, elsewhere what a person noted on it. */
function Above({ doc, host }: { doc: Doc; host: Host }) {
  const whole = host.kind === "server" && location.pathname.startsWith("/run/");
  return whole ? <RunBar doc={doc} /> : <PersonsNote note={doc.note} />;
}

async function shown(host: Host) {
  const own = host.kind === "server" ? await servedPage(location.pathname) : undefined;
  if (own) return own;
  const doc = await host.document();
  if (doc.version !== 1) throw new Error("This page cannot show that version of the document.");
  if (host.kind === "server") document.title = `${shortened(doc.title, 100)} · otoscope`;
  return (
    <>
      <Above doc={doc} host={host} />
      <SourceContext.Provider value={sourceOf(doc)}>
        <PageOf doc={doc} />
      </SourceContext.Provider>
    </>
  );
}

const place = document.getElementById("page") as HTMLElement;
try {
  const host = hostOfThisPage();
  const page = await shown(host);
  oneSoundAtATime();
  place.replaceChildren();
  render(<HostContext.Provider value={host}>{page}</HostContext.Provider>, place);
} catch (error) {
  place.textContent = `This page cannot be shown. ${error instanceof Error ? error.message : ""}`;
}
