// Prometheus' text format, read: pure functions from a scrape's text to figures.
// Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).

const NAME = /[a-zA-Z_:][a-zA-Z0-9_:]*/y;
const LABEL = /\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,)?/y;
const UNESCAPED = { n: "\n" };

/** The text of a label's value as it was before it was escaped. */
function unescape(text) {
  return text.replace(/\\(.)/gs, (_, letter) => UNESCAPED[letter] ?? letter);
}

/** A sample's value: Prometheus writes +Inf, -Inf and NaN beside plain numbers. */
function parseValue(text) {
  const named = { "+Inf": Infinity, Inf: Infinity, "-Inf": -Infinity, NaN: NaN }[text];
  const value = named ?? (text === "" ? undefined : Number(text));
  if (value === undefined || (named === undefined && Number.isNaN(value))) throw new Error(`not a value: ${text}`);
  return value;
}

/** The labels of a line from the brace on, and where they end. */
function parseLabels(line, start) {
  const labels = {};
  let end = start + 1;
  for (;;) {
    LABEL.lastIndex = end;
    const found = LABEL.exec(line);
    if (found === null) break;
    labels[found[1]] = unescape(found[2]);
    end = LABEL.lastIndex;
    if (found[3] === undefined) break;
  }
  while (line[end] === " ") end += 1;
  if (line[end] !== "}") throw new Error(`not a line of Prometheus' text format: ${line}`);
  return [labels, end + 1];
}

/** All samples of a scrape: [{name, labels, value}], in its order. Throws on a line that is none. */
export function parseMetrics(text) {
  const samples = [];
  for (const raw of text.split("\n")) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    NAME.lastIndex = 0;
    const name = NAME.exec(line)?.[0];
    if (name === undefined) throw new Error(`not a line of Prometheus' text format: ${line}`);
    const [labels, end] = line[name.length] === "{" ? parseLabels(line, name.length) : [{}, name.length];
    samples.push({ name, labels, value: parseValue(line.slice(end).trim().split(/\s+/)[0]) });
  }
  return samples;
}

/** Whether a sample's labels are those asked for; a list names the values of which one must be there. */
function fits(labels, wanted) {
  return Object.entries(wanted).every(([name, value]) =>
    Array.isArray(value) ? value.includes(labels[name]) : labels[name] === value,
  );
}

/** Sum of a metric over all its series with these labels; 0 where there is none. */
export function sumSamples(samples, name, wanted = {}) {
  let sum = 0;
  for (const each of samples) if (each.name === name && fits(each.labels, wanted)) sum += each.value;
  return sum;
}

/** A histogram over all its series with these labels: [{le, count}], cumulative, by rising le. */
export function readBuckets(samples, name, wanted = {}) {
  const counts = new Map();
  for (const each of samples) {
    if (each.name !== `${name}_bucket` || !fits(each.labels, wanted)) continue;
    const le = parseValue(each.labels.le ?? "");
    counts.set(le, (counts.get(le) ?? 0) + each.value);
  }
  return [...counts].sort((one, other) => one[0] - other[0]).map(([le, count]) => ({ le, count }));
}

/** What a counter grew by; one that fell began anew, as Prometheus' increase() takes it. */
export function growth(before, after) {
  return after >= before ? after - before : after;
}

/** What came into a histogram between two scrapes; one that fell began anew with a new process. */
export function subtractBuckets(before, after) {
  const began = new Map(before.map(({ le, count }) => [le, count]));
  const anew = after.some(({ le, count }) => count < (began.get(le) ?? 0));
  return after.map(({ le, count }) => ({ le, count: anew ? count : count - (began.get(le) ?? 0) }));
}

/**
 * The quantile q of a histogram, with linear interpolation inside its bucket, as Prometheus' histogram_quantile does it;
 * NaN where nothing was observed. https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
 */
export function findQuantile(q, buckets) {
  const last = buckets.length - 1;
  if (last < 1 || buckets[last].le !== Infinity || !(buckets[last].count > 0) || Number.isNaN(q)) return NaN;
  if (q < 0) return -Infinity;
  if (q > 1) return Infinity;
  const rank = q * buckets[last].count;
  const place = buckets.slice(0, last).findIndex(({ count }) => count >= rank);
  if (place === -1) return buckets[last - 1].le;
  if (place === 0 && buckets[0].le <= 0) return buckets[0].le;
  const below = place ? buckets[place - 1] : { le: 0, count: 0 };
  const { le, count } = buckets[place];
  return below.le + (le - below.le) * ((rank - below.count) / (count - below.count));
}
