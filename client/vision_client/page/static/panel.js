// The answer of one network.

export const $ = (selector, within = document) => within.querySelector(selector);

const OPTIONS_PAUSE_MS = 300;
const UNKNOWN = "not reported over gRPC";

// A new request aborts the previous one, whose answer is never shown. The server may still work on
// an aborted request, so a change of an option waits for the next one.
export class Panel {
  #asking = new AbortController();

  // `ask(photo, options, signal)` returns the answer, `show(answer, options)` shows it, and
  // `changed()` is called after each change of `problem` or `weights`.
  constructor(task, options, ask, show, changed) {
    this.task = task;
    this.options = options.map((name) => $(`#${name}`));
    this.ask = ask;
    this.show = show;
    this.changed = changed;
    this.section = $(`#${task}`);
    this.result = $(".result", this.section);
    this.button = $(".act", this.section);
    this.served = false;
    this.weights = null;
    this.photo = null;
    this.problem = null;
    for (const option of this.options)
      option.addEventListener("change", () => this.photo && this.put(this.photo, OPTIONS_PAUSE_MS));
    this.button.addEventListener("click", () => (this.busy ? this.#cancel() : this.put(this.photo)));
  }

  get busy() {
    return this.section.getAttribute("aria-busy") === "true";
  }

  // Show which network answers and what it offers; returns why it cannot answer, or "". Without a
  // `model` there is nothing to show.
  introduce(model) {
    this.served = Boolean(model);
    this.section.hidden = !model;
    for (const option of this.options) option.closest("label").hidden = !model;
    if (!model) {
      if (this.busy) this.#cancel();
      this.weights = null;
      return "";
    }
    this.name = model.name;
    this.weights = model.ready ? (model.weights ?? UNKNOWN) : "not ready";
    $(".model", this.section).textContent = this.name;
    for (const option of this.options) if (option.dataset.unit !== undefined) offer(option, model);
    return model.ready ? "" : `${this.name}: ${model.reason ?? "no reason given"}.`;
  }

  async put(photo, pause = 0) {
    this.#asking.abort();
    const { signal } = (this.#asking = new AbortController());
    if (photo !== this.photo) this.result.hidden = true;
    this.photo = photo;
    this.#settle("Waiting for the answer …", { busy: true });
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (signal.aborted) return;
    const options = Object.fromEntries(
      this.options.filter(({ value }) => value).map(({ id, value }) => [id, value]));
    try {
      const answer = await this.ask(photo, options, signal);
      if (signal.aborted) return;
      this.show(answer, options);
      this.result.hidden = false;
      this.weights = answer.weights ?? UNKNOWN;
      this.#settle(`Answered in ${seconds(answer.seconds)}`);
    } catch (problem) {
      if (signal.aborted) return;
      this.result.hidden = true;
      this.#settle("No answer", { problem });
    }
  }

  // The last answer to the same photograph, if there is one, stays.
  #cancel() {
    this.#asking.abort();
    this.#settle("Cancelled", { cancelled: true });
  }

  #settle(state, { busy = false, cancelled = false, problem = null } = {}) {
    this.section.setAttribute("aria-busy", busy);
    $(".state", this.section).textContent = state;
    this.button.hidden = !busy && !cancelled;
    this.button.textContent = busy ? "Cancel" : "Ask again";
    this.problem = problem;
    this.changed();
  }
}

// Fill `select` with the model's choices; hide it if there are none.
function offer(select, { choices, options }) {
  const values = choices[select.id] ?? [];
  const chosen = values.includes(Number(select.value)) ? select.value : options?.[select.id]?.default;
  const { unit } = select.dataset;
  select.replaceChildren(...values.map((value) => new Option(`${value}${unit}`, value)));
  select.value = chosen;
  select.closest("label").hidden = !values.length;
}

const seconds = (s) => `${s.toFixed(s < 10 ? 2 : 0)} s`;
