// Pictures of faces: fetched with the token, many in one request, those that were seen last are kept.

import { el } from "./dom.js";
import { blob, post } from "./server.js";

const MOST = 4000;
const AT_ONCE = 60;
const urls = new Map(); // face -> address of its picture in this window, the one used last at the end
const waiting = new Map(); // face -> images that are to show it
let timer = 0;

const keep = (face, jpeg) => {
  urls.set(face, URL.createObjectURL(jpeg));
  if (urls.size > MOST) {
    const [oldest, address] = urls.entries().next().value;
    urls.delete(oldest);
    URL.revokeObjectURL(address); // an image that shows it goes on showing it
  }
  return urls.get(face);
};

// One request at a time, for what can still be seen. The answer is a length in four bytes and a JPEG, for each face in turn; length 0:
// there is none.
const flush = async () => {
  for (const [face, images] of waiting) {
    if (!images.some((image) => image.isConnected)) waiting.delete(face);
  }
  const faces = [...waiting.keys()].slice(0, AT_ONCE);
  const images = faces.map((face) => waiting.get(face));
  faces.forEach((face) => waiting.delete(face));
  try {
    if (faces.length) show(faces, images, await (await post("thumbnails", { faces })).arrayBuffer());
  } catch {
    // the page says that the server has gone
  }
  timer = waiting.size ? setTimeout(flush, 0) : 0;
};

const show = (faces, images, data) => {
  const view = new DataView(data);
  let place = 0;
  faces.forEach((face, number) => {
    const size = view.getUint32(place);
    const address = size ? keep(face, new Blob([data.slice(place + 4, place + 4 + size)], { type: "image/jpeg" })) : null;
    images[number].forEach((image) => (address ? (image.src = address) : image.replaceWith(el("span", "none", "no picture"))));
    place += 4 + size;
  });
};

// The small picture of a face, as the catalog has it.
export const thumbnail = (face) => {
  const image = el("img");
  image.alt = "";
  image.decoding = "async";
  image.draggable = false;
  if (face === null) return el("span", "none", "no picture");
  const known = urls.get(face);
  if (known) {
    urls.delete(face);
    urls.set(face, known);
    image.src = known;
    return image;
  }
  waiting.set(face, [...(waiting.get(face) ?? []), image]);
  timer ||= setTimeout(flush, 5);
  return image;
};

// A photo, or a part of it around a face, as a picture of at most `side` pixels.
export const photo = async (image, values) => {
  const address = URL.createObjectURL(await blob("picture", values));
  image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
  image.src = address;
};
