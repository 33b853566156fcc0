// Which model hears: the list beside the file button.
import { get } from "./api.js";
import { onLanguage, t } from "./i18n.js";

const select = document.getElementById("model");
let names = [];
let wanted = null; // chosen elsewhere, perhaps before the list was there

/** Fill the list, and follow what other sections learn and choose. */
export function startModelChoice() {
  document.addEventListener("models", fillModels);
  document.addEventListener("model-chosen", ({ detail }) => {
    wanted = detail;
    show();
  });
  select.addEventListener("change", () => {
    wanted = select.value;
  });
  onLanguage(show);
  fillModels();
}

/** Ask the server for its models. Without an answer the default is the only choice. */
export async function fillModels() {
  try {
    names = (await get("v1/models")).data.map((model) => model.id);
  } catch {
    // what keeps the server from answering is told at the first recording
  }
  show();
}

/** The model to name in a request; "" for the server's default. */
export function chosenModel() {
  return select.value === names[0] ? "" : select.value;
}

function show() {
  const options = names.map((name, place) => new Option(place ? name : t("model.default", { name }), name));
  if (!options.length) options.push(new Option(t("model.unknown"), ""));
  select.replaceChildren(...options);
  if (names.includes(wanted)) select.value = wanted;
}
