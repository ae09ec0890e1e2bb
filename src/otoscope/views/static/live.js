// The live page: takes sound, sends it to the server it came from, shows what comes back. All text is set as text.
const KEPT = 300; // segments on the page
const BEHIND = 8; // seconds of sound that wait to be sent, from which it is said
const TOO_FAR = 60; // ... and from which it is given up

const $ = (id) => document.getElementById(id);
const about = JSON.parse($("about").textContent);
const parts = { text: $("text"), partial: $("partial"), alarm: $("alarm"), status: $("status") };
const meter = document.querySelector(".meter");
let session = null;

$("model").textContent = about.model;
$("threshold").textContent = about.threshold.toFixed(2);

// The token -------------------------------------------------------------------------------------------------------------

const given = new URLSearchParams(location.hash.slice(1)).get("token");
document.querySelector(".token-field").hidden = Boolean(given);
if (given) $("token").value = given;
else say("Type the token first: it stands behind token= in the address that otoscope monitor serve printed.");

// Showing ---------------------------------------------------------------------------------------------------------------

const clock = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

function element(name, kind, text) {
  const made = document.createElement(name);
  made.className = kind;
  made.textContent = text;
  return made;
}

function tokens(event) {
  return event.tokens.map((token) => {
    const shown = element("span", "token", token.text);
    shown.style.setProperty("--share", token.risk.toFixed(2));
    shown.classList.toggle("alarm", token.risk >= about.threshold);
    shown.title = `risk ${token.risk.toFixed(2)}, at ${clock(token.start)}`;
    return shown;
  });
}

let rung; // number of the segment whose alarm the banner tells

function verdict(event) {
  if (event.stopped) return "  alarm: a loop, cut short";
  if (event.alarm) return `  alarm, highest risk ${event.risk.toFixed(2)}`;
  return event.rung ? "  alarm on an earlier version" : "";
}

function showSegment(event) {
  parts.partial.replaceChildren();
  if (event.stopped && event.segment === rung) parts.alarm.textContent += " It looped, and was cut short.";
  const line = element("p", "segment", "");
  const span = element("span", "at", `${clock(event.start)}–${clock(event.end)}  `);
  line.append(span, ...tokens(event));
  line.append(element("span", "rang", verdict(event)));
  const atEnd = parts.text.scrollHeight - parts.text.scrollTop - parts.text.clientHeight < 40;
  parts.text.append(line);
  while (parts.text.childElementCount > KEPT) parts.text.firstElementChild.remove();
  if (atEnd) parts.text.scrollTop = parts.text.scrollHeight;
}

function showAlarm(event) {
  const kind = event.kind === "loop" ? "the text loops" : "the text may be invented";
  rung = event.segment;
  parts.alarm.textContent = `Alarm at ${clock(event.time)}: ${kind} (risk ${event.risk.toFixed(2)} when it rang).`;
  parts.alarm.hidden = false;
}

const shows = new Map(Object.entries({
  ready: (event) => say(`Listening; ${event.model}.`),
  partial: (event) => parts.partial.replaceChildren(...tokens(event)),
  segment: showSegment,
  alarm: showAlarm,
  end: (event) => say(`Done: ${clock(event.seconds)} of sound.`),
}));

function say(text) {
  parts.status.textContent = text;
}

function showLevel(samples) {
  let sum = 0;
  for (const x of samples) sum += x * x;
  const level = samples.length ? Math.max(-60, 10 * Math.log10(sum / samples.length + 1e-9)) : -60;
  meter.setAttribute("aria-valuenow", level.toFixed(0));
  meter.firstElementChild.style.setProperty("--level", ((level + 60) / 60).toFixed(3));
}

// Sound -----------------------------------------------------------------------------------------------------------------

async function tapOf(context) {
  const url = URL.createObjectURL(new Blob([$("worklet").textContent], { type: "text/javascript" }));
  try {
    await context.audioWorklet.addModule(url);
  } finally {
    URL.revokeObjectURL(url);
  }
  const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 1 });
  tap.connect(context.destination); // it writes nothing there, but without it no sound would be drawn through
  return tap;
}

