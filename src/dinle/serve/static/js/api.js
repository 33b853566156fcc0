// How the page speaks to its server: addresses, the API key, errors with a reason.
import { t } from "./i18n.js";

const KEY = "dinle.key"; // in sessionStorage: gone with the tab
const BUSY_S = 3; // what is told where a full server names no time

/** What the server refused, or why it was not reached. `code` is the server's, or "unreachable". */
export class ApiError extends Error {
  constructor(code, detail = "", retryAfterS = BUSY_S) {
    super(detail || code);
    this.code = code;
    this.detail = detail;
    this.retryAfterS = retryAfterS;
  }
}

/** The API key that was given, or null. */
export function getKey() {
  return sessionStorage.getItem(KEY);
}

/** Keep the key until the tab is closed. */
export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** The headers that every request carries. */
export function authHeaders() {
  const key = getKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** The error of an answer that is not 2xx: its body's text, its status and its header Retry-After. */
export function readError(body, status, retryAfter) {
  let problem = {};
  try {
    problem = JSON.parse(body) ?? {};
  } catch {
    // a proxy's page, perhaps
  }
  const { detail = problem.error?.message } = problem; // under /v1 errors are in OpenAI's form
  const known = { 401: "unauthorized", 429: "service_busy", 503: "service_busy" };
  const code = problem.code ?? known[status] ?? "other";
  return new ApiError(code, typeof detail === "string" ? detail : `HTTP ${status}`, Number(retryAfter) || BUSY_S);
}

/** The server's answer to a GET as JSON or text; an ApiError where there is none. */
export async function get(path, as = "json") {
  let answer;
  try {
    answer = await fetch(path, { headers: authHeaders() });
  } catch {
    throw new ApiError("unreachable");
  }
  if (!answer.ok) throw readError(await answer.text(), answer.status, answer.headers.get("Retry-After"));
  return as === "json" ? answer.json() : answer.text();
}

/** An open WebSocket to this server; the key travels as a subprotocol, since browsers set no headers there. */
export function openSocket(path) {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const key = getKey();
  return key ? new WebSocket(url, ["realtime", `openai-insecure-api-key.${key}`]) : new WebSocket(url);
}

/** An error in words for people, in the page's language. */
export function describeError(error) {
  const detail = error.detail || error.message;
  const values = { detail, seconds: error.retryAfterS ?? BUSY_S };
  try {
    return t(`error.${error.code}`, values);
  } catch {
    return t("error.other", values);
  }
}
