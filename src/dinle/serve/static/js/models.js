// The section "Models": a card for each model of this server.
import { ApiError, describeError, get } from "./api.js";
import { make, makeProblem, makeTable } from "./dom.js";
import { formatNumber, onLanguage, t } from "./i18n.js";
import { cleanHtml } from "./safe_html.js";

const KINDS = ["weights", "vocabulary chosen from", "fine-tuning data", "training audio", "training text"];
const byId = (id) => document.getElementById(id);
const megabytes = (bytes) => t("unit.mb", { value: formatNumber(bytes / 1e6, 1) });
const percent = (share) => t("unit.percent", { value: formatNumber(100 * share, 1) });

let models = []; // what the server said last, the default first
let problem = null;
let refreshes = 0; // an answer that comes after a later refresh has begun is dropped
let askForKey;

/** Show the models whenever the section is opened. */
export function startModels(frame) {
  askForKey = frame.askForKey;
  document.addEventListener("section", ({ detail }) => detail === "models" && refresh());
  document.addEventListener("model-chosen", markChosen);
  onLanguage(render);
  if (!byId("models").hidden) refresh();
}

/** One model: what its page says, or only its entry in the list where that cannot be had. */
async function readModel(entry) {
  try {
    return await get(`models/${encodeURIComponent(entry.id)}`);
  } catch (error) {
    if (error instanceof ApiError && error.code === "unauthorized") throw error;
    return { name: entry.id, loaded: entry.loaded, backend: entry.backend, problem: error };
  }
}

async function readModels() {
  const list = (await get("v1/models")).data;
  return Promise.all(list.map(readModel));
}

/** Ask the server anew and show what it says; without a key, ask for the key first. */
async function refresh() {
  const number = ++refreshes;
  let found = null;
  let failed = null;
  try {
    found = await readModels();
  } catch (error) {
    failed = error;
  }
  if (number !== refreshes) return;
  if (failed?.code === "unauthorized" && (await askForKey())) return refresh();
  const same = !failed && !problem && JSON.stringify(found) === JSON.stringify(models);
  problem = failed;
  models = found ?? models;
  if (!same) render(); // what a visitor reads stays in place
  if (found) document.dispatchEvent(new CustomEvent("models", { detail: models.map(({ name }) => name) }));
  return undefined;
}

function render() {
  const cards = byId("model-cards");
  const open = new Set([...cards.querySelectorAll("details[open]")].map((each) => each.dataset.model));
  const parts = models.map((model) => makeCard(model, open.has(model.name)));
  if (problem) parts.unshift(makeProblem(describeError(problem), t("retry"), refresh));
  else if (!models.length) parts.push(make("p", { class: "muted", role: "status" }, t("models.loading")));
  cards.replaceChildren(...parts);
  markChosen({ detail: byId("model").value });
}

/** The name of the chosen model: pressed button, and the button's text. */
function markChosen({ detail: chosen }) {
  for (const button of document.querySelectorAll("#model-cards button[data-model]")) {
    const pressed = button.dataset.model === chosen;
    button.setAttribute("aria-pressed", String(pressed));
    button.textContent = t(pressed ? "models.chosen" : "models.use");
  }
}

const choose = (name) => document.dispatchEvent(new CustomEvent("model-chosen", { detail: name }));

function makeCard(model, open) {
  const id = `model-title-${models.indexOf(model)}`;
  return make(
    "article",
    { class: "card model-card", "aria-labelledby": id, "data-name": model.name },
    make("div", { class: "model-head" }, make("h2", { id }, model.name), ...makeBadges(model), makeChooser(model)),
    model.problem ? make("p", { class: "muted" }, describeError(model.problem)) : null,
    makeFacts(model),
    ...makeVerdicts(model.gate ?? {}),
    ...makeProvenance(model.name, model.provenance ?? []),
    model.card_html ? makeWholeCard(model, open) : null,
  );
}

function makeBadges(model) {
  const badges = model.default ? [t("models.default")] : [];
  badges.push(model.loaded ? t("models.loaded", { backend: model.backend ?? "?" }) : t("models.idle"));
  return badges.map((text) => make("span", { class: "badge" }, text));
}

