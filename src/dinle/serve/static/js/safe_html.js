// Rendered text of others, made harmless once more on this side: only what is named here is kept.

const KEPT = new Set(
  (
    "a abbr b blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i kbd li ol p pre s span strong sub sup " +
    "table tbody td tfoot th thead tr ul"
  ).split(" "),
);

/** Elements that are not kept go with all that is in them; of attributes only a link's address stays, where it is http. */
function clean(element) {
  if (!KEPT.has(element.localName)) {
    element.remove();
    return;
  }
  const href = element.localName === "a" ? element.getAttribute("href") : null;
  for (const { name } of [...element.attributes]) element.removeAttribute(name);
  if (href !== null && /^https?:\/\//i.test(href)) {
    element.setAttribute("href", href);
    element.setAttribute("rel", "noopener noreferrer");
  }
  for (const child of [...element.children]) clean(child);
}

/** A table scrolls by itself, so that the page does not. */
function wrapTable(table) {
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  table.replaceWith(scroll);
  scroll.append(table);
}

/** The nodes of a piece of HTML, without anything that runs, loads or styles. */
export function cleanHtml(html) {
  const { body } = new DOMParser().parseFromString(html, "text/html");
  for (const child of [...body.children]) clean(child);
  for (const table of body.querySelectorAll("table")) wrapTable(table);
  for (const code of body.querySelectorAll("pre")) code.tabIndex = 0; // it scrolls too
  return [...body.childNodes];
}
