// The playground: says what is kept while the slider moves, and asks when told to.
import { Card, element, overlays } from "./cards.js";
import { Refused, call, explain, useKey } from "./server.js";

const $ = (id) => document.getElementById(id);
const PLAIN = "What is in this picture?";
const SCENE = ["What color is the heart?", "What color is the diamond?", "What does the sign say?",
  "What letter is on the square?", "Where is the triangle?"];
const PICTURES = { "scene.png": SCENE, "cat.jpg": [PLAIN], "coffee.jpg": [PLAIN],
  "rocket.jpg": [PLAIN], "astronaut.jpg": [PLAIN] };
const MOST = 8; // answers at once, as /vtprune/compare has
let image = null; // a data URL
let ready = false; // the server's methods and rates are known
let busy = false;
let owned = false; // the question is the visitor's own
let taken = 0; // pictures so far

function settings(method = $("method").value) {
  return { method, rate: Number($("rate").value) };
}

function complain(error) {
  if (error instanceof Refused && error.status === 401) $("keyfield").hidden = false;
  $("error").textContent = error.message;
}

// --- what is kept -------------------------------------------------------------------------------

let timer = null, explaining = false, stale = false;
function explainSoon() {
  $("percent").textContent = `${Math.round(100 * $("rate").value)} %`;
  timer ??= setTimeout(() => { timer = null; show(); }, 120);
}

// One explanation at a time; what has changed meanwhile is shown next.
async function show() {
  if (!image || !ready) return;
  stale = explaining;
  if (explaining) return;
  explaining = true;
  const asked = image;
  try {
    const found = await explain(image, $("question").value, settings());
    if (asked === image) $("overlays").replaceChildren(...overlays(found));
    $("counts").textContent = `${found.kept.length} of ${found.original} visual tokens kept`;
    $("error").textContent = "";
  } catch (error) {
    complain(error);
  }
  explaining = false;
  if (stale) await show();
}

// --- asking -------------------------------------------------------------------------------------

const beside = () => [...$("beside").querySelectorAll("input")];

async function ask() {
  if (busy || !image || !ready) return;
  busy = true;
  settle();
  $("error").textContent = "";
  const methods = [$("method").value, ...beside().filter((box) => box.checked).map((box) => box.value)];
  const cards = methods.map((name) => new Card(name, settings(name)));
  cards.push(new Card("every token", { rate: 0 }));
  $("answers").replaceChildren(...cards.map((card) => card.section));
  const [model, picture, question] = [document.body.dataset.model, image, $("question").value];
  try { // one after the other: together they would slow each other down
    for (const card of cards) await card.fill(model, picture, question);
  } catch (error) {
    complain(error);
  }
  busy = false;
  settle();
}

// What can be pressed now: no more methods than are answered at once, the chosen one not twice.
function settle() {
  $("ask").disabled = busy || !image || !ready;
  for (const box of beside()) {
    box.parentElement.hidden = box.value === $("method").value;
    if (box.parentElement.hidden) box.checked = false;
  }
  const full = beside().filter((box) => box.checked).length >= MOST - 2;
  for (const box of beside()) box.disabled = full && !box.checked;
}

// --- the picture --------------------------------------------------------------------------------

async function take(blob, questions = [PLAIN]) {
  const mine = ++taken;
  if (!blob?.type.startsWith("image/")) {
    $("error").textContent = "That is not a picture.";
    return;
  }
  const read = await new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(blob);
  });
  if (mine !== taken) return; // another one has been taken meanwhile
  image = read;
  $("overlays").replaceChildren(element("img", { src: image, alt: "The picture, whole" }));
  offerQuestions(questions);
  settle();
  await show();
}

function takeOwn(blob) {
  for (const button of $("photos").children) button.ariaPressed = false;
  return take(blob);
}

async function takeBundled(name) {
  for (const button of $("photos").children) button.ariaPressed = button.dataset.name === name;
  await take(await (await fetch(`photos/${name}`)).blob(), PICTURES[name]);
}

function offerPictures() {
  $("photos").replaceChildren(...Object.keys(PICTURES).map((name) => {
    const shown = element("img", { src: `photos/${name}`, alt: name.split(".")[0] });
    const button = element("button", { type: "button", onclick: () => takeBundled(name) }, shown);
    button.dataset.name = name;
    return button;
  }));
}

function offerQuestions(questions) {
  if (!owned) $("question").value = questions[0];
  const offered = questions.length > 1 ? questions : [];
  $("questions").replaceChildren(...offered.map((text) => element("button", {
    type: "button", textContent: text,
    onclick: () => { $("question").value = text; owned = false; explainSoon(); },
  })));
}

// --- the server ---------------------------------------------------------------------------------

async function greet() {
  const [config, { methods }] = await Promise.all(
    ["config", "methods"].map(async (path) => (await call(path)).json()));
  document.body.dataset.model = config.model;
  $("about").textContent = `${config.model} · ${config.architecture} · vtprune ` +
    `${config.versions.vtprune} on vLLM ${config.versions.vllm} · selection on ` +
    config.implementation;
  $("speed").hidden = config.shows_speed;
  offerMethods(methods.filter((one) => one.allowed), config.settings.method);
  const { rate, tokens, limits = {} } = config.settings;
  $("rate").min = limits.min_rate ?? 0;
  $("rate").max = limits.max_rate ?? 0.99;
  $("rate").value = rate ?? 1 - tokens / config.visual_tokens;
  $("percent").textContent = `${Math.round(100 * $("rate").value)} %`;
  ready = true;
  settle();
  await show(); // a picture may have been taken meanwhile
}

// At first one that reads the question stands beside the server's own.
function offerMethods(methods, own) {
  $("method").replaceChildren(...methods.map((one) => {
    const option = new Option(one.name, one.name, false, one.name === own);
    option.dataset.summary = one.description;
    return option;
  }));
  const other = methods.find((one) => one.reads_text && one.name !== own);
  $("beside").replaceChildren(...methods.map((one) => element("label", { title: one.description },
    element("input", { type: "checkbox", value: one.name, checked: one === other, onchange: settle }),
    one.name)));
  summarise();
}

function summarise() {
  $("summary").textContent = $("method").selectedOptions[0]?.dataset.summary ?? "";
}

// --- what the visitor does ----------------------------------------------------------------------

// A file that is dropped anywhere is taken: a browser would open it in the place of this page.
document.ondragover = document.ondrop = (event) => {
  const files = event.dataTransfer.types.includes("Files");
  if (!files && event.target.closest("textarea, input")) return; // text may go there
  event.preventDefault();
  $("drop").classList.toggle("over", files && event.type === "dragover");
  if (files && event.type === "drop") takeOwn(event.dataTransfer.files[0]);
};
document.ondragleave = (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
};
document.onpaste = (event) => {
  if (event.clipboardData.files.length) takeOwn(event.clipboardData.files[0]);
};
$("drop").onclick = () => $("file").click();
$("drop").onkeydown = (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); $("file").click(); }
};
$("file").onchange = () => { if ($("file").files.length) takeOwn($("file").files[0]); };
$("method").onchange = () => { summarise(); settle(); explainSoon(); };
$("rate").oninput = explainSoon;
$("question").oninput = () => { owned = true; };
$("question").onchange = explainSoon;
$("form").onsubmit = (event) => { event.preventDefault(); ask(); };
document.onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
};

function begin() {
  useKey($("key").value);
  greet().catch(complain);
}

$("key").onchange = begin;
offerPictures();
takeBundled("scene.png").catch(complain);
begin();
