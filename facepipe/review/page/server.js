// Speaks to the server: every request carries the token that came with the address.

const TOKEN = "facepipe-token";
const windows = new BroadcastChannel("facepipe-review");
let token = "";
let told = () => {};

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Takes the token out of the address, where it would be seen and kept, or asks the other windows of this page for it.
export const connect = async (tell) => {
  told = tell;
  const found = /^#token=([\w-]+)$/u.exec(location.hash);
  if (found) {
    sessionStorage.setItem(TOKEN, found[1]);
    history.replaceState(null, "", location.pathname);
  }
  token = sessionStorage.getItem(TOKEN) ?? (await fromOtherWindows());
  windows.addEventListener("message", ({ data }) => {
    if (data.asks && token) windows.postMessage({ token });
  });
  return token !== "";
};

const fromOtherWindows = () => new Promise((resolve) => {
  const give = (value) => {
    windows.removeEventListener("message", hear);
    if (value) sessionStorage.setItem(TOKEN, value);
    resolve(value);
  };
  const hear = ({ data }) => { if (data.token) give(data.token); };
  windows.addEventListener("message", hear);
  windows.postMessage({ asks: true });
  setTimeout(() => give(""), 400);
});

const ask = async (path, options = {}) => {
  let response;
  try {
    response = await fetch(`/api/${path}`, { ...options, headers: { "x-facepipe-token": token }, cache: "no-store" });
  } catch {
    told("gone");
    throw new Refused(0, "The server does not run any more.");
  }
  if (response.ok) {
    told("there");
    return response;
  }
  if (response.status === 401) told("token");
  const { error } = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  throw new Refused(response.status, error);
};

const query = (values) => {
  const filled = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  return filled.length ? `?${new URLSearchParams(filled)}` : "";
};

export const get = async (path, values = {}) => (await ask(path + query(values))).json();
export const blob = async (path, values = {}) => (await ask(path + query(values))).blob();
export const post = async (path, body) => ask(path, { method: "POST", body: JSON.stringify(body) });
