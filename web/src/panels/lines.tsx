/** Lines that do the same elsewhere, to be copied: Python and the command line. */

import { useEffect, useRef, useState } from "preact/hooks";
import { copied } from "../clipboard.ts";

export function Lines({ python, command }: { python: string; command: string }) {
  return (
    <div class="copied-lines">
      <Line name="Python" text={python} />
      <Line name="Command line" text={command} />
    </div>
  );
}

function Line({ name, text }: { name: string; text: string }) {
  const code = useRef<HTMLElement>(null);
  const [said, setSaid] = useState("");
  useEffect(() => setSaid(""), [text]);
  const copy = async () => {
    setSaid((await copied(text)) ? "Copied" : "Select it and copy");
    if (code.current) getSelection()?.selectAllChildren(code.current);
  };
  return (
    <div class="copied-line">
      <span class="copied-name">{name}</span>
      <code ref={code} tabIndex={0} aria-label={`${name} that does the same`}>
        <bdi dir="ltr">{text}</bdi>
      </code>
      <button type="button" aria-label={`Copy the ${name} line`} onClick={copy}>
        <span aria-live="polite">{said || "Copy"}</span>
      </button>
    </div>
  );
}
