// A field for a person's name that completes it with those of the people who are there.

import { button, el, plain, words } from "./dom.js";

const SHOWN = 6;
let people = []; // {name, plain}, most faces first
let numbered = 0;

export const knowPeople = (names) => { people = names.map((name) => ({ name, plain: plain(name) })); };
export const isKnown = (name) => people.some((person) => person.name === name);

// First those whose name begins so, then those with a word that does, then those that have it anywhere.
const matching = (text) => {
  const wanted = plain(text);
  if (!wanted) return [];
  const rank = (name) => (name.startsWith(wanted) ? 0 : name.includes(` ${wanted}`) ? 1 : name.includes(wanted) ? 2 : 3);
  return people.map((person) => [rank(person.plain), person.name]).filter(([place]) => place < 3)
    .sort((a, b) => a[0] - b[0]).slice(0, SHOWN).map(([, name]) => name);
};

// The name that somebody means by a text: that of a person who is there, however it is written, else the text.
const meant = (text) => {
  const wanted = plain(text);
  return people.find((person) => person.plain === wanted)?.name ?? text.trim().replace(/\s+/gu, " ");
};

// give(name) is called when Enter is pressed or a name is chosen; empty(event) for a key in the empty field, true: it is done with.
export const nameField = ({ label, placeholder = "Who is this?", give, empty = () => false }) => {
  const input = el("input", "name");
  const list = el("div", "choices");
  const field = el("div", "field", input, list);
  list.id = `choices-${(numbered += 1)}`;
  list.hidden = true;
  list.setAttribute("role", "listbox");
  const said = { type: "text", placeholder, autocomplete: "off", autocapitalize: "words", spellcheck: false, enterKeyHint: "done" };
  Object.assign(input, said);
  const roles = { role: "combobox", "aria-label": label, "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "both" };
  for (const [name, value] of Object.entries(roles)) input.setAttribute(name, value);
  let chosen = -1;

  const close = () => {
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const done = (name) => {
    close();
    if (name) give(name);
  };
  const mark = (place) => {
    chosen = place;
    [...list.children].forEach((option, number) => option.setAttribute("aria-selected", String(number === place)));
    input.setAttribute("aria-activedescendant", list.children[place]?.id ?? "");
    if (list.children[place]) input.value = list.children[place].dataset.name;
  };
  const offer = (typed) => {
    const names = matching(typed);
    list.replaceChildren(...names.map((name, number) => {
      const option = button(words(name), "choice", () => done(name));
      option.dataset.name = name;
      option.id = `${list.id}-${number}`;
      option.tabIndex = -1;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
      return option;
    }));
    list.hidden = names.length === 0;
    chosen = -1;
    input.setAttribute("aria-expanded", String(!list.hidden));
    return names[0];
  };

  input.addEventListener("input", (event) => {
    const typed = input.value;
    const first = offer(typed);
    // What Enter would take stands in the field; the part that was not typed is marked, so that typing goes on over it.
    const atEnd = input.selectionStart === typed.length;
    if (event.inputType === "insertText" && !event.isComposing && atEnd && first?.toLocaleLowerCase().startsWith(typed.toLocaleLowerCase())) {
      // Typing may go on to another name: until it is whole, what was typed stays as it was.
      input.value = first.length === typed.length ? first : typed + first.slice(typed.length);
      input.setSelectionRange(typed.length, first.length);
    }
  });
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (input.value === "" && empty(event)) {
      event.preventDefault();
      return;
    }
    if (event.key === "Enter") done(meant(input.value));
    else if (event.key === "Escape" && (input.value !== "" || !list.hidden)) {
      input.value = "";
      close();
    } else if (event.key === "ArrowDown" && !list.hidden) mark(Math.min(chosen + 1, list.children.length - 1));
    else if (event.key === "ArrowUp" && !list.hidden) mark(Math.max(chosen - 1, 0));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  input.addEventListener("blur", close);
  return { node: field, input };
};
