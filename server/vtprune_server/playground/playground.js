// The playground: explains while the slider moves, asks twice when told to.
const $ = (id) => document.getElementById(id);
const PHOTOS = ["cat", "coffee", "rocket", "astronaut"];
let image = null; // a data URL
let ready = false; // the server's methods and rates are known
let busy = false;

function headers() {
  const key = $("key").value;
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function call(path, body) {
  const response = await fetch(path, {
    method: body ? "POST" : "GET", headers: headers(), body: body && JSON.stringify(body),
  });
  if (response.status === 401) $("keyfield").hidden = false;
  if (!response.ok) throw new Error(await reason(response));
  return response;
}

async function reason(response) {
  const body = await response.json().catch(() => null);
  return body?.error?.message ?? body?.error ?? `${response.status} ${response.statusText}`;
}

function settings() {
  return { method: $("method").value, rate: Number($("rate").value) };
}

function messages(extra = {}) {
  const picture = { type: "image_url", image_url: { url: image }, ...extra };
  return [{ role: "user", content: [picture, { type: "text", text: $("question").value }] }];
}

// --- what is kept -------------------------------------------------------------------------------

let latest = 0;
async function explain() {
  $("percent").textContent = `${Math.round(100 * $("rate").value)} %`;
  if (!image || !ready) return;
  const mine = ++latest;
  try {
    const response = await call("explain", { messages: messages(), vtprune: settings() });
    const { images: [found] } = await response.json();
    if (mine !== latest) return; // the slider has moved on
    $("overlays").replaceChildren(...found.views.filter((view) => view.overlay).map((view) => {
      const picture = new Image();
      picture.src = view.overlay;
      picture.alt = `${view.kept.length} of ${view.rows * view.columns} patches kept`;
      return picture;
    }));
    $("counts").textContent = `${found.kept.length} of ${found.original} visual tokens kept`;
    $("error").textContent = "";
  } catch (error) {
    if (mine === latest) $("error").textContent = error.message;
  }
}

let timer;
function explainSoon() {
  $("percent").textContent = `${Math.round(100 * $("rate").value)} %`;
  clearTimeout(timer);
  timer = setTimeout(explain, 120);
}

// --- asking -------------------------------------------------------------------------------------

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function answer(name, vtprune) {
  const out = $(name);
  out.textContent = "";
  $(`${name}-facts`).replaceChildren();
  // An identity of its own, so that no cache answers for the one or the other.
  const body = {
    model: document.body.dataset.model, messages: messages({ uuid: crypto.randomUUID?.() ??
      String(Math.random()) }), max_tokens: 64, temperature: 0, stream: true,
    stream_options: { include_usage: true }, vtprune,
  };
  const start = performance.now();
  let first = null, usage = null;
  for await (const chunk of events(await call("../v1/chat/completions", body))) {
    if (chunk.error) throw new Error(chunk.error.message);
    usage = chunk.usage ?? usage;
    const piece = chunk.choices.map((choice) => choice.delta.content ?? "").join("");
    if (piece && first === null) first = performance.now() - start;
    out.textContent += piece;
  }
  const seen = usage.visual_tokens;
  facts(name, {
    "prompt tokens": usage.prompt_tokens,
    "visual tokens": seen ? `${seen.kept} of ${seen.original}` : "all",
    "time to first token": `${Math.round(first ?? NaN)} ms`,
    "time in all": `${Math.round(performance.now() - start)} ms`,
  });
}

function facts(name, rows) {
  $(`${name}-facts`).replaceChildren(...Object.entries(rows).flatMap(([term, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    [dt.textContent, dd.textContent] = [term, value];
    return [dt, dd];
  }));
}

async function ask() {
  if (busy || !image || !ready) return;
  busy = true;
  allowAsking();
  $("error").textContent = "";
  try { // one after the other: together they would slow each other down
    await answer("pruned", settings());
    await answer("unpruned", { rate: 0 });
  } catch (error) {
    $("error").textContent = error.message;
  }
  busy = false;
  allowAsking();
}

function allowAsking() {
  $("ask").disabled = busy || !image || !ready;
}

// --- the image ----------------------------------------------------------------------------------

async function take(blob) {
  if (!blob?.type.startsWith("image/")) return;
  image = await new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(blob);
  });
  allowAsking();
  await explain();
}

function offerPhotos() {
  $("photos").replaceChildren(...PHOTOS.map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.innerHTML = `<img src="photos/${name}.jpg" alt="${name}">`;
    button.onclick = async () => {
      for (const other of $("photos").children) other.ariaPressed = other === button;
      await take(await (await fetch(`photos/${name}.jpg`)).blob());
    };
    return button;
  }));
}

// --- the server ---------------------------------------------------------------------------------

async function greet() {
  const [config, { methods }] = await Promise.all(
    ["config", "methods"].map(async (path) => (await call(path)).json()));
  document.body.dataset.model = config.model;
  $("about").textContent = `${config.model} · ${config.architecture} · vtprune ` +
    `${config.versions.vtprune} on vLLM ${config.versions.vllm} · selection on ` +
    config.implementation;
  const { method, rate, tokens, limits = {} } = config.settings;
  $("method").replaceChildren(...methods.filter((one) => one.allowed).map((one) => {
    const option = new Option(one.name, one.name, false, one.name === method);
    option.dataset.summary = one.description;
    return option;
  }));
  $("rate").min = limits.min_rate ?? 0;
  $("rate").max = limits.max_rate ?? 0.99;
  $("rate").value = rate ?? 1 - tokens / config.visual_tokens;
  summarise();
  ready = true;
  allowAsking();
  await explain(); // an image may have been taken meanwhile
}

function summarise() {
  $("summary").textContent = $("method").selectedOptions[0]?.dataset.summary ?? "";
}

$("drop").onclick = () => $("file").click();
$("drop").onkeydown = (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); $("file").click(); }
};
$("drop").ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
$("drop").ondragleave = () => $("drop").classList.remove("over");
$("drop").ondrop = (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
};
$("file").onchange = () => take($("file").files[0]);
document.onpaste = (event) => take(event.clipboardData.files[0]);
$("method").onchange = () => { summarise(); explainSoon(); };
$("rate").oninput = explainSoon;
$("question").onchange = explainSoon;
$("form").onsubmit = (event) => { event.preventDefault(); ask(); };
document.onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
};
function begin() {
  greet().catch((error) => { $("error").textContent = error.message; });
}

$("key").onchange = begin;
offerPhotos();
begin();
