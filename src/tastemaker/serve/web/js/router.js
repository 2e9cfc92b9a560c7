// Addresses behind the "#": #/view/id?name=value. All that a view shows follows from its address.

/** What an address names. */
export function parse(hash = location.hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  return { view: view || "try", id: rest.length ? decoded(rest.join("/")) : null, params: new URLSearchParams(search) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** An address; parameters that are empty are left out. */
export function link(view, params = {}, id = null) {
  const given = params instanceof URLSearchParams ? [...params] : Object.entries(params);
  const kept = given.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  const search = new URLSearchParams(kept.map(([name, value]) => [name, value === true ? "1" : String(value)]));
  const path = id === null ? view : `${view}/${encodeURIComponent(id)}`;
  return `#/${path}${kept.length ? `?${search}` : ""}`;
}

/** Go to an address; `replace` puts it in the place of the present one. */
export function go(address, { replace = false } = {}) {
  if (address === location.hash) return;
  if (replace) {
    history.replaceState(history.state, "", address);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = address;
  }
}

/** Several ids as one parameter. */
export const pack = (ids) => ids.map((id) => encodeURIComponent(String(id))).join(",");
export const unpack = (text) => (text ? text.split(",").filter(Boolean).map(decoded) : []);
