// The groups of the pile, a row each: largest first, new ones on top.

import { answer, state } from "./app.js";
import { button, el, labelled, link, percent, plural, span, words } from "./dom.js";
import { arrived, strip } from "./faces.js";
import { List } from "./list.js";
import { nameField } from "./names.js";
import { get, post } from "./server.js";

const STATES = [["open", "To do"], ["single", "Singles"], ["skipped", "Later"], ["named", "Named"], ["ignored", "Nobody"]];

// So many faces of a group its row knows; as many are shown as fit.
const FACES = 24;
const TODO = ["open", "single", "skipped"];

export const about = (group) => [
  plural(group.size, "face"),
  group.photos === group.size ? "" : plural(group.photos, "photo"),
  span(group.first, group.last),
].filter(Boolean).join(" · ");

// A row in which a name is being typed, or that has the focus, is not drawn anew.
const typing = (id, row) => row.contains(document.activeElement) || (row.querySelector("input.name")?.value ?? "") !== "";

// The answers to a group, as its row and its own page have them. One at a time; sent(): it is on its way; gone(): it is on the disk,
// and the group not open any more; back(): it was refused.
export const answers = (group, { sent = () => {}, gone, back = () => {} }) => {
  let busy = false;
  const does = (body) => async () => {
    if (busy) return;
    busy = true;
    sent();
    const number = await answer({ group: group.id, ...body });
    busy = false;
    if (number !== null) gone();
    else back();
  };
  const suggested = group.suggestion?.[0];
  return {
    give: (person) => does({ do: "name", person })(),
    accept: suggested === undefined ? null : does({ do: "name", person: suggested }),
    ignore: does({ do: "ignore" }),
    skip: does({ do: "skip" }),
  };
};

export class Groups {
  constructor(root, which = "open") {
    this.which = which;
    this.details = new Map();
    this.marked = new Set();
    this.said = new WeakMap(); // what each row shows
    this.waiting = new Set(); // rows whose groups are not known yet
    this.current = null;
    this.list = new List({
      id: (id) => id,
      make: (id) => this.row(id),
      className: "list groups",
      cells: () => ({ across: 1, height: this.narrow() ? 248 : 204 }),
    });
    this.bar = el("div", "joinbar");
    this.bar.hidden = true;
    this.empty = el("div", "empty");
    this.empty.hidden = true;
    const tabs = STATES.map(([name, title]) => {
      const tab = link(`#/groups/${name}`, "tab", title);
      if (name === which) tab.setAttribute("aria-current", "page");
      return tab;
    });
    this.hint = el("p", "hint", "Who is it? Click the faces that do not belong.",
      el("span", "mouse", " ", el("kbd", "", "Enter"), " says yes, ", el("kbd", "", "↓"), " goes on, ", el("kbd", "", "?"), " shows all keys."),
      el("span", "touch", " Hold a face to see its photo."));
    root.append(el("div", "subtabs", ...tabs), TODO.includes(which) ? this.hint : "", this.list.node, this.empty, this.bar);
    let width = 0;
    this.watch = new ResizeObserver(() => { // as many faces are shown as fit
      if (width && width !== this.list.node.clientWidth) {
        this.list.set(this.list.items, { fresh: true, stays: typing });
        for (const [id, slot] of this.list.rows) {
          if (this.said.delete(slot.firstChild) && this.details.has(id)) this.fill(slot.firstChild, this.details.get(id));
        }
      }
      width = this.list.node.clientWidth;
    });
    this.watch.observe(this.list.node);
    this.list.node.addEventListener("focusin", (event) => {
      const slot = event.target.closest(".row");
      if (slot) this.choose(Number(slot.dataset.id), false);
    });
  }

  close() {
    this.list.close();
    this.watch.disconnect();
  }

  narrow() { return innerWidth <= 620; }

