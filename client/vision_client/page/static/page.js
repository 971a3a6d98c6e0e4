// The page: one photograph at a time, sent to both networks at once.

import { takePhotograph } from "./camera.js";
import { about, classify, example, Problem, translate } from "./server.js";

const $ = (selector, within = document) => within.querySelector(selector);

// The answer of one network. A new request aborts the previous one, whose answer is never shown. The
// server may still work on an aborted request, so `pause` (ms) delays a request that the next click
// may replace.
class Panel {
  #asking = new AbortController();

  constructor(task, options, ask, show) {
    this.task = task;
    this.options = options;
    this.ask = ask;
    this.show = show;
    this.failed = false;
    this.section = $(`#${task}`);
    this.name = $(".model", this.section).textContent; // until the server says which it is
    this.weights = null;
    this.result = $(".result", this.section);
    this.problem = $(".problem", this.section);
  }

  // Show which network answers; returns why it cannot, or "". `model` is null if there is none.
  introduce(model) {
    if (!model) return `The server has no network for the task ${this.task}.`;
    this.name = model.name;
    this.weights = model.ready ? (model.weights ?? UNKNOWN) : "not ready";
    $(".model", this.section).textContent = this.name;
    return model.ready ? "" : `${this.name}: ${model.reason ?? "no reason given"}.`;
  }

  async put(photo, pause = 0) {
    this.#asking.abort();
    const { signal } = (this.#asking = new AbortController());
    this.failed = false;
    this.problem.replaceChildren();
    this.#state("Waiting for the answer …", true);
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (signal.aborted) return;
    const options = Object.fromEntries(this.options.map((name) => [name, $(`#${name}`).value]));
    try {
      const answer = await this.ask(photo, options, signal);
      if (signal.aborted) return;
      this.show(answer, options);
      this.result.hidden = false;
      this.#state(`Answered in ${seconds(answer.seconds)}`, false);
      this.weights = answer.weights ?? UNKNOWN;
      showWeights();
    } catch (problem) {
      if (signal.aborted) return;
      this.failed = true;
      this.result.hidden = true;
      this.#state("", false);
      showProblem(this.problem, problem);
    }
  }

  #state(text, busy) {
    this.section.setAttribute("aria-busy", busy);
    $(".state", this.section).textContent = text;
  }
}

const OPTIONS_PAUSE_MS = 300;
const UNKNOWN = "not reported over gRPC";
const panels = [
  new Panel("classify", ["top_k"], ({ file }, ...rest) => classify(file, ...rest), showBars),
  new Panel("translate", ["size", "format"], translated, showTranslation),
];
let photo = null;

async function take(file) {
  if (photo) URL.revokeObjectURL(photo.url);
  const url = URL.createObjectURL(file);
  photo = { file, url, visible: decoded(url) };
  $("#notice").replaceChildren();
  for (const panel of panels) {
    panel.result.hidden = true;
    panel.put(photo);
  }
  await showPhotograph(photo);
  const answers = $(".answers"); // below the visible part on a phone
  if (answers.getBoundingClientRect().top > innerHeight / 2) answers.scrollIntoView();
}

async function showPhotograph(shown) {
  const description = `${shown.file.name}, ${bytes(shown.file.size)}`;
  const visible = await shown.visible;
  if (shown !== photo) return;
  const unshowable = `${description}. This browser cannot show it; it is sent to the server all the same.`;
  $("#name").textContent = visible ? description : unshowable;
  $("#drop").classList.toggle("filled", Boolean(visible));
  $("#preview").hidden = !visible;
  if (visible) $("#preview").src = shown.url;
}

function showBars({ predictions }) {
  const rows = predictions.map(({ label, probability }) => {
    const bar = element("span", "bar");
    bar.style.setProperty("--share", probability);
    const name = element("span", "label", label);
    return element("li", "", name, element("span", "percent", percent(probability)), bar);
  });
  $("#classify .result").replaceChildren(...rows);
}

async function translated(photo, options, signal) {
  const answer = await translate(photo.file, options, signal);
  const after = await decoded(URL.createObjectURL(answer.picture));
  const before = await photo.visible;
  return { ...answer, name: photo.file.name, after, before };
}

