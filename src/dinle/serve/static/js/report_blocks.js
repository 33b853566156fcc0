// What each published report shows: its chart, its table, its words. Pure: from numbers.json to descriptions of blocks.
import { formatNumber, t } from "./i18n.js";
import { configureBars, configureMemory, configureOverload } from "./report_charts.js";

const PEERS = ["openvino-nncf", "ort-dynamic"]; // other tools' int8, measured beside dinle's own
const TEXTS = ["tr", "raw"];
const RATES = ["wer", "cer", "exact"];

export const percent = (share, digits = 1) => t("unit.percent", { value: formatNumber(100 * share, digits) });
const points = (share) => formatNumber(100 * share, 2);
const milliseconds = (seconds) => t("unit.ms", { value: formatNumber(1000 * seconds) });
const inSeconds = (seconds) => t("unit.s", { value: formatNumber(seconds, 2) });
const megabytes = (value) => t("unit.mb", { value: formatNumber(value, value < 100 ? 1 : 0) });
const between = ([low, high], format) => `[${format(low)}; ${format(high)}]`;
const withInterval = ({ rate, interval }) =>
  `${percent(rate)} ${between(interval, (share) => formatNumber(100 * share, 1))}`;

/** All blocks for which there are figures. */
export function makeBlocks(numbers) {
  const services = numbers.service ?? [];
  return [
    numbers.evaluation?.length ? makeEvaluation(numbers.evaluation) : null,
    numbers.int8_against_fp32 ? makeComparison(numbers.int8_against_fp32) : null,
    numbers.benchmark ? makeBenchmark("benchmark", numbers.benchmark) : null,
    numbers.wav2vec2_base ? makeBenchmark("wav2vec2_base", numbers.wav2vec2_base) : null,
    services.length ? makeLoad(services) : null,
    services.some(({ overload }) => overload) ? makeOverload(services.filter(({ overload }) => overload)) : null,
    ...services.filter(({ soak }) => soak).map(makeSoak),
  ].filter(Boolean);
}

/** A backend's name as people of the page's language read it. */
export function nameBackend({ backend, label }) {
  return PEERS.includes(backend) ? t(`backend.${backend}`) : label;
}

/** How to draw each measure of a benchmark: value, whiskers, and the axis' words. */
const MEASURES = {
  rtfx: { value: (one) => one.rtfx, interval: (one, clip) => [clip / one.p95_s, clip / one.p5_s], digits: 1 },
  latency: { value: (one) => 1000 * one.median_s, interval: (one) => [1000 * one.p5_s, 1000 * one.p95_s], digits: 0 },
  speedup: { value: (one) => one.speedup.ratio, interval: (one) => one.speedup.interval, digits: 2 },
  size: { value: (one) => one.size_mb, digits: 1 },
  memory: { value: (one) => one.peak_memory_mb, digits: 0 },
};

function makeBenchmark(key, report) {
  const clip = report.conditions.clip_s;
  const { backends } = report;
  return {
    key,
    title: t(`report.${key}.title`, { model: report.model }),
    text: `${t(`report.${key}.text`)} ${t("report.benchmark.how", { baseline: report.baseline })}`,
    label: t("report.measure"),
    options: Object.keys(MEASURES).map((value) => ({ value, text: t(`measure.${value}`) })),
    draw(choice, colours) {
      const { value, interval, digits } = MEASURES[choice];
      return configureBars({
        labels: backends.map((one) => labelBackend(one, report)),
        axis: t(`measure.${choice}`),
        format: (number) => formatNumber(number, digits),
        series: [
          {
            label: t(`measure.${choice}`),
            values: backends.map(value),
            intervals: interval && backends.map((one) => interval(one, clip)),
            colour: backends.map(({ backend }) => colours[PEERS.includes(backend) ? "series-other" : "series-1"]),
          },
        ],
        colours,
      });
    },
    table: listBackends(report),
    sources: [report],
  };
}

/** The label of a bar: what dinle takes by itself and what loses more than it may are said right there. */
function labelBackend(one, { choice, max_wer_loss: most }) {
  const lines = [nameBackend(one)];
  if (one.backend === choice) lines.push(t("report.choice"));
  if (one.quality && one.quality.wer_loss > most) lines.push(t("report.loses", { wer: percent(one.quality.wer) }));
  return lines;
}

