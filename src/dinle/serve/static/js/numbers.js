// The section "Numbers": this server now, and the published reports. Loaded when the section is first opened.
import { startLiveFigures } from "./live_figures.js";
import { startReports } from "./reports.js";

/** Start both parts. */
export function startNumbers({ askForKey }) {
  startLiveFigures({ askForKey });
  startReports();
}
