// Asks both servers in turn, and draws what they did.
import { events, message } from "./server.js";

const NAMES = { stock: "stock vLLM", vtprune: "vtprune" };
const ANSWER = 16;
const SHOWN = 12; // turns
const SECONDS = Number(new URLSearchParams(location.search).get("seconds") ?? 8);
// A worker of vLLM on a CPU spins for a second after its last step, on the core of the other one.
const REST = 1200;

const at = (id) => document.getElementById(id);
const now = () => performance.now() / 1000;
const { photos } = await (await fetch("race.json")).json();
const turns = [];
const prompts = {};
let isRunning = false;

function load(path) {
  const image = new Image();
  image.src = path;
  return image.decode().then(() => image);
}

// A view that no cache has seen.
function picture(photo) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 448, height: 336 });
  const share = 0.5 + Math.random() / 2;
  const [width, height] = [photo.naturalWidth * share, photo.naturalHeight * share];
  const [left, top] = [(photo.naturalWidth - width) * Math.random(), (photo.naturalHeight - height) * Math.random()];
  canvas.getContext("2d").drawImage(photo, left, top, width, height, 0, 0, 448, 336);
  return canvas.toDataURL("image/jpeg", 0.85);
}

async function ask(name) {
  const photo = await load(photos[Math.floor(Math.random() * photos.length)]);
  const begun = now();
  const response = await fetch(`${name}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      model: "demo", messages: message(picture(photo), "What is in this picture?"), stream: true,
      stream_options: { include_usage: true }, max_tokens: ANSWER, ignore_eos: true, temperature: 0,
    }),
  });
  if (!response.ok) throw new Error(`${NAMES[name]} answered with ${response.status}: ${await response.text()}`);
  let first = null;
  for await (const chunk of events(response)) {
    if (chunk.error) throw new Error(`${NAMES[name]}: ${chunk.error.message}`);
    if (chunk.choices?.length) first ??= now() - begun;
    if (chunk.usage) prompts[name] = chunk.usage.prompt_tokens;
  }
  return first;
}

async function turn(name) {
  const one = { name, begun: now(), until: null, first: [] };
  turns.push(one);
  const client = async () => {
    do {
      one.first.push(await ask(name));
      one.until = now();
    } while (isRunning && now() < one.begun + SECONDS);
  };
  await Promise.all(Array.from({ length: Number(at("clients").value) }, client));
  one.isOver = true;
}

const rate = (one) => one.first.length / (((one.isOver ? one.until : now()) - one.begun) || 1);
const of = (name) => turns.filter((one) => one.name === name && one.isOver);

function mean(name) {
  const seconds = of(name).reduce((sum, one) => sum + one.until - one.begun, 0);
  return of(name).reduce((sum, one) => sum + one.first.length, 0) / seconds;
}

function median(name) {
  const all = of(name).flatMap((one) => one.first).sort((a, b) => a - b);
  return all[Math.floor(all.length / 2)];
}

function row(title, show) {
  const cells = Object.keys(NAMES).map((name) => `<td>${of(name).length ? show(name) : ""}</td>`);
  return `<tr><td>${title}</td>${cells.join("")}</tr>`;
}

function draw() {
  const shown = turns.slice(-SHOWN);
  const most = Math.max(1, ...shown.map(rate)) * 1.15;
  const { width, height } = at("chart").getBoundingClientRect();
  const step = (width - 40) / SHOWN;
  const y = (value) => (height - 20) * (1 - value / most);
  const bars = shown.map((one, place) => {
    const [x, top] = [40 + place * step, y(rate(one))];
    return `<rect class="${one.name}" data-turn="${one.name}" x="${x + 2}" y="${top}" rx="3"
        width="${step - 4}" height="${height - 20 - top}" opacity="${one.isOver ? 1 : 0.5}"/>
      <text x="${x + step / 2}" y="${top - 5}" text-anchor="middle">${rate(one).toFixed(1)}</text>`;
  });
  at("chart").innerHTML = `<line x1="40" x2="${width}" y1="${height - 20}" y2="${height - 20}"/>
    <text x="0" y="12">per s</text>
    <text x="40" y="${height - 4}">turn after turn, ${SECONDS} s each</text>${bars.join("")}`;
  const largest = Math.max(...Object.values(prompts), 1);
  for (const [name, title] of Object.entries(NAMES)) {
    at(`${name}-tokens`).textContent = prompts[name] ? `${title}: ${prompts[name]}` : title;
    at(`${name}-bar`).style.width = `${(100 * (prompts[name] ?? 0)) / largest}%`;
  }
  at("table").innerHTML = row("requests per second", (name) => mean(name).toFixed(2)) +
    row("first token, median", (name) => `${median(name).toFixed(2)} s`) +
    row("answers", (name) => of(name).reduce((sum, one) => sum + one.first.length, 0));
  if (of("stock").length && of("vtprune").length)
    at("times").textContent = `${(mean("vtprune") / mean("stock")).toFixed(1)} × the requests per second`;
}

async function race() {
  at("doing").textContent = "a first question to each, which is not counted …";
  for (const name of Object.keys(NAMES)) await ask(name);
  const redraw = setInterval(draw, 250);
  try {
    for (let place = 0; isRunning; place++) {
      const name = Object.keys(NAMES)[place % 2];
      at("doing").textContent = `asking ${NAMES[name]} …`;
      await turn(name);
      await new Promise((go) => setTimeout(go, REST));
    }
  } finally {
    clearInterval(redraw);
    draw();
  }
}

at("go").addEventListener("click", async () => {
  isRunning = !isRunning;
  if (!isRunning) {
    at("go").disabled = true;
    at("doing").textContent = "waiting for the last answers …";
    return;
  }
  at("go").textContent = "Stop";
  at("error").textContent = "";
  try {
    await race();
  } catch (error) {
    isRunning = false;
    at("error").textContent = error.message;
  }
  at("go").textContent = "Start";
  at("go").disabled = false;
  at("doing").textContent = "";
});
draw();
// Not before: a click while the photographs were still being listed went unheard.
at("go").disabled = false;