function listBackends({ backends, baseline }) {
  const judged = backends.some(({ quality }) => quality);
  const header = ["backend", "precision", "median", "p95", "rtfx"].map((name) => t(`column.${name}`));
  header.push(t("column.speedup", { baseline }), t("column.size"), t("column.memory"));
  if (judged) header.push(t("column.wer"), t("column.wer_loss"));
  const rows = backends.map((one) => [
    nameBackend(one),
    one.stored_as,
    milliseconds(one.median_s),
    milliseconds(one.p95_s),
    formatNumber(one.rtfx, 1),
    `${formatNumber(one.speedup.ratio, 2)}× ${between(one.speedup.interval, (ratio) => formatNumber(ratio, 2))}`,
    megabytes(one.size_mb),
    megabytes(one.peak_memory_mb),
    ...(judged ? listQuality(one.quality) : []),
  ]);
  return { header, rows };
}

function listQuality(quality) {
  return quality
    ? [percent(quality.wer), `${points(quality.wer_loss)} ${between(quality.wer_loss_interval, points)}`]
    : ["–", "–"];
}

function makeEvaluation(reports) {
  const [first] = reports;
  const groups = TEXTS.flatMap((text) => ["wer", "cer"].map((measure) => ({ text, measure })));
  const rows = reports.flatMap((each) => TEXTS.map((text) => listScores(each, text)));
  return {
    key: "evaluation",
    title: t("report.evaluation.title", { model: first.model }),
    text: t("report.evaluation.text", {
      clips: formatNumber(first.clips),
      minutes: formatNumber(first.audio_s / 60, 1),
    }),
    options: [],
    draw: (_, colours) =>
      configureBars({
        labels: groups.map(({ text, measure }) => [t(`column.${measure}`), t(`text.${text}`)]),
        axis: t("unit.percent_axis"),
        format: (number) => t("unit.percent", { value: formatNumber(number, 1) }),
        series: reports.map((each, place) => ({
          label: `${each.model} ${each.stored_as}`,
          values: groups.map(({ text, measure }) => 100 * each.scores[text][measure].rate),
          intervals: groups.map(({ text, measure }) => each.scores[text][measure].interval.map((share) => 100 * share)),
          colour: colours[`series-${place + 1}`],
        })),
        colours,
      }),
    table: { header: ["model", "text", ...RATES, "clip_rtfx"].map((name) => t(`column.${name}`)), rows },
    sources: reports,
  };
}

function listScores(each, text) {
  const rates = RATES.map((measure) => withInterval(each.scores[text][measure]));
  return [`${each.model} ${each.stored_as}`, t(`text.${text}`), ...rates, formatNumber(each.rtfx, 1)];
}

function makeComparison(report) {
  const { better, same, worse } = report.clips_changed;
  const rows = TEXTS.flatMap((text) =>
    RATES.map((measure) => listDifference(text, measure, report.differences[text][measure])),
  );
  return {
    key: "int8_against_fp32",
    title: t("report.int8.title"),
    text: t("report.int8.text", {
      clips: report.clips,
      better,
      same,
      worse,
      candidate: report.candidate,
      baseline: report.baseline,
    }),
    label: t("report.text"),
    options: TEXTS.map((value) => ({ value, text: t(`text.${value}`) })),
    draw(choice, colours) {
      const differences = RATES.map((measure) => report.differences[choice][measure]);
      return configureBars({
        labels: RATES.map((measure) => t(`column.${measure}`)),
        axis: t("report.int8.axis"),
        format: (number) => formatNumber(number, 2),
        series: [
          {
            label: t("report.int8.axis"),
            values: differences.map(({ difference }) => 100 * difference),
            intervals: differences.map(({ interval }) => interval.map((share) => 100 * share)),
            colour: colours["series-1"],
          },
        ],
        colours,
      });
    },
    table: {
      header: ["text", "measure", "fp32", "int8", "difference", "verdict"].map((name) => t(`column.${name}`)),
      rows,
    },
    sources: [report],
  };
}

function listDifference(text, measure, { baseline, candidate, difference, interval, significant }) {
  const change = `${points(difference)} ${between(interval, points)}`;
  return [
    t(`text.${text}`),
    t(`column.${measure}`),
    percent(baseline),
    percent(candidate),
    change,
    t(significant ? "verdict.sure" : "verdict.unsure"),
  ];
}

