// A face as a tile: a click puts it out, another one takes that back; its corner shows the photo.

import { answer, takeBack } from "./app.js";
import { button, count, el, labelled, link } from "./dom.js";
import { List } from "./list.js";
import { thumbnail } from "./pictures.js";
import { openFace } from "./sheet.js";

const out = new Map(); // face and where it was put out of -> the answer's number, to take it back

export const isOut = (where, face) => out.has(`${where} ${face}`);

// The server has just told these faces to be there: whatever was put out of it has been taken back.
export const arrived = (where, faces) => faces.forEach(({ face }) => out.delete(`${where} ${face}`));

// where: names what the face is put out of; put(face): the answer that does it; faces: through which the photo's arrows go.
export const tile = (face, { where, put, faces, what = "not this person", note = "", flag = "" }) => {
  const mark = `${where} ${face.face}`;
  const picture = el("button", "pic", thumbnail(face.face), flag ? el("span", "flag", flag) : null);
  picture.type = "button";
  picture.dataset.face = face.face;
  const look = button("", "look", () => openFace(face, faces()), "Show the photo");
  labelled(look, "Show the photo");
  look.tabIndex = -1; // the key o does the same
  const node = el("div", "tile", picture, look, note ? el("span", "under", note) : null);
  if (face.face.startsWith("gallery:")) { // of a photo that is not here: there is nothing to see it in, nor to put it out of
    picture.disabled = true;
    picture.title = `Enrolled from ${face.path}, which is not in this catalog`;
    look.hidden = true;
    return node;
  }
  const draw = () => {
    const is = out.has(mark);
    node.classList.toggle("out", is);
    picture.setAttribute("aria-pressed", String(is));
    picture.title = is ? "Click to take this back" : `Click: ${what}\n${face.path}`;
    labelled(picture, `${is ? `put out, ${what}` : "face"}, ${face.path}`);
  };
  const toggle = async () => {
    node.classList.toggle("out");
    const earlier = out.get(mark);
    if (earlier === undefined) {
      const number = await answer(put(face));
      if (number !== null) out.set(mark, number);
    } else if ((await takeBack(earlier)) !== null) out.delete(mark);
    draw();
  };
  picture.addEventListener("click", toggle);
  picture.addEventListener("contextmenu", (event) => { // a long touch
    event.preventDefault();
    openFace(face, faces());
  });
  node.addEventListener("keydown", (event) => {
    if (event.key !== "o" || event.ctrlKey || event.metaKey) return;
    event.stopPropagation();
    openFace(face, faces());
  });
  draw();
  return node;
};

// A line of as many faces as fit into a width; the last place tells how many there are besides. One of them is met by Tab, the arrow
// keys go on from there, Escape goes back to the name.
export const strip = (group, width, { side, put, leave = () => {} }) => {
  const room = Math.max(2, Math.floor((width + 8) / (side + 8)));
  const fills = Math.min(side * 1.12, (width + 8) / room - 8);
  const all = group.size > room ? room - 1 : room;
  const tiles = group.faces.slice(0, all).map((face) => tile(face, {
    where: `group ${group.id}`,
    what: "does not belong here",
    put: put ?? (({ face: name }) => ({ do: "put_out", group: group.id, faces: [name] })),
    faces: () => group.faces,
  }));
  const rest = group.size - tiles.length;
  const more = rest > 0 ? link(`#/group/${group.id}`, "rest", `+${count(rest)}`) : null;
  if (more) labelled(more, `All ${count(group.size)} faces of this group`);
  const node = el("div", "strip", ...tiles, more);
  node.style.setProperty("--side", `${Math.floor(fills)}px`);
  const stops = () => [...node.querySelectorAll(".pic, .rest")];
  stops().forEach((stop, place) => { stop.tabIndex = place ? -1 : 0; });
  node.addEventListener("keydown", (event) => {
    const to = stops()[stops().indexOf(event.target) + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? NaN)];
    if (event.key === "Escape") leave();
    else if (!to) return;
    event.preventDefault();
    to?.focus();
  });
  return node;
};

// A grid of tiles of which only those are there that can be seen. size: side of a tile; under: height of what stands below it.
export const grid = (make, { size = 104, under = 0 } = {}) => new List({
  id: (face) => face.face,
  make,
  className: "list faces",
  cells: (width) => {
    const across = Math.max(1, Math.floor(width / (width < 520 ? size * 0.8 : size)));
    return { across, height: Math.round(width / across) + under };
  },
});

// The arrow keys go from tile to tile.
export const arrows = (list) => list.node.addEventListener("keydown", (event) => {
  const slot = event.target.closest(".slot");
  const { across } = list.layout();
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
  if (!slot || by === undefined) return;
  event.preventDefault();
  const place = Number(slot.getAttribute("aria-posinset")) - 1 + by;
  if (place < 0 || place >= list.items.length) return;
  list.show(place);
  list.row(list.id(list.items[place]))?.querySelector(".pic").focus({ preventScroll: true });
});