  async load() {
    const { ids } = await get("groups", { state: this.which });
    this.details.clear();
    this.list.set(ids, { fresh: true, stays: typing });
    for (const slot of this.list.rows.values()) if (this.said.has(slot.firstChild)) this.fetch(slot.firstChild); // stayed, may have changed
    this.marked = new Set([...this.marked].filter((id) => this.list.places.has(id)));
    this.tellEmpty();
    this.drawBar();
    if (TODO.includes(this.which) && !this.list.places.has(this.current) && document.activeElement === document.body) this.choose(ids[0], true);
  }

  tellEmpty() {
    this.empty.hidden = this.list.items.length > 0;
    this.hint.hidden = !this.empty.hidden;
    const done = this.which === "open";
    const next = state.single ? link("#/groups/single", "more", `See ${plural(state.single, "single face")}`) : state.suggestions ? link("#/suggestions", "more", `See ${plural(state.suggestions, "suggestion")}`) : link("#/people", "more", "See the people");
    this.empty.replaceChildren(
      el("h2", "", done ? "All groups are answered." : "There are none."),
      el("p", "", done ? "New faces appear here by themselves when the folder is scanned again." : "What you answer appears here, and can be taken back."),
      done ? next : "",
    );
  }

  row(id) {
    const row = el("article", "row");
    row.dataset.id = id;
    if (this.details.has(id)) this.fill(row, this.details.get(id));
    else this.fetch(row);
    return row;
  }

  // Asks for what rows show, one request at a time: of rows that were scrolled past meanwhile nothing is asked.
  fetch(row) {
    this.waiting.add(row);
    if (!this.asking) this.asking = setTimeout(() => this.ask(), 0);
  }

  async ask() {
    const rows = new Map([...this.waiting].filter((row) => row.isConnected).map((row) => [Number(row.dataset.id), row]));
    this.waiting.clear();
    if (rows.size) {
      const answer = await post("rows", { groups: [...rows.keys()], faces: FACES }).catch(() => null);
      for (const group of answer ? (await answer.json()).rows : []) {
        arrived(`group ${group.id}`, group.faces);
        this.details.set(group.id, group);
        this.fill(rows.get(group.id), group);
      }
    }
    this.asking = this.waiting.size ? setTimeout(() => this.ask(), 0) : 0;
  }

  fill(row, group) {
    const said = JSON.stringify(group);
    if (this.said.get(row) === said || row.querySelector("input.name")?.value) return;
    this.said.set(row, said);
    const held = row.contains(document.activeElement);
    row.replaceChildren();
    const does = answers(group, {
      sent: () => this.move(row, group.id),
      gone: () => this.leave(group.id),
      back: () => row.classList.remove("sent"),
    });
    const person = group.suggestion;
    const narrow = this.narrow();
    const faces = strip(group, this.list.node.clientWidth - (narrow ? 32 : 40), {
      side: narrow ? 72 : 96,
      leave: () => row.querySelector("input.name")?.focus(),
    });
    const facts = link(`#/group/${group.id}`, "facts", group.new ? el("span", "new", "new") : null, about(group));
    facts.tabIndex = -1; // the key * does the same
    if (TODO.includes(this.which)) {
      const field = nameField({
        label: `Who is this? A group of ${plural(group.size, "face")}`,
        placeholder: person ? `${person[0]}? ${percent(person[1])}` : "Who is this?",
        give: does.give,
        empty: (event) => this.pressed(event, group, does),
      });
      const yes = person ? labelled(button("Yes", "yes", does.accept, `It is ${person[0]} (Enter)`), `Yes, ${person[0]}`) : null;
      const no = person ? labelled(button("No", "quiet no", () => this.deny(group), `Not ${person[0]} (!)`), `Not ${person[0]}`) : null;
      const mark = el("input");
      mark.type = "checkbox";
      mark.checked = this.marked.has(group.id);
      mark.addEventListener("change", () => this.mark(group.id, mark.checked));
      row.append(
        el("div", "head", field.node, yes, no, facts),
        faces,
        el("div", "acts", el("label", "quiet", mark, "Join"), button("Later", "quiet", does.skip), button("Nobody I need", "quiet", does.ignore)),
      );
    } else {
      const name = group.person === null ? el("h3", "", "Nobody I need") : link(`#/person/${encodeURIComponent(group.person)}`, "title", words(group.person));
      row.append(el("div", "head", name, facts), faces);
    }
    row.classList.toggle("current", group.id === this.current);
    if (this.current === group.id && (this.wants || held)) this.choose(group.id, true);
  }

