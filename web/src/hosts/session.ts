/** The conversation with a local server: its key, requests, and refusals in words. */

/** What a server refused, as its reason and its remedy. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    reason: string,
    remedy: string,
  ) {
    super(`${reason} ${remedy}`.trim());
  }
}

const KEPT = "otoscope-key";
let key: string | undefined;

/** Take the key out of the address before anything else is written there, and keep it for reloads and other tabs of this server.
 *
 * It is good for one start of the server, and storage belongs to this very address and port. */
export function takeKey(): void {
  const named = /[#&]key=([\w-]+)/.exec(location.hash);
  if (named) {
    key = named[1];
    const rest = location.hash.slice(1).replace(/(^|&)key=[\w-]+/, "").replace(/^&/, "");
    history.replaceState(null, "", location.pathname + location.search + (rest && `#${rest}`));
  }
  try {
    if (key) localStorage.setItem(KEPT, key);
    else key = localStorage.getItem(KEPT) ?? undefined;
  } catch {
    // storage is off: the key lasts as long as the page
  }
}

/** Ask the server; what it refuses is thrown as a `Refusal`. */
export async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, { ...options, headers: { ...options.headers, Authorization: `Bearer ${key ?? ""}` } });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer.", "See whether `otoscope serve` still runs; started again, it has a new address.");
  }
  if (answer.ok) return answer;
  const told = (await answer.json().catch(() => ({}))) as { reason?: string; remedy?: string };
  throw new Refusal(answer.status, told.reason ?? `The server answered ${answer.status}.`, told.remedy ?? "");
}

export async function askJson<T>(path: string, options: RequestInit = {}): Promise<T> {
  return (await ask(path, options)).json() as Promise<T>;
}

export function sendJson(path: string, method: string, value: unknown, options: RequestInit = {}): Promise<Response> {
  return ask(path, { ...options, method, body: JSON.stringify(value), headers: { ...options.headers, "Content-Type": "application/json" } });
}

/** The lines of JSON of an answer, as they come. */
export async function* linesOf<T>(answer: Response): AsyncGenerator<T> {
  const reader = (answer.body as ReadableStream<BufferSource>).pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield JSON.parse(line) as T;
  }
}
