// The diff page of an evaluation. Everything that comes from data is set as text, never as markup.

const ROWS_AT_ONCE = 200; // a page of rows: thousands at once would take seconds to lay out
const data = JSON.parse(document.querySelector("#data").textContent);
const order = new Intl.Collator("tr", { numeric: true }); // as localeCompare("tr"), made once
const find = (id) => document.getElementById(id);
const formatNumber = (value, digits = 0) => value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (share) => `${formatNumber(100 * share, 1)} %`;
const lower = (text) => text.normalize("NFC").toLocaleLowerCase("tr");

/** What is shown: the normalisation, the column that sorts and its direction, what is searched, and the first row. */
const view = { form: data.main, column: "errors", descending: true, search: "", wrong: false, first: 0 };
data.clips.forEach((clip, place) => Object.assign(clip, { place: place + 1, searched: {} }));

/** Errors, counts and rates of a clip's words and characters; an empty reference counts as one unit, as in the report. */
function readCounts(clip) {
  const { words, characters } = clip.texts[view.form];
  const [substituted, inserted, deleted, reference] = words;
  const errors = substituted + inserted + deleted;
  const [wrong, letters] = characters;
  return { substituted, inserted, deleted, reference, errors, wer: errors / Math.max(1, reference), cer: wrong / Math.max(1, letters) };
}

/** The columns: heading, what it sorts by, what it shows, and whether the largest comes first at the first press. */
const COLUMNS = {
  order: { title: "No.", key: (clip) => clip.place, show: (clip) => formatNumber(clip.place), kind: "number first" },
  clip: { title: "Clip", key: (clip) => clip.id },
  text: { title: "Reference and hypothesis", key: (clip) => readSides(clip)[0] },
  errors: { title: "Errors", key: (clip) => readCounts(clip).errors, show: (clip) => formatNumber(readCounts(clip).errors), kind: "number", down: true },
  wer: { title: "WER", key: (clip) => readCounts(clip).wer, show: (clip) => percent(readCounts(clip).wer), kind: "number", down: true },
  cer: { title: "CER", key: (clip) => readCounts(clip).cer, show: (clip) => percent(readCounts(clip).cer), kind: "number", down: true },
  duration: { title: "Length", key: (clip) => clip.duration_s, show: (clip) => `${formatNumber(clip.duration_s, 1)} s`, kind: "number", down: true },
};

/** A new element; functions are listeners, the rest attributes; children are elements or text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Reference and hypothesis in the chosen form. */
function readSides(clip) {
  const sides = [[], []];
  for (const pair of clip.texts[view.form].pairs) {
    for (const side of [0, 1]) {
      const text = typeof pair === "string" ? pair : pair[side];
      if (text !== null) sides[side].push(text);
    }
  }
  return sides.map((words) => words.join(" "));
}

/** Whether a clip holds the searched text, in Turkish lower case, in its words, its name or its speaker. */
function holdsSearch(clip, wanted) {
  clip.searched[view.form] ??= lower([...readSides(clip), clip.id, clip.speaker ?? ""].join("\n"));
  return clip.searched[view.form].includes(wanted);
}

function chooseClips() {
  const { key } = COLUMNS[view.column];
  const wanted = lower(view.search.trim());
  const direction = view.descending ? -1 : 1;
  const compare = (one, other) => (typeof one.key === "string" ? order.compare(one.key, other.key) : one.key - other.key);
  return data.clips
    .filter((clip) => (!view.wrong || readCounts(clip).errors > 0) && (!wanted || holdsSearch(clip, wanted)))
    .map((clip) => ({ clip, key: key(clip) }))
    .sort((one, other) => direction * compare(one, other) || one.clip.place - other.clip.place)
    .map(({ clip }) => clip);
}

/** One word above the other. The words hidden from sight say to a screen reader what the colours say to the eye. */
function makePair(wanted, got) {
  const hint = (text) => make("span", { class: "hidden" }, text);
  const sign = (text) => make("span", { "aria-hidden": "true" }, text);
  const word = (text) => make("span", {}, text);
  if (wanted === null) return make("span", { class: "pair inserted" }, sign("+"), word(got), hint(" (inserted)"));
  if (got === null) return make("span", { class: "pair deleted" }, word(wanted), sign("−"), hint(" (deleted)"));
  if (wanted === got) return make("span", { class: "pair right" }, word(wanted), sign(got));
  return make("span", { class: "pair substituted" }, word(wanted), hint(" (recognised as) "), word(got));
}

function makeAlignment(clip) {
  const pairs = clip.texts[view.form].pairs.flatMap((pair) => (typeof pair === "string" ? pair.split(" ").map((word) => [word, word]) : [pair]));
  if (!pairs.length) return make("span", { class: "muted" }, "no words on either side");
  return make("div", { class: "alignment", lang: "tr" }, ...pairs.flatMap(([wanted, got]) => [makePair(wanted, got), " "]));
}

/** Put a player where the button was, and say so when the browser cannot play the file. */
function playClip(clip, button) {
  for (const playing of document.querySelectorAll("audio")) playing.pause();
  const player = make("audio", { controls: "", src: clip.audio, "aria-label": `Sound of ${clip.id}` });
  player.addEventListener("error", () => {
    const text = `The browser cannot play ${decodeURI(clip.audio)}: it is gone, or of a format that it does not know (--html_audio copy converts it).`;
    player.replaceWith(make("span", { class: "note", role: "alert" }, text));
  });
  button.replaceWith(player);
  player.focus();
  player.play().catch(() => {}); // what is wrong is told by the event above
}