async function decoded(context, file) {
  try {
    return await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is no sound that this browser can read. Choose a WAV, FLAC, OGG or MP3 recording.`);
  }
}

const sources = {
  async microphone(context) {
    const options = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: options });
    return {
      node: context.createMediaStreamSource(stream),
      start() {},
      stop: () => stream.getTracks().forEach((track) => track.stop()),
    };
  },
  async file(context) {
    const [file] = $("file").files;
    const node = context.createBufferSource();
    node.buffer = await decoded(context, file);
    node.connect(context.destination);
    node.addEventListener("ended", () => finish());
    return { node, start: () => node.start(), stop: () => node.disconnect() };
  },
};

function integers(samples) {
  const out = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((x, i) => out.setInt16(2 * i, Math.max(-1, Math.min(1, x)) * 32767, true));
  return out.buffer;
}

// A session ---------------------------------------------------------------------------------------------------------------

async function begin(kind) {
  clear();
  busy(true);
  const context = new AudioContext();
  session = { context, source: null, socket: null, ending: false };
  const mine = session;
  try {
    if (!isSecureContext) throw new Error("Browsers take sound only on pages of this machine or over TLS.");
    mine.source = await sources[kind](context);
    const tap = await tapOf(context);
    mine.source.node.connect(tap);
    mine.socket = await connected(context.sampleRate);
    mine.socket.onmessage = ({ data }) => received(JSON.parse(data));
    mine.socket.onclose = (event) => closed(mine, event);
    tap.port.onmessage = ({ data }) => send(mine, data);
    await context.resume();
    mine.source.start();
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The microphone was not allowed." : error.message);
    leave(mine);
  }
}

function connected(rate) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/stream`);
  return new Promise((resolve, reject) => {
    socket.onopen = () =>
      socket.send(JSON.stringify({ type: "start", token: $("token").value, rate, format: "s16le" }));
    socket.onmessage = ({ data }) => {
      received(JSON.parse(data));
      resolve(socket);
    };
    socket.onclose = ({ code, reason }) => reject(new Error(reason || `The server closed the stream (${code}).`));
  });
}

function received(event) {
  shows.get(event.type)?.(event);
}

function send(mine, samples) {
  showLevel(samples);
  if (mine.socket.readyState !== WebSocket.OPEN || mine.ending) return;
  const waiting = mine.socket.bufferedAmount / 2 / mine.context.sampleRate;
  if (waiting > TOO_FAR) {
    mine.socket.close(1000, "too far behind");
    return;
  }
  if (waiting > BEHIND) say(`The server is behind by ${waiting.toFixed(0)} s.`);
  mine.socket.send(integers(samples));
}

function finish() {
  if (!session?.socket || session.ending) return;
  session.ending = true;
  session.source.stop();
  showLevel([]);
  say("Finishing…");
  if (session.socket.readyState === WebSocket.OPEN) session.socket.send('{"type": "end"}');
}

function closed(mine, { code, reason }) {
  if (code !== 1000) say(reason || `The server closed the stream (${code}).`);
  leave(mine);
}

function leave(mine) {
  mine.source?.stop();
  mine.context.close();
  session = null;
  $("file").value = ""; // the same one may be chosen again
  showLevel([]);
  busy(false);
}

function clear() {
  parts.text.replaceChildren();
  parts.partial.replaceChildren();
  parts.alarm.hidden = true;
}

function busy(is) {
  for (const id of ["microphone", "file", "token"]) $(id).disabled = is;
  $("stop").disabled = !is;
  (is ? $("stop") : $("microphone")).focus();
}

$("microphone").addEventListener("click", () => begin("microphone"));
$("file").addEventListener("change", () => $("file").files.length && begin("file"));
$("stop").addEventListener("click", finish);
$("controls").addEventListener("submit", (event) => event.preventDefault());