  // Whoever begins to type without having clicked anywhere means the current group.
  key(event) {
    if (event.key.length === 1 && document.activeElement === document.body) this.choose(this.current ?? this.list.items[0], true);
    return false;
  }

  // Keys while the name is empty; all others begin a name.
  pressed(event, group, does) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const place = this.list.places.get(group.id);
    const acts = {
      Enter: does.accept ?? (() => {}),
      ArrowDown: () => this.choose(this.list.items[place + 1], true),
      ArrowUp: () => this.choose(this.list.items[place - 1], true),
      "-": does.ignore,
      ".": does.skip,
      "+": () => this.mark(group.id, !this.marked.has(group.id)),
      "=": () => (this.marked.size > 1 ? this.join() : undefined),
      "!": () => (group.suggestion ? this.deny(group) : undefined),
      "*": () => { location.hash = `#/group/${group.id}`; },
    };
    const act = acts[event.key];
    if (!act) return false;
    act();
    return true;
  }

  // One group is the current one: its field has the focus, and the keys are about it.
  choose(id, focus) {
    if (id === undefined) return;
    const before = this.list.row(this.current)?.firstChild;
    before?.classList.remove("current");
    this.current = id;
    if (focus) this.list.show(this.list.places.get(id));
    const row = this.list.row(id)?.firstChild;
    row?.classList.add("current");
    if (!focus) return;
    const input = row?.querySelector("input.name");
    this.wants = !input; // it gets the focus when it is filled
    input?.focus({ preventScroll: true });
  }

  // Goes on to the next group while an answer is on its way, so that nobody has to wait before typing the next name.
  move(row, id) {
    row.classList.add("sent");
    const place = this.list.places.get(id);
    const open = (other) => other !== undefined && !this.list.row(other)?.firstChild.classList.contains("sent");
    const next = this.list.items.slice(place + 1).find(open) ?? this.list.items.slice(0, place).reverse().find(open);
    if (this.current === id) this.choose(next, true);
  }

  leave(id) {
    if (!this.list.places.has(id)) return;
    this.marked.delete(id);
    this.list.set(this.list.items.filter((other) => other !== id));
    this.tellEmpty();
    this.drawBar();
    if (this.current !== id) this.list.show(this.list.places.get(this.current));
  }

  async deny(group) {
    const faces = await get("group", { id: group.id });
    const number = await answer({ do: "deny", faces: faces.faces.map(({ face }) => face), person: group.suggestion[0] });
    if (number !== null) this.redraw(group.id);
  }

  redraw(id) {
    const row = this.list.row(id)?.firstChild;
    this.details.delete(id);
    this.wants = this.current === id;
    if (row) this.fetch(row);
  }

  mark(id, is) {
    if (is) this.marked.add(id);
    else this.marked.delete(id);
    const box = this.list.row(id)?.querySelector(".acts input");
    if (box) box.checked = is;
    this.drawBar();
  }

  drawBar() {
    this.bar.hidden = this.marked.size === 0;
    const ready = this.marked.size > 1;
    this.bar.replaceChildren(
      el("span", "", ready ? `${plural(this.marked.size, "group")} marked` : "One group is marked; mark those that are the same person"),
      button("Clear", "quiet", () => [...this.marked].forEach((id) => this.mark(id, false))),
      ready ? button(`Join ${this.marked.size}`, "yes", () => this.join()) : "",
    );
  }

  async join() {
    const groups = [...this.marked];
    const number = await answer({ do: "join", groups });
    if (number === null) return;
    this.marked.clear();
    const [first] = groups;
    await this.load();
    this.choose(first, true);
  }
}
