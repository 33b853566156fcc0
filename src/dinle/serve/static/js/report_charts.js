// Configurations of Chart.js for the published reports. Pure: figures and colours in, a configuration out.
import { formatNumber, t } from "./i18n.js";

const HEADROOM = 1.05; // of the longest whisker, so that its cap is not cut

/** The ends of the axis of values: all whiskers fit, and bars begin at 0. */
function findEnds(series) {
  const ends = series
    .flatMap(({ values, intervals }) => [...values, ...(intervals ?? []).flat()])
    .filter(Number.isFinite);
  return { suggestedMin: Math.min(0, ...ends) * HEADROOM, suggestedMax: Math.max(0, ...ends) * HEADROOM };
}

/** A tooltip's line: the value and, where there is one, its interval. */
function describePoint({ dataset, dataIndex, raw }, format) {
  const interval = dataset.intervals?.[dataIndex];
  const value = `${dataset.label}: ${format(raw)}`;
  return interval ? `${value} [${interval.map(format).join("; ")}]` : value;
}

/** Bars to the right, with whiskers; series: [{label, values, intervals, colour}]. */
export function configureBars({ labels, axis, format, series, colours }) {
  const values = { beginAtZero: true, ...findEnds(series), title: { display: true, text: axis } };
  const names = { grid: { display: false }, ticks: { autoSkip: false } };
  return {
    type: "bar",
    data: {
      labels,
      datasets: series.map(({ label, values: data, intervals, colour }) => ({
        label,
        data,
        intervals,
        backgroundColor: colour,
        borderRadius: 3,
        minBarLength: 2,
        maxBarThickness: 34,
      })),
    },
    options: {
      indexAxis: "y",
      scales: { x: values, y: names },
      plugins: {
        legend: { display: series.length > 1, labels: { color: colours.ink } },
        tooltip: {
          callbacks: {
            title: ([first]) => [first.label].flat().join(" ").replaceAll(",", ", "),
            label: (point) => describePoint(point, format),
          },
        },
      },
    },
  };
}

/** Answered and refused in each span of the overload, and how long the answered ones took. */
export function configureOverload({ overload }, colours) {
  const { at_s: at, length_s: lengths, accepted, refused, p95_s: p95 } = overload.over_time;
  const rate = (counts) => counts.map((count, place) => ({ x: at[place], y: count / lengths[place] }));
  const bars = (label, counts, colour) => ({
    type: "bar",
    label,
    data: rate(counts),
    backgroundColor: colour,
    stack: "requests",
    yAxisID: "y",
    barPercentage: 1,
    categoryPercentage: 1,
    order: 2,
  });
  const last = at.length - 1;
  const line = {
    type: "line",
    label: t("column.accepted_p95"),
    data: p95.map((y, place) => ({ x: at[place], y })),
    yAxisID: "right",
    borderColor: colours.ink,
    backgroundColor: colours.ink,
    borderWidth: 2,
    pointRadius: 0,
    order: 1,
  };
  return {
    type: "bar",
    data: {
      datasets: [
        bars(t("column.answered"), accepted, colours["series-1"]),
        bars(t("column.refused"), refused, colours["series-3"]),
        line,
      ],
    },
    options: {
      interaction: { mode: "index", intersect: false },
      scales: {
        x: {
          type: "linear",
          stacked: true,
          offset: false,
          min: 0,
          max: at[last] + lengths[last] / 2,
          grid: { display: false },
          title: { display: true, text: t("unit.seconds") },
        },
        y: { stacked: true, beginAtZero: true, title: { display: true, text: t("unit.per_second") } },
        right: {
          position: "right",
          beginAtZero: true,
          grid: { drawOnChartArea: false },
          title: { display: true, text: t("column.accepted_p95_s") },
        },
      },
      plugins: { tooltip: { callbacks: { title: ([first]) => t("unit.s", { value: formatNumber(first.parsed.x) }) } } },
    },
  };
}

/** Resident memory over the minutes of the soak, from zero: what is level looks level. */
export function configureMemory(soak, colours) {
  const data = soak.at_s.map((at, place) => ({ x: at / 60, y: soak.rss_mb[place] }));
  return {
    type: "line",
    data: {
      datasets: [
        {
          label: t("unit.mb_axis"),
          data,
          borderColor: colours["series-1"],
          backgroundColor: colours["series-1"],
          borderWidth: 2,
          pointRadius: 0,
        },
      ],
    },
    options: {
      interaction: { mode: "index", intersect: false },
      scales: {
        x: {
          type: "linear",
          min: 0,
          max: soak.at_s.at(-1) / 60,
          ticks: { includeBounds: false },
          grid: { display: false },
          title: { display: true, text: t("unit.minutes") },
        },
        y: { min: 0, title: { display: true, text: t("unit.mb_axis") } },
      },
      plugins: {
        legend: { display: false },
        tooltip: { callbacks: { title: ([first]) => t("unit.min", { value: formatNumber(first.parsed.x, 1) }) } },
      },
    },
  };
}
