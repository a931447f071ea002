// The photo behind a face: all its boxes, who they are, and the enrolled faces that are most like the chosen one.

import { answer } from "./app.js";
import { button, el, labelled, link, percent, words } from "./dom.js";
import { isKnown, nameField } from "./names.js";
import { photo, thumbnail } from "./pictures.js";
import { get } from "./server.js";

const sheet = document.getElementById("sheet");
const HOW = { enrolled: "enrolled", confirmed: "you said so", recognised: "recognised" };
let turn = 0;
let step = () => {};

const said = (face) => {
  if (face.person !== null) return [words(face.person), el("small", "", [HOW[face.how], face.how === "recognised" ? percent(face.probability) : ""].filter(Boolean).join(", "))];
  if (face.suggestion !== null) return [el("span", "", "maybe ", words(face.suggestion[0])), el("small", "", percent(face.suggestion[1]))];
  return ["Nobody you know"];
};

// Of a video one frame is shown, the best one of the chosen face, and the other faces are not where it has them.
const boxes = (shown, chosen, choose) => shown.faces.map((face, number) => {
  if (face.seen !== null && face.face !== chosen) return "";
  const [x1, y1, x2, y2] = face.box;
  const name = face.person ?? (face.suggestion ? `${face.suggestion[0]}?` : String(number + 1));
  const box = button(el("span", "", words(name)), face.face === chosen ? "box chosen" : "box", () => choose(face.face));
  const sides = { left: x1 / shown.width, top: y1 / shown.height, width: (x2 - x1) / shown.width, height: (y2 - y1) / shown.height };
  for (const [side, share] of Object.entries(sides)) box.style[side] = `${100 * share}%`;
  return box;
});

const nearest = async (face, holder) => {
  const { nearest: found } = await get("nearest", { face });
  if (!holder.isConnected) return;
  holder.replaceChildren(...found.map(({ person, similarity, face: other }) => {
    const fill = el("i");
    fill.style.width = `${100 * Math.max(0, Math.min(1, similarity))}%`;
    return el("li", "", el("span", "ava", thumbnail(other)), words(person), el("span", "track", fill), el("span", "figure", similarity.toFixed(2)));
  }));
  if (!found.length) holder.replaceChildren(el("li", "soft", "Nobody is enrolled yet."));
};

const panel = (shown, face, again) => {
  const does = async (body) => { if ((await answer(body)) !== null) again(); };
  const field = nameField({
    label: "Who is this face?",
    placeholder: face.person === null ? "Who is this?" : "Somebody else?",
    give: (person) => does({ do: "confirm", faces: [face.face], person, enroll: !isKnown(person) }),
  });
  const asked = face.person ?? face.suggestion?.[0];
  const sure = face.person !== null && face.how !== "recognised";
  const acts = el("div", "acts",
    asked !== undefined && !sure ? button(el("span", "", "Yes, ", words(asked)), "yes", () => does({ do: "confirm", faces: [face.face], person: asked })) : null,
    asked !== undefined ? button(el("span", "", "Not ", words(asked)), "quiet no", () => does({ do: "deny", faces: [face.face], person: asked })) : null,
    face.person !== null ? button("Use as cover", "quiet", () => does({ do: "cover", person: face.person, face: face.face })) : null,
    face.person !== null ? link(`#/person/${encodeURIComponent(face.person)}`, "quiet", "Their page") : null,
    face.group !== null ? link(`#/group/${face.group}`, "quiet", "Its group") : null,
  );
  const list = el("ul", "nearest");
  nearest(face.face, list);
  const place = shown.faces.findIndex((other) => other.face === face.face) + 1;
  const facts = [face.seen === null ? "" : `Seen ${face.seen}`, shown.faces.length > 1 ? `Face ${place} of ${shown.faces.length}` : "", shown.taken ? shown.taken.slice(0, 16).replace("T", " ") : ""].filter(Boolean).join(" · ");
  return [
    el("div", "who", el("span", "ava", thumbnail(face.face)), el("div", "", el("h3", "", ...said(face)), el("p", "soft", facts))),
    field.node, acts,
    el("h4", "", "Most like these enrolled faces"), list,
    el("p", "path", words(shown.path)),
  ];
};

// faces: the list that the face comes from, through which the arrow keys go.
export const openFace = async (face, faces = []) => {
  const mine = (turn += 1);
  const place = faces.findIndex((other) => other.face === face.face);
  const go = (by) => { if (faces[place + by]) openFace(faces[place + by], faces); };
  step = go;
  const image = el("img");
  image.alt = face.path;
  const frame = el("div", "frame");
  const side = el("div", "panel", el("p", "soft", "…"));
  const close = labelled(button("✕", "close", () => sheet.close()), "Close");
  const ways = faces.length > 1 ? [labelled(button("‹", "way left", () => go(-1)), "The face before"), labelled(button("›", "way right", () => go(1)), "The next face")] : [];
  if (ways.length) [ways[0].disabled, ways[1].disabled] = [place <= 0, place >= faces.length - 1];
  sheet.replaceChildren(el("div", "stage", frame, ...ways), side, close);
  if (!sheet.open) sheet.showModal();
  close.focus();
  let chosen = face.face;
  const [content] = face.face.split(":");
  try {
    const draw = async () => {
      const shown = await get("photo", { content });
      if (mine !== turn) return;
      const show = (name) => {
        chosen = name;
        frame.replaceChildren(image, ...boxes(shown, chosen, show));
        const about = shown.faces.find((other) => other.face === chosen) ?? shown.faces[0];
        side.replaceChildren(...(about ? panel(shown, about, draw) : [el("h3", "", "No face was found"), el("p", "path", words(shown.path))]));
      };
      frame.style.aspectRatio = `${shown.width} / ${shown.height}`;
      frame.style.setProperty("--shape", shown.width / shown.height);
      show(chosen);
    };
    await draw();
    await photo(image, { content, number: face.face.split(":")[1], whole: true, side: 1600 });
  } catch (error) {
    if (mine === turn) frame.replaceChildren(el("p", "empty", error.message));
  }
};

sheet.addEventListener("click", (event) => { if (event.target === sheet) sheet.close(); });
sheet.addEventListener("close", () => { turn += 1; });
sheet.addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  step(by);
});
