// The text of a live stream while it comes: one span a segment, drafts replaced in place by their finals.
const END_PX = 40; // who reads less far above the end wants to see what is new

/**
 * Writes events into an element with role="log". A screen reader is told finals only: drafts, which change twice a second,
 * are hidden from it, and a final is a new element, since what becomes visible later is not announced everywhere.
 */
export class LiveText {
  #element;
  #segments = new Map(); // number -> {node, words}

  constructor(element) {
    this.#element = element;
    element.replaceChildren();
  }

  /** Take a `partial` or `final`; other events say nothing here. */
  write(event) {
    if (event.type !== "partial" && event.type !== "final") return;
    const { scrollHeight, scrollTop, clientHeight } = this.#element;
    const following = scrollHeight - scrollTop - clientHeight < END_PX;
    if (event.type === "partial") this.#writeDraft(event);
    else this.#writeFinal(event);
    if (following) this.#element.scrollTop = this.#element.scrollHeight;
  }

  /** All words so far: of finals, and of the last drafts of segments whose finals never came. */
  get words() {
    return [...this.#segments.values()].flatMap((segment) => segment.words);
  }

  #writeDraft({ segment, text, stable, words }) {
    const node = this.#segments.get(segment)?.node ?? this.#element.appendChild(makeSegment("segment draft"));
    node.setAttribute("aria-hidden", "true");
    const stands = makeSegment("stable");
    stands.textContent = stable;
    node.replaceChildren(stands, `${text.slice(stable.length)} `);
    this.#segments.set(segment, { node, words });
  }

  #writeFinal({ segment, text, words }) {
    const draft = this.#segments.get(segment)?.node;
    if (!text) {
      draft?.remove();
      this.#segments.delete(segment);
      return;
    }
    const node = makeSegment("segment");
    node.textContent = `${text} `;
    if (draft) draft.replaceWith(node);
    else this.#element.append(node);
    this.#segments.set(segment, { node, words });
  }
}

function makeSegment(className) {
  const node = document.createElement("span");
  node.className = className;
  return node;
}
