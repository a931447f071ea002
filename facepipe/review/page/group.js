// One group: all its faces, and the groups that may be the same person.

import { answer } from "./app.js";
import { button, el, link, percent, plural, words } from "./dom.js";
import { arrived, arrows, grid, tile } from "./faces.js";
import { about, answers } from "./groups.js";
import { nameField } from "./names.js";
import { thumbnail } from "./pictures.js";
import { get, post } from "./server.js";

export class Group {
  constructor(root, id) {
    this.id = Number(id);
    this.head = el("div", "pagehead");
    this.alike = el("div", "alike");
    this.faces = [];
    this.list = grid((face) => tile(face, {
      where: `group ${this.id}`,
      what: "does not belong here",
      put: ({ face: name }) => ({ do: "put_out", group: this.id, faces: [name] }),
      faces: () => this.faces,
    }));
    arrows(this.list);
    root.append(this.head, this.alike, el("p", "hint", "Click the faces that do not belong. The surest come first, so look at the end."), this.list.node);
  }

  close() { this.list.close(); }

  async load() {
    const { group, faces, alike } = await get("group", { id: this.id });
    const typing = this.head.contains(document.activeElement) && document.activeElement.value;
    this.faces = faces;
    arrived(`group ${this.id}`, faces);
    this.list.set(faces, { fresh: true });
    if (!typing) this.show(group);
    this.alike.replaceChildren(...(alike.length ? [el("h2", "", "Perhaps the same person"), el("div", "pairs", ...alike.map((other) => this.other(other)))] : []));
  }

  show(group) {
    const does = answers(group, { gone: () => { location.hash = "#/groups"; } });
    const person = group.suggestion;
    const open = group.state === "open" || group.state === "skipped";
    const field = open ? nameField({
      label: "Who is this?",
      placeholder: person ? `${person[0]}? Enter for yes` : "Who is this?",
      give: does.give,
      empty: (event) => event.key === "Enter" && does.accept !== null && (does.accept(), true),
    }) : null;
    this.head.replaceChildren(
      link("#/groups", "back", "‹ Groups"),
      el("div", "title", el("span", "ava", thumbnail(group.cover)), el("div", "", el("h1", "", group.person === null ? `Group ${group.id}` : words(group.person)), el("p", "soft", about(group)))),
      el("div", "head",
        field?.node,
        open && person ? button(el("span", "", "Yes, ", words(person[0]), el("small", "", percent(person[1]))), "yes", does.accept) : null,
        open ? button("Later", "quiet", does.skip) : null,
        open ? button("Nobody I need", "quiet", does.ignore) : null),
    );
    if (field && document.activeElement === document.body) field.input.focus({ preventScroll: true });
  }

  other({ id, size, cover, likeness }) {
    const does = (body) => async () => { if ((await answer(body)) !== null) await this.load(); };
    return el("div", "other",
      link(`#/group/${id}`, "ava", thumbnail(cover)),
      el("span", "soft", `${plural(size, "face")}, likeness ${likeness.toFixed(2)}`),
      button("Join", "yes", does({ do: "join", groups: [this.id, id] })),
      button("No", "quiet no", does({ do: "apart", groups: [this.id, id] })));
  }
}

// Two groups that may be one person, side by side: yes or no, one key each.
export class Pairs {
  constructor(root) {
    this.place = 0;
    this.stage = el("div", "duel");
    this.hint = el("p", "hint", "Are these the same person?", el("span", "mouse", " ", el("kbd", "", "Y"), " yes, ", el("kbd", "", "N"), " no, ", el("kbd", "", "→"), " later."));
    root.append(this.hint, this.stage);
    this.passed = new Set();
  }

  close() {}

  async load() {
    const { pairs } = await get("pairs");
    this.pairs = pairs.filter(([a, b]) => !this.passed.has(`${a} ${b}`));
    await this.show();
  }

  async show() {
    const [pair] = this.pairs;
    this.hint.hidden = !pair;
    if (!pair) {
      this.stage.replaceChildren(el("div", "empty", el("h2", "", "No more pairs."), el("p", "", "Groups that may be the same person are asked about here."), link("#/groups", "more", "To the groups")));
      return;
    }
    const [a, b, likeness] = pair;
    const { rows } = await (await post("rows", { groups: [a, b], faces: innerWidth <= 620 ? 8 : 12 })).json();
    if (rows.length < 2) {
      this.pairs.shift();
      await this.show();
      return;
    }
    const side = (group) => el("section", "side",
      el("div", "wrapped", ...group.faces.map((face) => el("span", "pic", thumbnail(face.face)))),
      link(`#/group/${group.id}`, "soft", about(group)));
    this.stage.replaceChildren(
      el("div", "sides", ...rows.map(side)),
      el("div", "choice-bar",
        button(el("span", "", "No ", el("kbd", "", "N")), "big no", () => this.give(false)),
        el("span", "soft", `likeness ${likeness.toFixed(2)}`),
        button(el("span", "", "Yes ", el("kbd", "", "Y")), "big yes", () => this.give(true))),
      button("Later", "quiet", () => this.later()),
    );
  }

  async give(same) {
    const [a, b] = this.pairs[0];
    const done = await answer(same ? { do: "join", groups: [a, b] } : { do: "apart", groups: [a, b] });
    if (done !== null) await this.load();
  }

  async later() {
    const [a, b] = this.pairs[0];
    this.passed.add(`${a} ${b}`);
    this.pairs.shift();
    await this.show();
  }

  key(event) {
    if (!this.pairs?.length) return false;
    const act = { y: () => this.give(true), n: () => this.give(false), ArrowRight: () => this.later() }[event.key];
    act?.();
    return act !== undefined;
  }
}
