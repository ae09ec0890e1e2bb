/** What stands above a run on a server: the way back, a note, a copy to keep, another run to compare with. */

import { useLayoutEffect, useState } from "preact/hooks";
import type { Doc } from "../../host.ts";
import { useHost } from "../../host.ts";
import { copyOf, runsInPath } from "../../hosts/server.ts";

export function RunBar({ doc }: { doc: Doc }) {
  const [run] = runsInPath(location.pathname);
  const [note, setNote] = useState(doc.note ?? "");
  const [writing, setWriting] = useState(false);
  const [trouble, setTrouble] = useState("");
  const told = (error: unknown) => setTrouble((error as Error).message);
  const save = () => {
    copyOf(run).then((copy) => download(copy, `${doc.title}.html`), told);
  };
  return (
    // Keys pressed here must not step through the tokens of the page below.
    <nav class="run-bar" aria-label="This run" onKeyDown={(event) => event.stopPropagation()}>
      <div class="bar-row">
        <a href="/">← All runs</a>
        <span class="push" />
        <button type="button" aria-expanded={writing} onClick={() => setWriting(!writing)}>
          {note ? "Edit the note" : "Add a note"}
        </button>
        <button type="button" onClick={save} title="One file with the notes, labels and pins, which opens without this server">
          Save a copy
        </button>
        <a class="button" href={`/#with=${run}`}>
          Compare with…
        </a>
      </div>
      {writing && <NoteForm note={note} close={() => setWriting(false)} keep={setNote} />}
      {!writing && <PersonsNote note={note} />}
      {trouble && (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      )}
    </nav>
  );
}

function NoteForm({ note, close, keep }: { note: string; close: () => void; keep: (text: string) => void }) {
  const host = useHost();
  const [trouble, setTrouble] = useState("");
  const [draft, setDraft] = useState(note);
  useAskBeforeLeaving(draft.trim() !== note.trim());
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const text = draft.trim();
    try {
      await host.writeNote?.(text);
      keep(text);
      close();
    } catch (error) {
      setTrouble((error as Error).message);
    }
  };
  return (
    <form class="note-form" onSubmit={submit}>
      <textarea name="note" aria-label="Note" rows={3} maxLength={10_000} value={draft} onInput={(event) => setDraft(event.currentTarget.value)} ref={(element) => element?.focus()} />
      <div class="bar-row">
        <button type="submit" class="main">
          Keep the note
        </button>
        <button type="button" onClick={close}>
          {draft.trim() === note.trim() ? "Close" : "Discard what was typed"}
        </button>
        {trouble && (
          <span class="trouble" role="alert">
            {trouble}
          </span>
        )}
      </div>
    </form>
  );
}

/** While something is typed that is not kept, the browser asks before the page is left. In step with what is shown:
 * an effect after the paint would still ask about words that were just discarded. */
function useAskBeforeLeaving(unsaved: boolean): void {
  useLayoutEffect(() => {
    if (!unsaved) return undefined;
    const ask = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener("beforeunload", ask);
    return () => removeEventListener("beforeunload", ask);
  }, [unsaved]);
}

/** What a person wrote beside a document, on every host. */
export function PersonsNote({ note }: { note: string | undefined }) {
  if (!note) return null;
  return (
    <p class="persons-note" data-testid="note">
      <span class="whose">Note</span> <bdi>{note}</bdi>
    </p>
  );
}

function download(file: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name.replace(/[\\/:*?"<>|\p{C}]+/gu, " ").slice(0, 120);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
