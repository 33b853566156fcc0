// This server now: its /metrics, asked while somebody looks, as figures and a line of the last minutes.
import { describeError, get } from "./api.js";
import { drawChart } from "./charts.js";
import { make, makeProblem, makeTable } from "./dom.js";
import { formatNumber, onLanguage, t } from "./i18n.js";
import { findQuantile, growth, parseMetrics, readBuckets, subtractBuckets, sumSamples } from "./metrics.js";

const PERIOD_MS = 2000;
const WINDOW_MS = 60_000; // rates and percentiles are of the last minute
const HISTORY_MS = 300_000; // the line goes back five minutes
const GAP_MS = 3 * PERIOD_MS; // longer without an answer, and the line breaks
const TABLE_ROWS = 12;
const ROUTES = ["/transcribe", "/v1/audio/transcriptions"];
const FIGURES = ["requests", "p50", "p95", "rtfx", "queue", "running", "streams", "refused", "memory"];

const byId = (id) => document.getElementById(id);
const scrapes = []; // of the last minute, the oldest first
const history = []; // {time, rate, p95}
let askForKey;
let figures = null; // of the last scrape
let chart = null;
let timer = 0;
let asking = false;

/** Show the figures, and ask for them while the section is open and the tab is seen. */
export function startLiveFigures(frame) {
  askForKey = frame.askForKey;
  document.addEventListener("section", ask);
  document.addEventListener("visibilitychange", ask);
  onLanguage(build);
  ask();
}

const isSeen = () => !byId("numbers").hidden && !document.hidden;

/** One question and, a while after its answer, the next; none while nobody looks. */
async function ask() {
  if (asking || !isSeen()) return;
  clearTimeout(timer);
  asking = true;
  let problem = null;
  try {
    take(parseMetrics(await get("metrics", "text")), performance.now());
  } catch (error) {
    problem = error;
  }
  const again = problem?.code !== "unauthorized" || (await askForKey());
  asking = false;
  showProblem(problem);
  if (!problem) show();
  if (again) timer = setTimeout(ask, problem?.code === "unauthorized" ? 0 : PERIOD_MS);
}

/** What the figures need of a scrape. */
function readScrape(samples, time) {
  return {
    time,
    requests: sumSamples(samples, "dinle_requests_total", { route: ROUTES, method: "POST" }),
    refused: sumSamples(samples, "dinle_rejected_total"),
    audio: sumSamples(samples, "dinle_audio_seconds_total"),
    work: sumSamples(samples, "dinle_inference_seconds_sum"),
    buckets: readBuckets(samples, "dinle_request_seconds", { route: ROUTES }),
    queue: sumSamples(samples, "dinle_queue_depth"),
    running: sumSamples(samples, "dinle_running"),
    streams: sumSamples(samples, "dinle_live_streams"),
    memory: sumSamples(samples, "process_resident_memory_bytes"),
  };
}

/** The figures of a scrape and what was before it in the window; null where there was nothing to measure. */
export function computeFigures(before, now) {
  const seconds = (now.time - before.time) / 1000;
  const work = growth(before.work, now.work);
  const latency = subtractBuckets(before.buckets, now.buckets);
  const quantile = (q) => {
    const value = findQuantile(q, latency);
    return Number.isFinite(value) ? value : null;
  };
  return {
    requests: seconds > 0 ? growth(before.requests, now.requests) / seconds : null,
    rtfx: work > 0 ? growth(before.audio, now.audio) / work : null,
    p50: quantile(0.5),
    p95: quantile(0.95),
    queue: now.queue,
    running: now.running,
    streams: now.streams,
    refused: growth(before.refused, now.refused),
    memory: now.memory,
    total: now.requests,
    refusedTotal: now.refused,
  };
}

function take(samples, time) {
  scrapes.push(readScrape(samples, time));
  while (scrapes[0].time < time - WINDOW_MS) scrapes.shift();
  figures = computeFigures(scrapes[0], scrapes.at(-1));
  if (history.length && time - history.at(-1).time > GAP_MS) history.push({ time: time - 1, rate: null, p95: null });
  history.push({ time, rate: figures.requests, p95: figures.p95 });
  while (history[0].time < time - HISTORY_MS) history.shift();
}

