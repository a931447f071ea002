// Makes elements. Whatever comes from names and paths enters the page as text, never as HTML.

export const el = (tag, className = "", ...children) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

// bdi keeps a right-to-left name from turning round the words beside it.
export const words = (text) => el("bdi", "", text);

export const button = (label, className, act, title = "") => {
  const node = el("button", className, label);
  node.type = "button";
  if (title) node.title = title;
  node.addEventListener("click", act);
  return node;
};

export const link = (href, className, ...children) => {
  const node = el("a", className, ...children);
  node.href = href;
  return node;
};

export const labelled = (node, label) => {
  node.setAttribute("aria-label", label);
  return node;
};

const numbers = new Intl.NumberFormat("en");
export const count = (value) => numbers.format(value);
export const plural = (value, word, more = `${word}s`) => `${count(value)} ${value === 1 ? word : more}`;
export const percent = (value) => (value === null ? "" : value > 0.99 ? ">99 %" : `${Math.round(100 * value)} %`);
export const fileName = (path) => path.split("/").pop();

// When a group's photos were taken: a day, the years from and to, or nothing where no photo says so.
export const span = (first, last) => {
  if (!first || !last) return "";
  if (first.slice(0, 10) === last.slice(0, 10)) return first.slice(0, 10);
  const [from, to] = [first.slice(0, 4), last.slice(0, 4)];
  return from === to ? from : `${from}–${to}`;
};

// Case, accents and blanks make no difference when somebody looks for a name.
export const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLocaleLowerCase().trim().replace(/\s+/gu, " ");
