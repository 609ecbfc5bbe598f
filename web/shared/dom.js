// Elements are made of nodes and texts alone: nothing that comes from a server or a guest is ever read as HTML.

/**
 * h makes an element. Properties are attributes, and listeners where the value is a function; null, undefined and false leave one out.
 * Children that are no nodes are texts.
 */
export function h(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(key, value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const find = (id) => document.getElementById(id);

/** errorBox tells an error with all that the server says of it. */
export function errorBox(error) {
  const facts = [['code', error.code], ['field', error.field], ['fix', error.fix], ['request', error.requestID]].filter(([, value]) => value);
  return h('div', { class: 'error' }, error.message,
    facts.length > 0 && h('dl', {}, facts.flatMap(([name, value]) =>
      [h('dt', {}, name), h('dd', { class: name === 'fix' ? null : 'mono' }, value)])));
}