function makeChooser({ name }) {
  const attributes = { type: "button", "data-model": name, "aria-pressed": "false", onclick: () => choose(name) };
  return make("button", attributes, t("models.use"));
}

/** Sizes by precision, the longest clip, the vocabulary, the kind of text: what is known of them. */
function makeFacts(model) {
  const facts = [];
  const sizes = new Map();
  for (const { precision, bytes } of model.files ?? []) sizes.set(precision, (sizes.get(precision) ?? 0) + bytes);
  for (const [precision, bytes] of sizes) facts.push([t("models.size", { precision }), megabytes(bytes)]);
  if (model.family) facts.push([t("models.family"), model.family]);
  if (model.max_seconds) facts.push([t("models.window"), t("unit.s", { value: formatNumber(model.max_seconds, 1) })]);
  if (model.vocabulary)
    facts.push([t("models.vocabulary"), t("models.tokens", { count: formatNumber(model.vocabulary) })]);
  if (model.text_rules) facts.push([t("models.text"), describeText(model.text_rules)]);
  if (!facts.length) return null;
  return make(
    "dl",
    { class: "facts-list" },
    ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
}

function describeText(rules) {
  return ["tr", "written"].includes(rules) ? t(`models.text.${rules}`) : rules;
}

/** What the quality gate found, for each precision that it judged. */
function makeVerdicts(gate) {
  const known = Object.entries(gate).map(([precision, verdict]) =>
    make("p", { class: "verdict" }, describeVerdict(precision, verdict)),
  );
  return known.length ? [make("h3", {}, t("models.gate")), ...known] : [];
}

function describeVerdict(precision, verdict) {
  const status = ["passed", "refused", "unmeasured"].includes(verdict.status) ? verdict.status : "unmeasured";
  const sentences = [t(`models.gate.${status}`, { precision })];
  if (verdict.reason) sentences.push(verdict.reason);
  const { wer, wer_loss: loss, wer_loss_interval: interval } = verdict;
  if (wer && Number.isFinite(loss) && Number.isFinite(wer.fp32) && Number.isFinite(wer[precision])) {
    const points = (share) => formatNumber(100 * share, 1);
    sentences.push(t("models.gate.wer", { precision, fp32: percent(wer.fp32), quantised: percent(wer[precision]) }));
    const lost = { loss: points(loss), clips: formatNumber(verdict.clips ?? 0) };
    sentences.push(
      interval
        ? t("models.gate.loss", { ...lost, low: points(interval[0]), high: points(interval[1]) })
        : t("models.gate.loss.plain", lost),
    );
    if (Number.isFinite(verdict.max_wer_loss))
      sentences.push(t("models.gate.limit", { limit: points(verdict.max_wer_loss) }));
  }
  if (verdict.inconclusive) sentences.push(t("models.gate.inconclusive"));
  return sentences.join(" ");
}

/** Where weights, texts and sound come from, each with its licence. */
function makeProvenance(name, provenance) {
  if (!provenance.length) return [];
  const header = ["what", "name", "licence"].map((column) => t(`models.provenance.${column}`));
  const rows = provenance.map((each) => [nameKind(each.what), makeSource(each), each.licence ?? ""]);
  return [make("h3", {}, t("models.provenance")), makeTable(`${name}: ${t("models.provenance")}`, header, rows)];
}

/** What a source was for: the bundled models' words in the page's language, others as they stand. */
function nameKind(what) {
  return KINDS.includes(what) ? t(`what.${what}`) : (what ?? "");
}

/** The name, as a link where the source is an address. */
function makeSource({ name, source }) {
  const shown = name || source || "";
  if (!/^https?:\/\//.test(source ?? "")) return shown;
  return make("a", { href: source, rel: "noopener noreferrer" }, shown);
}

function makeWholeCard(model, open) {
  return make(
    "details",
    { "data-model": model.name, open },
    make("summary", {}, t("models.card")),
    make("div", { class: "whole-card", lang: "en" }, ...cleanHtml(model.card_html)),
  );
}
