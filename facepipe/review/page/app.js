// What the views share: answers and how they are taken back, what the server tells each second, the line at the bottom.

import { button, el } from "./dom.js";
import { get, post } from "./server.js";

const toast = document.getElementById("toast");
let timer = 0;

// Says something at the bottom for a while; undo: the number of an answer that can be taken back from there.
export const say = (text, undo = null, bad = false) => {
  const back = undo === null ? null : button("Undo", "link", () => takeBack(undo));
  toast.replaceChildren(el("span", "", text), ...(back ? [back] : []));
  toast.className = bad ? "toast bad" : "toast";
  toast.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { toast.hidden = true; }, bad ? 9000 : 6000);
};

// What the server told last. version grows with every answer of any window.
export const state = { version: -1, open: 0, pairs: 0, suggestions: 0, people: 0, scan: null };
let shown = () => {};
let changed = () => {};
export const listen = (show, change) => { [shown, changed] = [show, change]; };

let answering = 0;

// Asks for news. An answer that is on its way would make its own change look like that of another window.
export const poll = async () => {
  if (answering) return;
  const told = await get("state");
  if (answering || told.version < state.version) return;
  const other = told.version !== state.version && state.version >= 0;
  Object.assign(state, told);
  shown();
  if (other) changed();
};

// Gives an answer; it is on the server's disk when this returns its number, null when it was refused and said so.
export const answer = async (body) => {
  answering += 1;
  try {
    const told = await (await post("answer", { ...body, since: state.version })).json();
    state.version = told.version;
    if (!told.alone || body.do === "undo") changed();
    say(told.what, body.do === "undo" ? null : told.number);
    return told.number;
  } catch (error) {
    say(error.message, null, true);
    return null;
  } finally {
    answering -= 1;
    poll().catch(() => {});
  }
};

// Takes back an answer, or without a number the last one.
export const takeBack = (number = null) => answer({ do: "undo", answer: number });
