// Elements without innerHTML: what a server or a file says is text, never markup.

/**
 * A new element. Properties are set as attributes; `on...` functions are listeners; null, undefined and false are left out.
 * Children are elements or text; null and undefined are left out.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A table that scrolls sideways where it is too wide; the first cell of each row names the row. */
export function makeTable(caption, header, rows) {
  const cell = (text, place) => make(place ? "td" : "th", place ? {} : { scope: "row" }, text);
  return make(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make(
      "table",
      {},
      make("thead", {}, make("tr", {}, ...header.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))),
    ),
  );
}

/** A problem in words, with a button that tries again. */
export function makeProblem(text, retryText, retry) {
  return make(
    "div",
    { class: "problem", role: "alert" },
    make("span", {}, text),
    make("button", { type: "button", onclick: retry }, retryText),
  );
}
