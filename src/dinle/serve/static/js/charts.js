// Charts: Chart.js loaded when it is first wanted, colours from the page's variables, whiskers for intervals.
import { getLanguage } from "./i18n.js";

const SCRIPT = new URL("../vendor/chart.umd.js", import.meta.url).href;
const COLOURS = ["ink", "muted", "line", "card", "series-1", "series-2", "series-3", "series-4", "series-other"];
const NARROW_PX = 600; // a telephone: smaller letters
const WHISKER_PX = 5; // half the length of a whisker's cap
const drawn = new Set();
let loading = null;

/** Chart.js; a UMD file needs a script element, and the page's policy wants it to have an address of this server. */
export function loadChart() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = SCRIPT;
    script.onload = () => resolve(window.Chart);
    script.onerror = () => {
      loading = null; // the next one tries again
      reject(new Error(`${SCRIPT} was not loaded`));
    };
    document.head.append(script);
  });
  return loading;
}

/** The page's colours as a canvas understands them: a probe element resolves light-dark(), which a variable keeps as text. */
export function readColours() {
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colours = {};
  for (const name of COLOURS) {
    probe.style.color = `var(--${name})`;
    colours[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return colours;
}

/** A line from one end of an interval to the other, with caps, at the height of its bar. */
function drawWhisker(context, from, to, y) {
  context.beginPath();
  context.moveTo(from, y);
  context.lineTo(to, y);
  for (const x of [from, to]) {
    context.moveTo(x, y - WHISKER_PX);
    context.lineTo(x, y + WHISKER_PX);
  }
  context.stroke();
}

/** Draws the `intervals` of a dataset of horizontal bars: [low, high] for each bar. */
const whiskers = {
  id: "whiskers",
  afterDatasetsDraw(chart, _, { colour }) {
    chart.ctx.save();
    chart.ctx.strokeStyle = colour;
    chart.ctx.lineWidth = 1.5;
    for (const [place, { intervals }] of chart.data.datasets.entries()) {
      if (!intervals || !chart.isDatasetVisible(place)) continue;
      for (const [row, bar] of chart.getDatasetMeta(place).data.entries()) {
        const [from, to] = intervals[row].map((value) => chart.scales.x.getPixelForValue(value));
        drawWhisker(chart.ctx, from, to, bar.y);
      }
    }
    chart.ctx.restore();
  },
};

/** What every chart of the page shares; a chart's own options go over it. */
function fillIn(Chart, config, colours) {
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.font.size = window.innerWidth < NARROW_PX ? 11 : 13;
  Chart.defaults.color = colours.ink;
  Chart.defaults.borderColor = colours.line;
  Chart.defaults.animation = false;
  const options = { responsive: true, maintainAspectRatio: false, locale: getLanguage(), ...config.options };
  options.plugins = { whiskers: { colour: colours.ink }, ...options.plugins };
  return { ...config, options, plugins: [whiskers] };
}

/**
 * Draw a chart into an element and keep it up to the page's appearance. `build(colours)` gives Chart.js' configuration.
 * Returns {chart(), redraw(), remove()}.
 */
export async function drawChart(host, label, build) {
  const Chart = await loadChart();
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  host.replaceChildren(canvas);
  let chart = null;
  const handle = {
    chart: () => chart,
    redraw() {
      chart?.destroy();
      const colours = readColours();
      chart = new Chart(canvas, fillIn(Chart, build(colours), colours));
    },
    remove() {
      drawn.delete(handle);
      chart?.destroy();
      chart = null;
    },
  };
  handle.redraw();
  drawn.add(handle);
  return handle;
}

function redrawAll() {
  for (const each of drawn) each.redraw();
}
document.addEventListener("theme", redrawAll);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
