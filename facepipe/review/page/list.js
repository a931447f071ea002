// Long lists: only the rows that can be seen are there, so a hundred thousand are as fast as ten.

import { el } from "./dom.js";

// Rows seen above and below the window's edge, so that scrolling shows no gaps.
const BEYOND = 4;

// items: what the rows are of; id(item) names it; make(item, place) draws it; cells(width) says how many stand in a line and how high
// a line is. A row that holds the focus stays, wherever the window is.
export class List {
  constructor({ id, make, cells, className = "list", role = "list" }) {
    Object.assign(this, { id, make, cells, items: [], rows: new Map() });
    this.node = el("div", className);
    this.node.setAttribute("role", role);
    this.draw = this.draw.bind(this);
    this.soon = () => { this.frame ||= requestAnimationFrame(this.draw); };
    addEventListener("scroll", this.soon, { passive: true });
    this.watch = new ResizeObserver(this.soon);
    this.watch.observe(this.node);
  }

  close() {
    removeEventListener("scroll", this.soon);
    this.watch.disconnect();
    cancelAnimationFrame(this.frame);
  }

  // fresh: rows are drawn anew, but for those that `stays` names.
  set(items, { fresh = false, stays = () => false } = {}) {
    this.items = items;
    this.places = new Map(items.map((item, place) => [this.id(item), place]));
    for (const [id, row] of this.rows) {
      if (!this.places.has(id) || (fresh && !stays(id, row))) {
        row.remove();
        this.rows.delete(id);
      }
    }
    this.draw();
  }

  layout() {
    const width = this.node.clientWidth || 1;
    const { across, height } = this.cells(width);
    return { width: width / across, across, height };
  }

  draw() {
    this.frame = 0;
    if (!this.places) return;
    const { width, across, height } = this.layout();
    this.node.style.height = `${Math.ceil(this.items.length / across) * height}px`;
    const top = this.node.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / height) - BEYOND) * across;
    const last = Math.min(this.items.length, (Math.ceil((innerHeight - top) / height) + BEYOND) * across);
    for (const [id, row] of this.rows) {
      const place = this.places.get(id);
      if ((place < first || place >= last) && !row.contains(document.activeElement)) {
        row.remove();
        this.rows.delete(id);
      }
    }
    for (let place = first; place < last; place += 1) {
      const id = this.id(this.items[place]);
      if (!this.rows.has(id)) this.rows.set(id, this.add(this.items[place], place));
    }
    for (const [id, row] of this.rows) {
      const place = this.places.get(id);
      row.style.transform = `translate(${(place % across) * width}px, ${Math.floor(place / across) * height}px)`;
      row.style.width = `${width}px`;
      row.style.height = `${height}px`;
      row.setAttribute("aria-posinset", place + 1);
      row.setAttribute("aria-setsize", this.items.length);
    }
    this.order(first, last);
  }

  add(item, place) {
    const row = el("div", "slot", this.make(item, place));
    row.setAttribute("role", "listitem");
    this.node.append(row);
    return row;
  }

  // The Tab key goes through the rows in the order in which they are seen.
  order(first, last) {
    let before = null;
    for (let place = first; place < last; place += 1) {
      const row = this.rows.get(this.id(this.items[place]));
      const next = before ? before.nextSibling : this.node.firstChild;
      if (row !== next && !row.contains(document.activeElement)) this.node.insertBefore(row, next);
      before = row;
    }
  }

  row(id) { return this.rows.get(id); }

  // Scrolls so that the row at a place can be seen whole, below what stands at the top of the window.
  show(place) {
    if (!(place >= 0 && place < this.items.length)) return;
    const { across, height } = this.layout();
    const top = this.node.getBoundingClientRect().top + scrollY + Math.floor(place / across) * height;
    const above = 76;
    if (top < scrollY + above) scrollTo({ top: top - above });
    else if (top + height > scrollY + innerHeight - 84) scrollTo({ top: top + height - innerHeight + 84 });
    this.draw();
  }
}
