// The API's reference, made from the document that the server itself goes by.
import { h, find, errorBox } from '/assets/shared/dom.js';
import { show } from './operation.js';
import { Names, fields, text } from './schema.js';

const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head', 'options'];

/** operations are the document's, in the order of its tags. */
function operations(doc, names) {
  const list = Object.entries(doc.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => {
    const operation = item[method];
    const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map((p) => names.real(p));
    return { method, path, operation, parameters, tag: operation.tags?.[0] ?? 'other', open: operation.security?.length === 0 };
  }));
  const tags = [...new Set([...(doc.tags ?? []).map((t) => t.name), ...list.map((o) => o.tag)])];
  return tags.map((tag) => ({ tag, list: list.filter((o) => o.tag === tag) })).filter(({ list }) => list.length > 0);
}

const link = (id, ...label) => h('li', {}, h('a', { href: `#${id}` }, label));

function render(doc) {
  const names = new Names(doc), groups = operations(doc, names), schemas = Object.entries(doc.components?.schemas ?? {});
  find('main').replaceChildren(
    h('h1', {}, `${doc.info.title}'s REST API, ${doc.info.version}`), ...text(doc.info.description),
    h('p', { class: 'dim' }, 'The examples take the server\'s address and a key from the environment: ',
      h('code', {}, `export WRENN_URL=${location.origin} WRENN_API_KEY=wrenn_…`)),
    ...groups.map(({ tag, list }) => h('section', { id: `tag-${tag}` }, h('h2', {}, tag), list.map((entry) => show(names, entry)))),
    h('section', { id: 'schemas' }, h('h2', {}, 'Schemas'), schemas.map(([name, schema]) =>
      h('article', { class: 'card', id: `schema-${name}` }, h('h3', {}, h('a', { href: `#schema-${name}` }, name)),
        text(schema.description), fields(names, schema)))),
  );
  find('contents').replaceChildren(
    ...groups.map(({ tag, list }) => h('div', {}, h('b', {}, tag), h('ul', {}, list.map(({ method, path, operation }) =>
      link(operation.operationId, h('span', { class: 'method', 'data-method': method }, method.toUpperCase()), operation.summary,
        h('span', { class: 'visually-hidden' }, ` ${path}`)))))),
    h('div', {}, h('b', {}, 'schemas'), h('ul', {}, schemas.map(([name]) => link(`schema-${name}`, name)))),
  );
}

/** search shows what has all the words, in the text as in the contents. */
function search() {
  const words = find('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const article of document.querySelectorAll('article')) {
    const has = article.textContent.toLowerCase();
    article.hidden = !words.every((word) => has.includes(word));
    shown += article.hidden ? 0 : 1;
    find('contents').querySelector(`a[href="#${CSS.escape(article.id)}"]`).parentElement.hidden = article.hidden;
  }
  for (const group of document.querySelectorAll('section, #contents > div')) {
    group.hidden = !group.querySelector('article:not([hidden]), li:not([hidden])');
  }
  find('found').textContent = words.length === 0 ? '' : shown === 0 ? 'Nothing has all these words.' : `${shown} found`;
}

try {
  const response = await fetch('/v1/openapi.json');
  if (!response.ok) throw new Error(`the document can't be had: the server answered ${response.status}`);
  render(await response.json());
  find('search').addEventListener('input', search);
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.ctrlKey || event.metaKey || event.target.closest('input')) return;
    event.preventDefault();
    find('search').focus();
  });
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
} catch (error) {
  find('main').replaceChildren(errorBox(error));
}
