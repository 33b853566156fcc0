// The published reports, from numbers.json: each a chart, the same as a table, and the conditions it was measured in.
import { describeError, get } from "./api.js";
import { drawChart } from "./charts.js";
import { make, makeProblem, makeTable } from "./dom.js";
import { formatNumber, getLanguage, onLanguage, t } from "./i18n.js";
import { makeBlocks } from "./report_blocks.js";

const LOCALES = { tr: "tr-TR", en: "en-GB" };
const byId = (id) => document.getElementById(id);
const choices = new Map(); // block to what was chosen in it, kept over a change of language
const opened = new Set(); // blocks whose table is open
let handles = [];
let numbers = null;
let drawings = 0; // charts of an earlier language that come late are removed

/** Load the reports and show them, anew in each language. */
export async function startReports() {
  onLanguage(render);
  await load();
}

async function load() {
  try {
    numbers = await get("static/numbers.json");
  } catch (error) {
    byId("reports").replaceChildren(makeProblem(describeError(error), t("retry"), load));
    return;
  }
  render();
}

function render() {
  if (!numbers) return;
  for (const handle of handles) handle.remove();
  handles = [];
  drawings += 1;
  const blocks = makeBlocks(numbers);
  byId("reports").replaceChildren(
    make("h2", {}, t("numbers.reports")),
    make("p", { class: "muted" }, t("numbers.reports.lead")),
    ...blocks.map(makeBlock),
  );
}

/**
 * One report. A block is {key, title, text, options, label, draw(choice, colours), table: {header, rows}, sources}; options:
 * [{value, text}] of what its chart can show, or empty; sources: [{report, conditions}], the files that it comes from.
 */
function makeBlock(block) {
  const host = make("div", { class: "chart" });
  const { header, rows } = block.table;
  const keepOpen = ({ target }) => (target.open ? opened.add(block.key) : opened.delete(block.key));
  const element = make(
    "article",
    { class: "card report", "data-report": block.key, "aria-labelledby": `report-${block.key}` },
    make("h3", { id: `report-${block.key}` }, block.title),
    make("p", {}, block.text),
    block.options.length > 1 ? makeSelect(block) : null,
    host,
    make(
      "details",
      { open: opened.has(block.key), ontoggle: keepOpen },
      make("summary", {}, t("numbers.table")),
      makeTable(block.title, header, rows),
    ),
    ...makeConditions(block.sources),
  );
  draw(block, host, drawings);
  return element;
}

const chosenOf = (block) => choices.get(block.key) ?? block.options[0]?.value;

function makeSelect(block) {
  const option = ({ value, text }) => make("option", { value, selected: value === chosenOf(block) }, text);
  const change = ({ target }) => {
    choices.set(block.key, target.value);
    block.handle?.redraw();
  };
  return make(
    "label",
    { class: "model-choice" },
    `${block.label} `,
    make("select", { onchange: change }, ...block.options.map(option)),
  );
}

async function draw(block, host, drawing) {
  try {
    block.handle = await drawChart(host, block.title, (colours) => block.draw(chosenOf(block), colours));
  } catch {
    host.replaceChildren(t("numbers.no_charts"));
    host.parentElement.querySelector("details").open = true;
    return;
  }
  if (drawing === drawings) handles.push(block.handle);
  else block.handle.remove();
}

/** The report files and their conditions, a paragraph for all that have the same. */
function makeConditions(sources) {
  const reports = new Map();
  for (const { report, conditions } of sources) {
    const text = describeConditions(conditions);
    reports.set(text, [...(reports.get(text) ?? []), report]);
  }
  return [...reports].map(([text, names]) =>
    make("p", { class: "muted conditions" }, make("code", {}, names.join(", ")), `: ${text}`),
  );
}

/** Machine, threads, sound, commit and day: what a figure hangs on. */
function describeConditions(given) {
  const parts = [];
  if (given.cpu) parts.push(t("condition.machine", { cpu: given.cpu, cores: given.cores, kind: given.cpu_kind }));
  if (given.workers) parts.push(t("condition.workers", { workers: given.workers, threads: given.threads }));
  else if (given.threads) parts.push(t("condition.threads", { threads: given.threads }));
  if (given.clip_s)
    parts.push(t("condition.clip", { clip: given.clip, seconds: formatNumber(given.clip_s, 1), runs: given.runs }));
  if (given.clips)
    parts.push(
      t("condition.clips", {
        count: given.clips.count,
        data: given.clips.manifest,
        seconds: formatNumber(given.clips.mean_s, 1),
      }),
    );
  if (given.data) parts.push(given.data);
  if (given.resamples) parts.push(t("condition.resamples", { count: formatNumber(given.resamples) }));
  if (given.commit) parts.push(t("condition.commit", { commit: given.commit }));
  parts.push(new Date(given.date).toLocaleDateString(LOCALES[getLanguage()], { dateStyle: "long", timeZone: "UTC" }));
  return `${parts.join("; ")}.`;
}
