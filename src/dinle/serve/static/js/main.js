// The frame: tabs, language, appearance, the key; each section lives in a module of its own.
import { get, setKey } from "./api.js";
import { getLanguage, onLanguage, recall, remember, setLanguage, startLanguage, t } from "./i18n.js";
import { startLive } from "./live.js";
import { startModels } from "./models.js";
import { startTranscribe } from "./transcribe.js";

const THEMES = ["auto", "light", "dark"];
const sections = ["transcribe", "models", "numbers"];
const byId = (id) => document.getElementById(id);

/** Show one section; its address ends in #name, so that it can be linked to. */
function showSection(name, focus = false) {
  for (const each of sections) {
    const tab = byId(`tab-${each}`);
    const chosen = each === name;
    byId(each).hidden = !chosen;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen && focus) tab.focus();
  }
  document.dispatchEvent(new CustomEvent("section", { detail: name }));
}

function startTabs() {
  for (const [place, name] of sections.entries()) {
    byId(`tab-${name}`).addEventListener("click", () => {
      history.replaceState(null, "", `#${name}`);
      showSection(name);
    });
    byId(`tab-${name}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = sections[(place + step + sections.length) % sections.length];
      history.replaceState(null, "", `#${next}`);
      showSection(next, true);
    });
  }
  const follow = () => showSection(sections.includes(location.hash.slice(1)) ? location.hash.slice(1) : "transcribe");
  window.addEventListener("hashchange", follow);
  follow();
}

function startTheme() {
  let theme = recall("dinle.theme") ?? "auto";
  const show = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    byId("theme").setAttribute("aria-label", t(`theme.${theme}`));
    byId("theme").title = t(`theme.${theme}`);
    document.dispatchEvent(new CustomEvent("theme"));
  };
  byId("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    remember("dinle.theme", theme);
    show();
  });
  onLanguage(show);
}

function startSwitch() {
  const button = byId("language");
  button.addEventListener("click", () => setLanguage(getLanguage() === "tr" ? "en" : "tr"));
  onLanguage((language) => {
    const other = language === "tr" ? "en" : "tr";
    button.textContent = other.toUpperCase();
    button.lang = other;
    button.setAttribute("aria-label", { tr: "Türkçe", en: "English" }[other]);
  });
}

let asked = null;

/** Ask for the API key; true where one was given. Used by whoever was refused with 401; several at once share one answer. */
export function askForKey() {
  asked ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener(
      "close",
      () => {
        const given = dialog.returnValue === "ok" && byId("key").value.trim() !== "";
        if (given) setKey(byId("key").value.trim());
        byId("key").value = "";
        asked = null;
        resolve(given);
      },
      { once: true },
    );
  });
  return asked;
}

async function showVersion() {
  try {
    byId("version").textContent = `dinle ${(await get("version")).version}`;
  } catch {
    // the first request of the visitor will tell what is wrong
  }
}

startLanguage();
startTabs();
startTheme();
startSwitch();
byId("address").textContent = new URL("./", document.baseURI).href;
startTranscribe({ askForKey });
startLive({ askForKey });
startModels({ askForKey });
// The charts are large and seldom looked at first.
document.addEventListener("section", async function load({ detail }) {
  if (detail !== "numbers") return;
  document.removeEventListener("section", load);
  (await import("./numbers.js")).startNumbers({ askForKey });
});
if (location.hash === "#numbers") showSection("numbers");
showVersion();
