// Searches the photos: everybody with these people together, without those, between two days.

import { button, el, fileName, plural, words } from "./dom.js";
import { List } from "./list.js";
import { nameField } from "./names.js";
import { photo } from "./pictures.js";
import { post } from "./server.js";
import { openFace } from "./sheet.js";

export class Search {
  constructor(root) {
    this.asked = { with: [], without: [], since: "", until: "", unknown: false };
    this.chips = { with: el("div", "chips"), without: el("div", "chips") };
    const field = (name, label) => {
      const { node, input } = nameField({ label, placeholder: label, give: (person) => {
        if (!this.asked[name].includes(person)) this.asked[name].push(person);
        input.value = "";
        this.load();
      } });
      return el("div", "criterion", node, this.chips[name]);
    };
    const day = (name, label) => {
      const input = el("input");
      input.type = "date";
      input.addEventListener("change", () => { this.asked[name] = input.value; this.load(); });
      return el("label", "day", label, input);
    };
    const unknown = el("input");
    unknown.type = "checkbox";
    unknown.addEventListener("change", () => { this.asked.unknown = unknown.checked; this.load(); });
    this.told = el("p", "hint");
    this.line = el("code", "line");
    this.list = new List({
      id: ({ content, path }) => `${content} ${path}`,
      make: (found) => this.photo(found),
      className: "list photos",
      cells: (width) => {
        const across = Math.max(2, Math.floor(width / 210));
        return { across, height: Math.round((width / across) * 0.78) + 24 };
      },
    });
    root.append(
      el("form", "criteria", field("with", "With"), field("without", "Without"), el("div", "days", day("since", "From"), day("until", "To"), el("label", "quiet", unknown, "Somebody unknown"))),
      this.told, this.list.node,
    );
    root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  }

  close() { this.list.close(); }

  async load() {
    for (const name of ["with", "without"]) {
      this.chips[name].replaceChildren(...this.asked[name].map((person) => {
        const chip = button(el("span", "", words(person), " ✕"), "chip", () => {
          this.asked[name] = this.asked[name].filter((other) => other !== person);
          this.load();
        }, "Leave out of the search");
        return chip;
      }));
    }
    const mine = (this.turn = (this.turn ?? 0) + 1);
    const { photos, command } = await (await post("find", this.asked)).json();
    if (mine !== this.turn) return;
    this.list.set(photos);
    this.line.textContent = command;
    this.told.replaceChildren(plural(photos.length, "photo"), ". In the terminal: ", this.line);
  }

  photo(found) {
    const image = el("img");
    image.alt = "";
    const node = el("button", "shot", el("span", "pic", image), el("span", "under", words(fileName(found.path)), found.taken ? el("span", "", found.taken.slice(0, 10)) : null));
    node.type = "button";
    node.title = found.path;
    const faces = this.list.items.map(({ content, path }) => ({ face: `${content}:0`, path }));
    node.addEventListener("click", () => openFace({ face: `${found.content}:0`, path: found.path }, faces));
    photo(image, { content: found.content, side: 320 }).catch(() => image.replaceWith(el("span", "none", "no picture")));
    return node;
  }
}