/** The elements, in the page's language; what they show comes after. */
function build() {
  const tile = (name) =>
    make(
      "div",
      { "data-figure": name },
      make("dt", {}, t(`now.${name}`)),
      make("dd", {}, "–"),
      make("dd", { class: "note muted" }),
    );
  byId("live-figures").replaceChildren(
    make("h2", {}, t("now.title")),
    make("p", { class: "muted" }, t("now.lead")),
    make("div", { id: "now-problem" }),
    make("dl", { class: "figures" }, ...FIGURES.map(tile)),
    make(
      "div",
      { class: "card report" },
      make("h3", {}, t("now.chart")),
      make("div", { class: "chart low", id: "now-chart" }),
      make("details", { id: "now-table", ontoggle: showTable }, make("summary", {}, t("numbers.table")), make("div")),
    ),
  );
  chart?.remove();
  chart = null;
  drawChart(byId("now-chart"), t("now.chart"), configure).then(
    (handle) => {
      chart?.remove(); // the language changed while Chart.js was on its way
      chart = handle;
    },
    () => byId("now-chart").replaceChildren(t("numbers.no_charts")),
  );
  if (figures) show();
}

function showProblem(problem) {
  const place = byId("now-problem");
  if (!problem) place.replaceChildren();
  else if (!place.hasChildNodes()) place.append(makeProblem(describeError(problem), t("retry"), ask));
}

const inSeconds = (value) => t("unit.s", { value: formatNumber(value, value < 1 ? 2 : 1) });
const FORMATS = {
  requests: (value) => formatNumber(value, 2),
  rtfx: (value) => `${formatNumber(value, 1)}×`,
  p50: inSeconds,
  p95: inSeconds,
  memory: (value) => t("unit.mb", { value: formatNumber(value / 1e6) }),
};

function show() {
  for (const name of FIGURES) {
    const value = figures[name];
    const tile = byId("live-figures").querySelector(`[data-figure="${name}"]`);
    tile.dataset.value = value ?? "";
    tile.querySelector("dd").textContent = value === null ? "–" : (FORMATS[name] ?? formatNumber)(value);
  }
  const note = (name, text) => {
    byId("live-figures").querySelector(`[data-figure="${name}"] .note`).textContent = text;
  };
  note("requests", t("now.total", { count: formatNumber(figures.total) }));
  note("refused", t("now.total", { count: formatNumber(figures.refusedTotal) }));
  showTable();
  const shown = chart?.chart();
  if (!shown) return;
  Object.assign(shown.data, makeData());
  shown.update("none");
}

/** The points by minutes before now. */
function makeData() {
  const now = history.at(-1)?.time ?? 0;
  const points = (name) => history.map((each) => ({ x: (each.time - now) / 60_000, y: each[name] }));
  const [rate, latency] = chart?.chart()?.data.datasets ?? [{}, {}];
  return {
    datasets: [
      { ...rate, data: points("rate") },
      { ...latency, data: points("p95") },
    ],
  };
}

function configure(colours) {
  const line = (label, colour, axis, dash = []) => ({
    label,
    yAxisID: axis,
    borderColor: colour,
    backgroundColor: colour,
    borderDash: dash,
    borderWidth: 2,
    pointRadius: 0,
  });
  const styles = [
    line(t("now.requests"), colours["series-1"], "y"),
    line(t("now.p95"), colours["series-2"], "right", [5, 4]),
  ];
  const axis = (text, position, grid) => ({
    position,
    beginAtZero: true,
    suggestedMax: 0.1,
    grid: { drawOnChartArea: grid },
    title: { display: true, text },
  });
  return {
    type: "line",
    data: { datasets: styles.map((style, place) => ({ ...style, data: makeData().datasets[place].data })) },
    options: {
      interaction: { mode: "index", intersect: false },
      scales: {
        x: {
          type: "linear",
          min: -HISTORY_MS / 60_000,
          max: 0,
          ticks: { stepSize: 1 },
          grid: { display: false },
          title: { display: true, text: t("now.minutes") },
        },
        y: axis(t("unit.per_second"), "left", true),
        right: axis(t("unit.seconds"), "right", false),
      },
      plugins: { legend: { labels: { usePointStyle: true, pointStyle: "line" } } },
    },
  };
}

/** The newest points as a table, written only while it is open. */
function showTable() {
  const details = byId("now-table");
  if (!details?.open) return;
  const now = history.at(-1)?.time ?? 0;
  const cell = (value, digits) => (value === null ? "–" : formatNumber(value, digits));
  const rows = history
    .slice(-TABLE_ROWS)
    .reverse()
    .map(({ time, rate, p95 }) => [formatNumber((time - now) / 1000), cell(rate, 2), cell(p95, 2)]);
  const header = [t("now.seconds_ago"), t("unit.per_second"), t("now.p95_s")];
  details.lastElementChild.replaceChildren(makeTable(t("now.chart"), header, rows));
}