const nameService = ({ model, backend }) => `${model} (${backend})`;

/** What each option of the block of loads draws: [load, figure] for each bar of a model. */
const LOADS = {
  latency: [
    ["unloaded", "p50_s"],
    ["unloaded", "p95_s"],
    ["users", "p50_s"],
    ["users", "p95_s"],
  ],
  per_second: [
    ["unloaded", "per_second"],
    ["users", "per_second"],
  ],
  rtfx: [
    ["unloaded", "rtfx"],
    ["users", "rtfx"],
  ],
};

function makeLoad(services) {
  const { users } = services[0].conditions;
  const name = (load, figure) => t(`load.${load}.${figure}`, { users });
  return {
    key: "service",
    title: t("report.service.title"),
    text: t("report.service.text", { users }),
    label: t("report.measure"),
    options: Object.keys(LOADS).map((value) => ({ value, text: t(`load.${value}`) })),
    draw: (choice, colours) =>
      configureBars({
        labels: services.map(({ model, backend }) => [model, backend]),
        axis: t(`load.${choice}`),
        format: (number) => formatNumber(number, choice === "rtfx" ? 1 : 2),
        series: LOADS[choice].map(([load, figure], place) => ({
          label: name(load, figure),
          values: services.map(({ loads }) => loads[load]?.[figure] ?? null),
          colour: colours[`series-${place + 1}`],
        })),
        colours,
      }),
    table: {
      header: ["model", "load", "per_second", "rtfx", "p50", "p95", "failed"].map((each) => t(`column.${each}`)),
      rows: services.flatMap(listLoads),
    },
    sources: services,
  };
}

function listLoads(service) {
  return Object.entries(service.loads)
    .sort(([, one], [, other]) => one.per_second - other.per_second)
    .map(([load, figures]) => [
      nameService(service),
      t(`load.${load}`, { users: service.conditions.users }),
      formatNumber(figures.per_second, 2),
      formatNumber(figures.rtfx, 1),
      inSeconds(figures.p50_s),
      inSeconds(figures.p95_s),
      formatNumber(figures.failed),
    ]);
}

function makeOverload(services) {
  const { at_s: at } = services[0].overload.over_time;
  const header = ["model", "arrivals", "answered", "refused", "failed", "accepted_p95", "refused_p95", "recovery"];
  return {
    key: "overload",
    title: t("report.overload.title"),
    text: t("report.overload.text", {
      factor: formatNumber(services[0].conditions.overload_factor),
      minutes: formatNumber(at.at(-1) / 60),
    }),
    label: t("column.model"),
    options: services.map((each) => ({ value: each.report, text: nameService(each) })),
    draw: (choice, colours) =>
      configureOverload(services.find(({ report }) => report === choice) ?? services[0], colours),
    table: { header: header.map((name) => t(`column.${name}`)), rows: services.map(listOverload) },
    sources: services,
  };
}

function listOverload(service) {
  const { overload } = service;
  return [
    nameService(service),
    t("unit.rate", { value: formatNumber(overload.arrivals_per_s, 1) }),
    formatNumber(overload.ok),
    formatNumber(overload.refused),
    formatNumber(overload.failed),
    inSeconds(overload.p95_s),
    overload.refused_p95_s === null ? "–" : milliseconds(overload.refused_p95_s),
    overload.recovered_after_s === null ? "–" : inSeconds(overload.recovered_after_s),
  ];
}

function makeSoak(service) {
  const { soak } = service;
  const minutes = formatNumber(soak.seconds / 60);
  const values = [megabytes(soak.base_mb), megabytes(soak.last_mb), megabytes(soak.most_mb), percent(soak.growth, 2)];
  return {
    key: `soak-${service.model}`,
    title: t("report.soak.title", { model: service.model }),
    text: t("report.soak.text", { minutes, users: service.conditions.users }),
    options: [],
    draw: (_, colours) => configureMemory(soak, colours),
    table: {
      header: ["model", "base", "last", "most", "growth"].map((name) => t(`column.${name}`)),
      rows: [[nameService(service), ...values]],
    },
    sources: [service],
  };
}
