// Begins the page, goes from view to view, and asks the server for news.

import { listen, poll, state, takeBack } from "./app.js";
import { count, el, plural } from "./dom.js";
import { Group, Pairs } from "./group.js";
import { Groups } from "./groups.js";
import { History } from "./history.js";
import { knowPeople } from "./names.js";
import { People, Person } from "./people.js";
import { Search } from "./search.js";
import { connect, get } from "./server.js";
import { Suggestions } from "./suggestions.js";

const VIEWS = { groups: Groups, group: Group, pairs: Pairs, suggestions: Suggestions, people: People, person: Person, search: Search, history: History };
const UNDER = { group: "groups", person: "people" };
const TITLES = { groups: "Groups", group: "A group", pairs: "Same person?", suggestions: "Suggestions", people: "People", search: "Search", history: "Answers" };
const root = document.getElementById("view");
const trouble = document.getElementById("trouble");
const keys = document.getElementById("keys");
let view = null;

const TROUBLE = {
  gone: "The server does not run any more. Start facepipe review again and open its new address: all your answers are kept.",
  token: "This address is not valid any more. Open the one that facepipe review has printed last.",
};
const tell = (what) => {
  trouble.hidden = !(what in TROUBLE);
  trouble.textContent = TROUBLE[what] ?? "";
};

const draw = () => {
  learnNames().catch(() => {});
  for (const link of document.querySelectorAll("nav a[data-count]")) {
    const value = state[link.dataset.count];
    link.querySelector("b").textContent = value ? count(value) : "";
  }
  document.getElementById("catalog").textContent = (state.catalog ?? "").replace(/\.catalog$/u, "");
  const scan = document.getElementById("scan");
  const { running, photos, faces } = state.scan ?? {};
  scan.hidden = !running && !state.grouping;
  scan.lastChild.textContent = running ? `Scanning: ${plural(photos, "photo")}, ${plural(faces, "face")}` : "Looking for groups…";
};

const reload = async () => { await view?.load(); };

// Names are completed with those of everybody who is there now.
let known = -1;
const learnNames = async () => {
  if (state.names === known) return;
  known = state.names;
  knowPeople((await get("names")).names);
};

// A path in the address is that of a view: #/groups, #/group/12, #/person/Anna.
const asked = () => {
  const [name, argument] = location.hash.replace(/^#\//u, "").split("/");
  try {
    return Object.hasOwn(VIEWS, name) ? [name, argument && decodeURIComponent(argument)] : ["groups"];
  } catch { // no text that was encoded by anybody
    return ["groups"];
  }
};

const route = async () => {
  const [chosen, argument] = asked();
  view?.close();
  root.replaceChildren();
  root.className = `view-${chosen}`;
  scrollTo(0, 0);
  view = new VIEWS[chosen](root, argument);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === (UNDER[chosen] ?? chosen)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[chosen] ?? argument} · facepipe`;
  await reload().catch((error) => root.append(el("p", "empty", error.message)));
};

const GO = { g: "groups", p: "people", s: "suggestions", d: "pairs", f: "search", h: "history" };

addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox])");
  const dialog = document.querySelector("dialog[open]");
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && !event.shiftKey && !(typing && event.target.value)) {
    event.preventDefault();
    takeBack();
  } else if (event.ctrlKey || event.metaKey) return;
  else if (event.key === "?" && !dialog && !(typing && event.target.value)) {
    event.preventDefault();
    keys.showModal();
  } else if (event.altKey && GO[event.key]) {
    event.preventDefault();
    location.hash = `#/${GO[event.key]}`;
  } else if (!typing && !dialog && !event.altKey && view?.key?.(event)) event.preventDefault();
});

const news = async () => {
  await poll().catch(() => {});
  setTimeout(news, document.hidden ? 5000 : 1000);
};

const begin = async () => {
  document.getElementById("undo").addEventListener("click", () => takeBack());
  document.getElementById("help").addEventListener("click", () => keys.showModal());
  keys.addEventListener("click", (event) => { if (event.target === keys || event.target.closest("button")) keys.close(); });
  listen(draw, () => reload().catch(() => {}));
  if (!(await connect(tell))) {
    tell("token");
    return;
  }
  await poll().catch(() => {});
  addEventListener("hashchange", route);
  await route();
  document.documentElement.dataset.ready = "yes";
  setTimeout(news, 1000);
};

begin();