function showTranslation({ name, before, after, picture }, { format }) {
  const { naturalWidth: width, naturalHeight: height } = after;
  const compare = $(".compare");
  compare.style.setProperty("--ratio", width / height);
  compare.classList.toggle("alone", !before);
  $("#unshowable").hidden = Boolean(before);
  if (before) $("#before").src = before.src;
  URL.revokeObjectURL($("#after").src);
  $("#after").src = after.src;
  const link = $("#download");
  link.href = after.src;
  link.download = `${name.replace(/\.[^.]*$/, "")}-translated.${format}`;
  link.textContent = `Download ${$(`#format [value=${format}]`).text}`;
  $("#extent").textContent = `${width} × ${height} pixels, ${bytes(picture.size)}`;
}

// The picture at `url` as a decoded image, or null if the browser does not support it.
async function decoded(url) {
  const image = new Image();
  image.src = url;
  return image.decode().then(() => image, () => null);
}

// Show the server's address and its networks, and a notice if one of them is not ready.
async function introduce() {
  $("#notice").replaceChildren();
  try {
    const { server, models } = await about();
    $("#server").textContent = `Server ${server}`;
    const reasons = panels.map((panel) => panel.introduce(models[panel.task])).filter(Boolean);
    showWeights();
    if (reasons.length) throw new Problem("The server is not ready.", reasons.join(" "), true);
  } catch (problem) {
    showProblem($("#notice"), problem);
  }
}

function showWeights() {
  const known = panels.filter(({ weights }) => weights);
  $("#weights").textContent = known.map(({ name, weights }) => ` · ${name}: ${weights}`).join("");
  const untrained = known.filter(({ weights }) => weights === "untrained");
  const messages = [
    "",
    `${untrained[0]?.name} is untrained: everything works, its answers mean nothing.`,
    "Untrained networks: everything works, the answers mean nothing.",
  ];
  $("#untrained").textContent = messages[untrained.length];
}

function showProblem(place, { name, title = name, message, mayPass }) {
  place.replaceChildren(element("p", "", element("strong", "", title), " ", message));
  if (!mayPass) return;
  const again = element("button", "", "Try again");
  again.type = "button";
  again.addEventListener("click", tryAgain);
  place.append(again);
}

function tryAgain() {
  introduce();
  for (const panel of panels) if (panel.failed) panel.put(photo);
}

// Take the file that `source` returns, if any. It is copied, because it may change or be deleted.
async function takeFrom(source) {
  $("#source-problem").replaceChildren();
  try {
    const file = await source();
    if (file) take(new File([await file.arrayBuffer()], file.name, { type: file.type }));
  } catch (problem) {
    showProblem($("#source-problem"), problem);
  }
}

function element(name, className, ...content) {
  const node = document.createElement(name);
  node.className = className;
  node.append(...content);
  return node;
}

const percent = (share) => `${(100 * share).toFixed(2)} %`;
const seconds = (s) => `${s.toFixed(s < 10 ? 2 : 0)} s`;
const bytes = (n) => (n < 1e6 ? `${Math.ceil(n / 1e3)} kB` : `${(n / 1e6).toFixed(1)} MB`);

for (const panel of panels)
  for (const name of panel.options)
    $(`#${name}`).addEventListener("change", () => photo && panel.put(photo, OPTIONS_PAUSE_MS));

for (const button of document.querySelectorAll(".examples button")) {
  const url = $("img", button).getAttribute("src");
  button.addEventListener("click", () => takeFrom(() => example(url)));
}

$("#camera-open").addEventListener("click", () => takeFrom(() => takePhotograph($("#camera"))));
$("#file").addEventListener("change", ({ target }) => {
  takeFrom(() => target.files[0]);
  target.value = ""; // so that choosing the same file again is a change
});
document.addEventListener("paste", ({ clipboardData }) =>
  takeFrom(() => clipboardData.files[0]));

const over = (is) => $("#drop").classList.toggle("over", is);
document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  over(true);
});
document.addEventListener("dragleave", ({ relatedTarget }) => relatedTarget ?? over(false));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  over(false);
  takeFrom(() => event.dataTransfer.files[0]);
});

$("#slider").addEventListener("input", ({ target }) =>
  $(".compare").style.setProperty("--cut", `${target.value}%`));

introduce();