function makeSound(clip) {
  if (clip.audio === null) return make("span", { class: "note" }, `No sound: ${clip.problem}.`);
  return make("button", { type: "button", "aria-label": `Play ${clip.id}`, onclick: (event) => playClip(clip, event.currentTarget) }, "▶ Play");
}

function makeRow(clip) {
  const name = make("span", { class: "name" }, clip.speaker === null ? clip.id : `${clip.id} (${clip.speaker})`);
  const failure = clip.error === null ? null : make("span", { class: "note" }, `Failed: ${clip.error}`);
  const cells = {
    clip: () => make("th", { role: "rowheader", scope: "row" }, name, failure, makeSound(clip)),
    text: () => make("td", { role: "cell", class: "words" }, makeAlignment(clip)),
  };
  const figure = ({ title, show, kind }) => make("td", { role: "cell", class: kind, "data-label": title }, show(clip));
  return make("tr", { role: "row" }, ...Object.entries(COLUMNS).map(([column, described]) => cells[column]?.() ?? figure(described)));
}

/** The errors of all clips that the filters leave, pooled as in the report. */
function summarize(clips) {
  const sum = { substituted: 0, inserted: 0, deleted: 0, errors: 0, reference: 0 };
  for (const counts of clips.map(readCounts)) for (const name of Object.keys(sum)) sum[name] += counts[name];
  const words = `${formatNumber(sum.substituted)} substituted, ${formatNumber(sum.inserted)} inserted, ${formatNumber(sum.deleted)} deleted`;
  const rate = clips.length ? `; WER ${percent(sum.errors / Math.max(1, sum.reference))}` : "";
  return `${formatNumber(clips.length)} of ${formatNumber(data.clips.length)} clips: ${words}${rate}`;
}

function showClips() {
  const clips = chooseClips();
  const last = Math.min(clips.length, view.first + ROWS_AT_ONCE);
  find("rows").replaceChildren(...clips.slice(view.first, last).map(makeRow));
  find("summary").textContent = summarize(clips);
  find("pager").hidden = clips.length <= ROWS_AT_ONCE;
  find("place").textContent = `${formatNumber(view.first + 1)} to ${formatNumber(last)} of ${formatNumber(clips.length)}`;
  find("previous").disabled = view.first === 0;
  find("next").disabled = last === clips.length;
}

/** Change what is shown; whatever is chosen anew begins at its first row. */
function change(changes) {
  Object.assign(view, { first: 0 }, changes);
  showClips();
}

function turnPage(step) {
  change({ first: view.first + step * ROWS_AT_ONCE });
  find("clips").scrollIntoView();
}

function sortBy(column) {
  const descending = column === view.column ? !view.descending : Boolean(COLUMNS[column].down);
  change({ column, descending });
  markColumns();
}

function markColumns() {
  for (const heading of find("columns").children) {
    const { column } = heading.dataset;
    const isSorted = column === view.column;
    if (isSorted) heading.setAttribute("aria-sort", view.descending ? "descending" : "ascending");
    else heading.removeAttribute("aria-sort");
    heading.querySelector("[aria-hidden]").textContent = isSorted ? (view.descending ? " ↓" : " ↑") : "";
  }
}

function showColumns() {
  const heading = ([column, { title }]) =>
    make(
      "th",
      { role: "columnheader", scope: "col", "data-column": column },
      make("button", { type: "button", onclick: () => sortBy(column) }, title, make("span", { "aria-hidden": "true" })),
    );
  find("columns").replaceChildren(...Object.entries(COLUMNS).map(heading));
  markColumns();
}

function showScores() {
  const { header, rows } = data.scores;
  const row = ([form, ...figures]) =>
    make("tr", form === view.form ? { class: "chosen" } : {}, make("th", { scope: "row" }, form), ...figures.map((text) => make("td", {}, text)));
  find("scores").replaceChildren(
    make("thead", {}, make("tr", {}, ...header.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...rows.map(row)),
  );
}

/** Say at the top that clips have no sound: why stands in their rows. */
function showSilent() {
  const silent = data.clips.filter(({ audio }) => audio === null);
  find("silent").hidden = silent.length === 0;
  const named = silent.slice(0, 3).map(({ id }) => id).join(", ");
  find("silent").textContent = `${formatNumber(silent.length)} of ${formatNumber(data.clips.length)} clips have no sound here: ${named}${silent.length > 3 ? ", …" : ""}. The reason stands beside each.`;
}

function start() {
  find("facts").textContent = data.facts;
  find("form").append(...data.forms.map((form) => make("option", { value: form }, form)));
  find("form").value = view.form;
  find("form").addEventListener("change", ({ target }) => {
    change({ form: target.value });
    showScores();
  });
  find("search").addEventListener("input", ({ target }) => change({ search: target.value }));
  find("wrong").addEventListener("change", ({ target }) => change({ wrong: target.checked }));
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("previous").addEventListener("click", () => turnPage(-1));
  find("next").addEventListener("click", () => turnPage(1));
  find("search").value = ""; // a browser that goes back fills in what was there
  find("wrong").checked = false;
  showSilent();
  showScores();
  showColumns();
  showClips();
}

start();
