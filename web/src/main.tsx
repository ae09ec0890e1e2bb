/** The page: finds out where it is shown, asks for its document, and draws it by its kind. */

import "./css/page.css";
import { render } from "preact";
import type { Doc } from "./host.ts";
import { HostContext } from "./host.ts";
import { hostOfThisPage } from "./hosts/choose.ts";
import { CurvePage } from "./pages/curve.tsx";
import { ExplainPage } from "./pages/explain.tsx";
import { FeaturesPage } from "./pages/features.tsx";
import { LensPage } from "./pages/lens.tsx";
import { SweepPage } from "./pages/sweep.tsx";
import { SourceContext, sourceOf } from "./panels/figure.tsx";

function PageOf({ doc }: { doc: Doc }) {
  switch (doc.kind) {
    case "explain":
      return <ExplainPage doc={doc} />;
    case "features":
      return <FeaturesPage doc={doc} />;
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

const place = document.getElementById("page") as HTMLElement;
try {
  const host = hostOfThisPage();
  const doc = await host.document();
  if (doc.version !== 1) throw new Error("This page cannot show that version of the document.");
  place.replaceChildren();
  render(
    <HostContext.Provider value={host}>
      <SourceContext.Provider value={sourceOf(doc)}>
        <PageOf doc={doc} />
      </SourceContext.Provider>
    </HostContext.Provider>,
    place,
  );
} catch (error) {
  place.textContent = `This page cannot be shown. ${error instanceof Error ? error.message : ""}`;
}
