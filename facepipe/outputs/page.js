"use strict";
// Everything that comes from file names and people's names enters the page as text, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const chunks = new Map();
  const format = new Intl.NumberFormat("en");

  const el = (tag, className, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  // bdi keeps a right-to-left name from turning round the words beside it.
  const words = (text) => el("bdi", "", text);
  const plural = (count, word) => `${format.format(count)} ${count === 1 ? word : word === "person" ? "people" : `${word}s`}`;
  const percent = (p) => (p === null ? "" : p < 0.01 ? "<1 %" : p > 0.99 ? ">99 %" : `${Math.round(100 * p)} %`);

  // ---- pictures: parsed a chunk at a time, made when they come near the window ----
  const source = (index) => {
    const chunk = Math.floor(index / data.chunk);
    if (!chunks.has(chunk)) chunks.set(chunk, JSON.parse(document.getElementById(`t${chunk}`).textContent));
    return `data:image/jpeg;base64,${chunks.get(chunk)[index % data.chunk]}`;
  };
  const show = (holder) => {
    const image = new Image();
    image.alt = "";
    image.decoding = "async";
    image.src = source(Number(holder.dataset.thumb));
    holder.replaceChildren(image, ...(holder.dataset.flag ? [el("span", "flag", holder.dataset.flag)] : []));
  };
  const observer = new IntersectionObserver(
    (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => { observer.unobserve(e.target); show(e.target); }),
    { rootMargin: "600px" },
  );
  const picture = (face, className = "pic") => {
    const holder = el("span", className);
    if (face.thumb === null) holder.append(el("span", "none", "no picture"));
    else { holder.dataset.thumb = face.thumb; observer.observe(holder); }
    return holder;
  };

  // ---- words about a face ----
  const answer = (face) => {
    if (face.status === "known") return face.person;
    if (face.status === "ambiguous") {
      const free = face.candidates.filter(([, similarity]) => similarity <= face.similarity); // others have another face of the photo
      return `${free.slice(0, 2).map(([name]) => name).join(" or ")}?`;
    }
    return face.maybe === null ? "Unknown" : `maybe ${face.maybe}, ${percent(face.probability)}`;
  };
  const sure = (face) => (face.status !== "unknown" || face.maybe !== null) && face.probability !== null;
  const certainty = (face) => {
    if (sure(face)) return percent(face.probability);
    return face.similarity === null ? "" : face.similarity.toFixed(2);
  };
  const tag = (face) => {
    const kind = face.doubtful ? "ambiguous" : face.maybe !== null ? "maybe" : face.status;
    return el("span", `tag t-${kind}`, el("i", `dot c-${kind}`), `${face.status}${sure(face) && face.maybe === null ? `, ${percent(face.probability)} sure` : ""}`);
  };
  // The surest face of each person on this page, to compare a doubtful one with.
  const covers = new Map(data.people.filter((entry) => entry.cover !== null).map((entry) => [entry.name, entry.cover]));
  const compared = (face, name) => {
    const cover = covers.get(name);
    return cover === undefined || cover.thumb === null || cover.thumb === face.thumb ? null : cover;
  };
  const bars = (face) => {
    const seen = face.candidates.some(([name]) => compared(face, name) !== null);
    const likeness = (name) => {
      const cover = compared(face, name);
      if (cover === null) return el("span", "ava");
      const holder = picture(cover, "ava");
      holder.title = `${name}, the surest face in these photos`;
      return holder;
    };
    const top = Math.max(face.threshold * 1.35, ...face.candidates.map((c) => c[1]), 0.01);
    const place = (value) => `${100 * Math.min(1, Math.max(0, value / top))}%`;
    return el("span", "bars", ...face.candidates.map(([name, similarity]) => {
      const fill = el("i");
      const mark = el("u");
      fill.style.width = place(similarity);
      mark.style.left = place(face.threshold);
      mark.title = `threshold ${face.threshold}`;
      return el("span", seen ? "cand seen" : "cand", seen ? likeness(name) : null, words(name), el("span", "track", fill, mark), el("span", "", similarity.toFixed(2)));
    }));
  };
  const fileName = (path) => path.split("/").pop();
  const linked = (path, href) => {
    if (!href) return words(path);
    const link = el("a", "", path);
    link.href = href;
    link.target = "_blank";
    link.rel = "noopener";
    return link;
  };

  // ---- the sheet about one face ----
  const detail = document.getElementById("detail");
  const open = (face, list, place) => {
    const facts = el("dl");
    const fact = (name, value) => { if (value) facts.append(el("dt", "", name), el("dd", "", value)); };
    fact("Similarity", face.similarity === null ? "" : `${face.similarity.toFixed(3)} (needed: ${face.threshold.toFixed(2)})`);
    fact("Size", `${Math.round(face.size)} pixels`);
    fact("Seen", face.seen);
    if (face.place !== null && face.faces > 1) {
      const [x, y, width, height, aspect] = face.place;
      const mark = el("i");
      const map = el("span", "place", mark);
      map.style.aspectRatio = String(aspect);
      for (const [side, share] of [["left", x], ["top", y], ["width", width], ["height", height]]) mark.style[side] = `${100 * share}%`;
      map.setAttribute("role", "img");
      map.setAttribute("aria-label", `${Math.round(100 * x)} % from the left, ${Math.round(100 * y)} % from the top`);
      fact("Where", map);
    }
    fact("Face", face.faces > 1 ? `${face.number} of ${face.faces} in the ${face.seen ? "video" : "photo"}` : "");
    const path = el("p", "path", linked(face.path, face.href));
    const step = (way, label) => {
      const button = el("button", "more", label);
      button.disabled = list[place + way] === undefined;
      button.addEventListener("click", () => open(list[place + way], list, place + way));
      return button;
    };
    const close = el("button", "more", "Close");
    close.addEventListener("click", () => detail.close());
    const steps = el("span", "", ...(list.length > 1 ? [step(-1, "←"), " ", step(1, "→")] : []));
    detail.replaceChildren(
      el("div", "sheet", picture(face), el("div", "", tag(face), el("h3", "", words(answer(face))), facts), bars(face), path),
      el("div", "acts", steps, close),
    );
    for (const holder of detail.querySelectorAll("[data-thumb]")) { observer.unobserve(holder); show(holder); }
    if (!detail.open) detail.showModal();
    close.focus();
  };
  detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
  detail.addEventListener("keydown", (event) => {
    const arrows = detail.querySelectorAll(".acts span button");
    if (event.key === "ArrowLeft" && arrows[0]) arrows[0].click();
    if (event.key === "ArrowRight" && arrows[1]) arrows[1].click();
  });

  // ---- lists that grow ----
  const growing = (holder, items, make, first, step, outer = holder) => {
    let shown = 0;
    const more = el("button", "more");
    more.type = "button";
    const grow = (count) => {
      const batch = items.slice(shown, shown + count);
      holder.append(...batch.map((item, place) => make(item, shown + place)));
      shown += batch.length;
      const rest = items.length - shown;
      more.textContent = rest <= step ? `Show ${format.format(rest)} more` : `Show ${format.format(step)} of ${format.format(rest)} more`;
      more.hidden = shown >= items.length;
    };
    more.addEventListener("click", () => grow(step));
    grow(first);
    return el("div", "", outer, more);
  };
  const left = (total, items, word) =>
    total > items.length ? el("p", "note", `This page shows ${format.format(items.length)} of ${plural(total, word)}, the most doubtful first; the results file has all.`) : null;

  const tile = (list, figure) => (face, place) => {
    const holder = picture(face);
    if (face.doubtful || face.maybe !== null) holder.dataset.flag = certainty(face);
    if (face.maybe !== null) holder.classList.add("maybe");
    const button = el("button", "face", holder, el("span", "under", words(fileName(face.path)), face.seen ? el("span", "", face.seen) : null, figure ? el("span", "", certainty(face)) : null));
    button.type = "button";
    button.title = `${answer(face)}${face.maybe === null ? ` ${certainty(face)}` : ""}\n${face.path}`;
    button.setAttribute("aria-label", `${answer(face)}, ${face.path}`);
    button.addEventListener("click", () => open(face, list, place));
    return button;
  };
  const row = (list) => (face, place) => {
    const button = el("button", "row", picture(face), el("span", "body", tag(face), el("span", "name", words(answer(face))), bars(face), el("span", "path", words(fileName(face.path)), face.seen ? ` ${face.seen}` : null)));
    button.lastChild.lastChild.style.display = "block";
    button.type = "button";
    button.title = face.path;
    button.addEventListener("click", () => open(face, list, place));
    return button;
  };

  const sections = document.getElementById("sections");
  const nav = document.getElementById("nav");
  const part = (id, title, count, hint, ...content) => {
    const heading = el("h2", "", title, el("span", "count", format.format(count)));
    const head = el("div", "head", heading);
    const section = el("section", "part", head, el("p", "hint", hint), ...content);
    section.id = id;
    sections.append(section);
    const link = el("a", "", title, el("b", "", format.format(count)));
    link.href = `#${id}`;
    nav.append(link);
    return head;
  };

  const person = (before) => (entry) => {
    const about = `${plural(entry.total, "face")} in ${plural(entry.photos, data.file)}`;
    const cover = covers.has(entry.name) ? picture(covers.get(entry.name), "cover") : null;
    const grid = growing(el("div", "grid"), entry.faces, tile(entry.faces, false), 16, 60);
    return el("article", "person", el("header", "", cover, el("div", "", el("h3", "", before, words(entry.name)), el("p", "", about))), grid, left(entry.total, entry.faces, "face"));
  };

  // ---- the page ----
  const counts = data.counts;
  document.getElementById("meta").append(...data.meta.map((text) => el("span", "", text)));
  const numbers = [
    [data.file, counts.photos, null], ["face", counts.faces, null], ["person", data.people_total, null],
    ["known", counts.known, "known"], ["ambiguous", counts.ambiguous, "ambiguous"], ["unknown", counts.unknown, "unknown"],
    ...(counts.maybe ? [["of them maybe", counts.maybe, "maybe"]] : []),
    ["without a face", counts.no_face, "none"], ["failed", counts.failed, "failed"],
  ];
  document.getElementById("numbers").append(...numbers.map(([name, value, colour]) =>
    el("div", "number", el("b", "", format.format(value)), el("span", "", colour && el("i", `dot c-${colour}`), colour ? name : plural(value, name).split(" ")[1]))));
  for (const [status, count] of [["known", counts.known], ["ambiguous", counts.ambiguous], ["maybe", counts.maybe], ["unknown", counts.unknown - counts.maybe]]) {
    if (!count) continue;
    const slice = el("i", `c-${status}`);
    slice.style.flex = `${count} 1 0`;
    slice.title = `${plural(count, "face")} ${status}`;
    document.getElementById("bar").append(slice);
  }

  if (data.doubtful.total) {
    const faces = data.doubtful.faces;
    part("doubtful", "Doubtful", data.doubtful.total, "Faces that need your eyes: two people are equally like them, or the name is not sure. The mark on each bar is the threshold; the small pictures are the surest face of each person, to compare.",
      growing(el("div", "rows"), faces, row(faces), 12, 48), left(data.doubtful.total, faces, "face"));
  }
  const persons = (id, title, hint, people, total, count, before = "") => {
    const holder = el("div");
    const head = part(id, title, count, hint, holder);
    const list = (found) => holder.replaceChildren(found.length ? growing(el("div"), found, person(before), 20, 40) : el("p", "empty", "Nobody of that name."));
    list(people);
    if (people.length > 6) {
      const search = el("input");
      search.type = "search";
      search.placeholder = "Find a person";
      search.setAttribute("aria-label", "Find a person");
      search.addEventListener("input", () => {
        const wanted = search.value.trim().toLocaleLowerCase();
        list(people.filter((entry) => entry.name.toLocaleLowerCase().includes(wanted)));
      });
      head.append(search);
    }
    if (total > people.length) holder.after(el("p", "note", `This page shows ${format.format(people.length)} of ${plural(total, "person")}.`));
  };
  if (data.maybe.length) {
    persons("maybe", "Maybe", "Unknown faces that are more likely than not somebody you enrolled, by person, the most likely first.",
      data.maybe, data.maybe_total, counts.maybe, "maybe ");
  }
  if (data.people.length) {
    persons("people", "People", "Everybody who was recognised, most often seen first; each person's least certain faces come first.",
      data.people, data.people_total, data.people_total);
  }
  if (data.unknown.total) {
    const faces = data.unknown.faces;
    part("unknown", "Unknown", data.unknown.total, "Faces of nobody who is enrolled. Those most like somebody come first, with their similarity.",
      growing(el("div", "grid"), faces, tile(faces, true), 48, 240), left(data.unknown.total, faces, "face"));
  }
  if (data.failures.total) {
    const body = el("tbody");
    const table = el("table", "", el("thead", "", el("tr", "", el("th", "", data.file === "photo" ? "Photo" : "File"), el("th", "", "Reason"))), body);
    const grown = growing(body, data.failures.rows, ([path, reason, href]) => el("tr", "", el("td", "", linked(path, href)), el("td", "", words(reason))), 30, 300, table);
    part("failures", "Failures", data.failures.total, "What could not be used, and why.", grown,
      left(data.failures.total, data.failures.rows, data.file));
  }
  if (data.no_face.total) {
    const body = el("tbody");
    const table = el("table", "", body);
    const grown = growing(body, data.no_face.rows, ([path, href]) => el("tr", "", el("td", "", linked(path, href))), 12, 300, table);
    part("no-face", "No face", data.no_face.total, data.file === "photo" ? "Photos in which no face was found." : "Photos and videos in which no face was found.", grown,
      left(data.no_face.total, data.no_face.rows, data.file));
  }
  if (!counts.photos) sections.append(el("p", "empty", "There were no photos."));

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.classList.contains("dark") || (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
    root.classList.remove("dark", "light");
    root.classList.add(dark ? "light" : "dark");
  });
  document.documentElement.dataset.ready = "yes";
})();
