// Faces that are probably somebody who is known: one at a time, yes or no, one key each; or all of one person at once.

import { answer } from "./app.js";
import { button, el, labelled, link, percent, words } from "./dom.js";
import { openFace } from "./sheet.js";
import { photo, thumbnail } from "./pictures.js";
import { get } from "./server.js";

// So many more faces of the person are shown below, and can be answered together.
const SHOWN = 24;

export class Suggestions {
  constructor(root) {
    this.passed = new Set();
    this.hint = el("p", "hint mouse", el("kbd", "", "Y"), " yes, ", el("kbd", "", "N"), " no, ", el("kbd", "", "→"), " later, ", el("kbd", "", "O"), " the photo.");
    this.stage = el("div", "ask");
    this.queue = el("div", "queue");
    root.append(this.hint, this.stage, this.queue);
  }

  close() {}

  async load() {
    const { suggestions } = await get("suggestions", { start: 0, count: 60 + this.passed.size });
    // One person's faces after each other, so that the eye has to learn a face once; whoever is surest comes first.
    const people = new Map();
    for (const item of suggestions.filter(({ face }) => !this.passed.has(face))) people.set(item.person, [...(people.get(item.person) ?? []), item]);
    this.items = [...people.values()].flat();
    this.show();
  }

  show() {
    const [item] = this.items;
    this.hint.hidden = !item;
    this.queue.replaceChildren();
    if (!item) {
      this.stage.replaceChildren(el("div", "empty", el("h2", "", "No more suggestions."), el("p", "", "Faces that are probably somebody you know, but not surely, are asked about here."), link("#/people", "more", "See the people")));
      return;
    }
    const large = el("img");
    large.alt = "";
    const asked = el("button", "face", thumbnail(item.face), large);
    asked.type = "button";
    labelled(asked, `Show the photo ${item.path}`);
    asked.addEventListener("click", () => openFace(item, this.items));
    const [content, number] = item.face.split(":");
    photo(large, { content, number, side: 480 }).then(() => large.classList.add("there"), () => large.remove());
    const like = el("div", "like");
    this.stage.replaceChildren(
      el("figure", "", asked, el("figcaption", "soft", "this face")),
      el("div", "question", el("h2", "", "Is this ", words(item.person), "?"), el("p", "soft", `${percent(item.probability)} sure`),
        el("div", "choice-bar",
          button(el("span", "", "No ", el("kbd", "", "N")), "big no", () => this.give(false)),
          button(el("span", "", "Yes ", el("kbd", "", "Y")), "big yes", () => this.give(true))),
        button("Later", "quiet", () => this.later())),
      el("figure", "", like, el("figcaption", "soft", words(item.person))),
    );
    this.compare(item, like);
    const rest = this.items.slice(1).filter(({ person }) => person === item.person).slice(0, SHOWN);
    if (!rest.length) return;
    this.queue.append(
      el("h4", "soft", "Perhaps ", words(item.person), " too"),
      el("div", "wrapped", ...rest.map((next) => el("span", "pic", thumbnail(next.face)))),
      button(el("span", "", `Yes, all ${rest.length + 1} are `, words(item.person)), "more", () => this.all([item, ...rest])),
    );
  }

  // The person's enrolled faces that are most like this one.
  async compare(item, holder) {
    const { nearest } = await get("nearest", { face: item.face, person: item.person, count: 4 });
    holder.replaceChildren(...nearest.map(({ face }) => el("span", "pic", thumbnail(face))));
  }

  async give(yes) {
    if (this.busy) return;
    this.busy = true;
    const item = this.items[0];
    const done = await answer({ do: yes ? "confirm" : "deny", faces: [item.face], person: item.person });
    this.busy = false;
    if (done === null) return;
    this.items.shift();
    if (this.items.length < 5) await this.load();
    else this.show();
  }

  async all(items) {
    const done = await answer({ do: "confirm", faces: items.map(({ face }) => face), person: items[0].person });
    if (done !== null) await this.load();
  }

  later() {
    this.passed.add(this.items.shift().face);
    if (this.items.length < 5) this.load();
    else this.show();
  }

  key(event) {
    const [item] = this.items ?? [];
    if (!item) return false;
    const act = { y: () => this.give(true), n: () => this.give(false), ArrowRight: () => this.later(), o: () => openFace(item, this.items) }[event.key];
    act?.();
    return act !== undefined;
  }
}
