// The page: one photograph at a time, sent to every network at once.

import { takePhotograph } from "./camera.js";
import { $, Panel } from "./panel.js";
import { decoded, sendable } from "./picture.js";
import { about, classify, example, Problem, translate } from "./server.js";

const panels = [
  new Panel("classify", ["top_k"], ({ file }, ...rest) => classify(file, ...rest), showBars, showState),
  new Panel("translate", ["size", "format"], translated, showTranslation, showState),
];
const TAKEN = $("#file").accept.split(",");

let chosen = []; // the photographs that were chosen together
let at = 0; // the one of them that is shown
let photo = null;
let introduction = introduce();

const served = () => panels.filter(({ served }) => served);

// Show the server's address and its networks, and a notice if one of them is not ready.
async function introduce() {
  $("#notice").replaceChildren();
  try {
    const { server, models } = await about();
    $("#server").textContent = `Server ${server}`;
    const reasons = panels.map((panel) => panel.introduce(models[panel.task])).filter(Boolean);
    showState();
    if (!served().length)
      throw new Problem("The server has no network that classifies or translates.", true);
    if (reasons.length) throw new Problem(`The server is not ready. ${reasons.join(" ")}`, true);
  } catch (problem) {
    showProblem($("#notice"), problem);
  } finally {
    $("main").setAttribute("aria-busy", false);
  }
}

// Read the files of `source`, which were chosen together, and take the first.
async function choose(source) {
  $("#source-problem").replaceChildren();
  try {
    const files = await source();
    if (!files.length) return;
    chosen = files;
    at = 0;
    await step(0);
  } catch (problem) {
    showProblem($("#source-problem"), problem);
  }
}

// Take the photograph that is `by` further. It is copied, because the file may change or be deleted.
async function step(by) {
  at = (at + by + chosen.length) % chosen.length;
  $("#several").hidden = chosen.length < 2;
  $("#position").textContent = `${at + 1} of ${chosen.length}`;
  $("#source-problem").replaceChildren();
  const file = chosen[at];
  try {
    const copy = new File([await file.arrayBuffer()], file.name, { type: file.type });
    const sent = await sendable(copy, TAKEN);
    if (file === chosen[at]) await take(sent, file.name);
  } catch {
    const message = `${file.name} cannot be read. Of a folder, choose the photographs in it.`;
    if (file === chosen[at]) showProblem($("#source-problem"), new Problem(message));
  }
}

async function take(file, name) {
  if (photo) URL.revokeObjectURL(photo.url);
  const url = URL.createObjectURL(file);
  const taken = (photo = { file, name, url, visible: decoded(url) });
  showPhotograph(taken);
  await introduction;
  if (!served().length) await (introduction = introduce());
  else $("#notice").replaceChildren();
  if (taken !== photo) return;
  for (const panel of served()) panel.put(photo);
  await photo.visible;
  const answers = $(".answers"); // below the visible part on a phone
  if (answers.getBoundingClientRect().top > innerHeight / 2) answers.scrollIntoView();
}

async function showPhotograph(shown) {
  const { file, name } = shown;
  const description = `${name}, ${bytes(file.size)}`;
  const visible = await shown.visible;
  if (shown !== photo) return;
  const unshowable = `${description}. This browser cannot show it; it is sent to the server all the same.`;
  const converted = name === file.name ? "" : ", sent as a JPEG";
  $("#name").textContent = visible ? description + converted : unshowable;
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
  return { ...answer, name: photo.name, after, before };
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

// Show the weights and the problems of the panels; one that all of them have is shown once, above.
function showState() {
  const known = served();
  $("#weights").textContent = known.map(({ name, weights }) => ` · ${name}: ${weights}`).join("");
  const untrained = known.filter(({ weights }) => weights === "untrained");
  const messages = [
    "",
    `${untrained[0]?.name} is untrained: everything works, its answers mean nothing.`,
    "Untrained networks: everything works, the answers mean nothing.",
  ];
  $("#untrained").textContent = messages[untrained.length];
  const [first, ...others] = known.map(({ problem }) => problem?.message);
  const shared = first && others.length && others.every((message) => message === first);
  showProblem($("#shared-problem"), shared && known[0].problem);
  for (const { section, problem } of panels)
    showProblem($(".problem", section), !shared && problem);
}

function showProblem(place, problem) {
  place.replaceChildren();
  if (!problem) return;
  const { message, code, mayPass } = problem;
  place.append(element("p", "", message, element("small", "", code ?? "")));
  if (!mayPass) return;
  const again = element("button", "", "Try again");
  again.type = "button";
  again.addEventListener("click", tryAgain);
  place.append(again);
}

async function tryAgain() {
  await (introduction = introduce());
  if (!photo) return;
  for (const panel of served()) if (panel.problem || panel.photo !== photo) panel.put(photo);
}

function element(name, className, ...content) {
  const node = document.createElement(name);
  node.className = className;
  node.append(...content);
  return node;
}

const percent = (share) => `${(100 * share).toFixed(2)} %`;
const bytes = (n) => (n < 1e6 ? `${Math.ceil(n / 1e3)} kB` : `${(n / 1e6).toFixed(1)} MB`);

for (const button of document.querySelectorAll(".examples button")) {
  const url = $("img", button).getAttribute("src");
  button.addEventListener("click", () => choose(async () => [await example(url)]));
}

$("#previous").addEventListener("click", () => step(-1));
$("#next").addEventListener("click", () => step(1));
$("#camera-open").addEventListener("click", () =>
  choose(async () => [await takePhotograph($("#camera"))].filter(Boolean)));
$("#file").addEventListener("change", ({ target }) => {
  const files = [...target.files];
  target.value = ""; // so that choosing the same file again is a change
  choose(() => files);
});
document.addEventListener("paste", ({ clipboardData }) => choose(() => [...clipboardData.files]));

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
  choose(() => [...event.dataTransfer.files]);
});

$("#slider").addEventListener("input", ({ target }) =>
  $(".compare").style.setProperty("--cut", `${target.value}%`));
