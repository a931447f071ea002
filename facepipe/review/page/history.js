// What was answered, newest first; all of it can be taken back.

import { takeBack } from "./app.js";
import { button, el, words } from "./dom.js";
import { get } from "./server.js";

export class History {
  constructor(root) {
    this.list = el("ol", "answers");
    root.append(el("p", "hint", "Everything you answered, newest first. Taking a name back takes its faces out of the gallery again."), this.list);
  }

  close() {}

  async load() {
    const { answers } = await get("history", { count: 200 });
    const time = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
    this.list.replaceChildren(...answers.map(({ number, at, text, undone }) => el("li", undone ? "undone" : "",
      el("span", "", words(text)), el("time", "soft", time.format(new Date(1000 * at))),
      undone ? el("span", "soft", "taken back") : button("Undo", "quiet", () => takeBack(number)))));
    if (!answers.length) this.list.replaceChildren(el("li", "soft", "Nothing yet."));
  }
}
