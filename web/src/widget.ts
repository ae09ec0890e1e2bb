/** The page as a widget of a notebook (anywidget): a sandboxed frame, and the messages between it and the kernel. */

import type { FromPage, ToPage } from "./hosts/notebook.ts";

/** What anywidget gives; as much as is used. */
interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: unknown): void;
  on(event: string, listener: (...args: never[]) => void): void;
  off(event: string, listener: (...args: never[]) => void): void;
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.title = "otoscope";
  frame.style.cssText = "width:100%;height:600px;border:0;resize:vertical;overflow:auto";
  const tell = (message: ToPage) => frame.contentWindow?.postMessage(message, "*");

  const fromPage = (event: MessageEvent<FromPage | null>) => {
    const message = event.data;
    if (event.source !== frame.contentWindow || typeof message?.otoscope !== "string") return;
    if (message.otoscope === "height") {
      frame.style.height = `${Math.min(Math.max(message.height, 120), 0.85 * screen.availHeight)}px`;
    } else if (message.otoscope === "state") {
      model.set("state", message.state);
      model.save_changes();
    } else if (message.otoscope === "act") {
      model.send(message);
    }
  };
  const fromKernel = (message: ToPage) => tell(message);
  const onState = () => tell({ otoscope: "state", state: String(model.get("state")) });

  addEventListener("message", fromPage);
  model.on("msg:custom", fromKernel);
  model.on("change:state", onState);
  frame.addEventListener("load", onState);
  frame.srcdoc = String(model.get("page"));
  el.append(frame);
  return () => {
    removeEventListener("message", fromPage);
    model.off("msg:custom", fromKernel);
    model.off("change:state", onState);
    frame.remove();
  };
}

export default { render };
