// The people who are known, and the page of each: all faces, doubtful ones first.

import { answer, say } from "./app.js";
import { button, count, el, link, percent, plain, plural, words } from "./dom.js";
import { arrived, arrows, grid, isOut, tile } from "./faces.js";
import { List } from "./list.js";
import { nameField } from "./names.js";
import { thumbnail } from "./pictures.js";
import { get } from "./server.js";

export const address = (name) => `#/person/${encodeURIComponent(name)}`;

const SURE = 0.9;
const isDoubtful = ({ status, probability }) => status === "recognised" && probability !== null && probability < SURE;

export class People {
  constructor(root) {
    this.search = el("input", "search");
    Object.assign(this.search, { type: "search", placeholder: "Find a person" });
    this.search.setAttribute("aria-label", "Find a person");
    this.search.addEventListener("input", () => this.show());
    this.list = new List({
      id: ({ name }) => name,
      make: (person) => this.card(person),
      className: "list people",
      cells: (width) => ({ across: Math.max(1, Math.floor(width / 250)), height: 92 }),
    });
    this.empty = el("div", "empty", el("h2", "", "Nobody has a name yet."), el("p", "", "Name a group, and its person appears here."), link("#/groups", "more", "To the groups"));
    root.append(el("div", "subtabs", this.search), this.list.node, this.empty);
  }

  close() { this.list.close(); }

  async load() {
    this.people = (await get("people")).people;
    this.show(true);
  }

  show(fresh = false) {
    const wanted = plain(this.search.value);
    this.list.set(this.people.filter(({ name }) => plain(name).includes(wanted)), { fresh });
    this.empty.hidden = this.people.length > 0;
    this.search.hidden = this.people.length === 0;
  }

  card(person) {
    return link(address(person.name), "card", el("span", "ava", thumbnail(person.cover)),
      el("span", "body", el("b", "", words(person.name)), el("span", "soft", plural(person.faces, "face")),
        person.doubtful ? el("span", "doubt", `${count(person.doubtful)} doubtful`) : null));
  }
}

export class Person {
  constructor(root, name) {
    this.name = name;
    this.root = root;
    this.chosen = null; // a set while faces are being chosen
    this.faces = [];
    this.head = el("div", "pagehead");
    this.bar = el("div", "joinbar");
    this.bar.hidden = true;
    this.list = grid((face) => this.tile(face), { under: 22 });
    arrows(this.list);
    this.hint = el("p", "hint", "Doubtful faces come first. Click the faces that are somebody else.");
    root.append(this.head, this.hint, this.list.node, this.bar);
  }

  close() { this.list.close(); }

  async load() {
    const { person, faces } = await get("person", { name: this.name });
    this.person = person;
    this.faces = faces;
    arrived(`person ${this.name}`, faces);
    this.list.set(faces, { fresh: true });
    if (!(this.head.contains(document.activeElement) && document.activeElement.value)) this.show();
  }

  tile(face) {
    const node = tile(face, {
      where: `person ${this.name}`,
      what: `not ${this.name}`,
      put: ({ face: name }) => ({ do: "deny", faces: [name], person: this.name }),
      faces: () => this.faces,
      note: { enrolled: "enrolled", confirmed: "confirmed", recognised: percent(face.probability) }[face.status],
      flag: isDoubtful(face) ? "?" : "",
    });
    const picture = node.querySelector(".pic");
    picture.addEventListener("click", (event) => {
      if (!this.chosen) return;
      event.stopImmediatePropagation();
      if (!this.chosen.delete(face.face)) this.chosen.add(face.face);
      node.classList.toggle("chosen", this.chosen.has(face.face));
      this.drawBar();
    }, { capture: true });
    if (this.chosen?.has(face.face)) node.classList.add("chosen");
    return node;
  }

  show() {
    const { faces, cover, ...counts } = this.person;
    const kinds = ["enrolled", "confirmed", "recognised"].filter((kind) => counts[kind]).map((kind) => `${count(counts[kind])} ${kind}`);
    const facts = [plural(faces, "face"), ...kinds].join(" · ");
    const rename = el("div", "inline");
    const ask = (label, give) => () => {
      const field = nameField({ label, placeholder: label, give });
      rename.replaceChildren(field.node, button("Cancel", "quiet", () => rename.replaceChildren()));
      field.input.focus();
    };
    this.head.replaceChildren(
      link("#/people", "back", "‹ People"),
      el("div", "title", el("span", "ava", thumbnail(cover)), el("div", "", el("h1", "", words(this.name)), el("p", "soft", facts))),
      el("div", "acts",
        button("Rename", "quiet", ask("New name", (to) => this.move({ do: "rename", person: this.name, to }, to))),
        button("Same as…", "quiet", ask("Who is the same person?", (to) => this.merge(to))),
        button("Choose faces", "quiet", () => this.choosing(true)),
        this.doubtful().length ? button(`All ${this.doubtful().length} doubtful are right`, "quiet", () => this.right()) : null),
      rename,
    );
  }

  doubtful() { return this.faces.filter(isDoubtful); }

  // Whoever has clicked the wrong ones out says that the rest is right.
  async right() {
    const faces = this.doubtful().filter(({ face }) => !isOut(`person ${this.name}`, face)).map(({ face }) => face);
    if (faces.length && (await answer({ do: "confirm", faces, person: this.name })) !== null) await this.load();
  }

  async move(body, to) {
    if ((await answer(body)) !== null) location.replace(address(to));
  }

  merge(to) {
    if (to === this.name) say("That is the name of this person.", null, true);
    else this.move({ do: "merge", people: [this.name, to], into: to }, to);
  }

  // Faces are chosen to be somebody else together, or one to be the cover.
  choosing(is) {
    this.chosen = is ? new Set() : null;
    this.list.node.classList.toggle("choosing", is);
    this.list.set(this.faces, { fresh: true });
    this.drawBar();
  }

  drawBar() {
    this.bar.hidden = this.chosen === null;
    if (!this.chosen) return;
    const faces = [...this.chosen];
    const field = faces.length ? nameField({
      label: "Who are these?",
      placeholder: "They are…",
      give: async (into) => { if ((await answer({ do: "split", person: this.name, faces, into })) !== null) await this.finish(); },
    }) : null;
    this.bar.replaceChildren(
      el("span", "", faces.length ? `${plural(faces.length, "face")} chosen` : "Click the faces that belong together"),
      field ? field.node : "",
      faces.length === 1 ? button("Use as cover", "quiet", async () => { if ((await answer({ do: "cover", person: this.name, face: faces[0] })) !== null) await this.finish(); }) : "",
      button("Done", "quiet", () => this.choosing(false)),
    );
  }

  async finish() {
    this.choosing(false);
    await this.load();
  }
}
