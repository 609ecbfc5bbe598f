// One operation: what it does, takes and answers, and a command that asks for it.
import { h } from '/assets/shared/dom.js';
import { example, fields, inline, row, text, type } from './schema.js';

const quoted = (value) => `'${value.replaceAll("'", `'\\''`)}'`;

/** curl is a command that asks for the operation. Address and key come from the environment. */
export function curl(names, { method, path, parameters, operation, open }) {
  const of = (parameter) => parameter.example ?? example(names, parameter.schema);
  const at = path.replace(/\{(\w+)\}/g, (_, name) => {
    const parameter = parameters.find((p) => p.in === 'path' && p.name === name);
    return encodeURIComponent(String(of(parameter)));
  });
  const query = parameters.filter((p) => p.in === 'query' && p.required).map((p) => `${p.name}=${encodeURIComponent(of(p))}`).join('&');
  const words = ['curl'];
  const [media] = Object.entries(operation.responses).flatMap(([status, r]) => (status < '300' ? Object.keys(names.real(r).content ?? {}) : []));
  if (media && media !== 'application/json') words.push('-N');
  if (method !== 'get' && method !== 'post') words.push('-X', method.toUpperCase());
  if (!open) words.push('-H', '"Authorization: Bearer $WRENN_API_KEY"');
  const body = operation.requestBody && names.real(operation.requestBody).content['application/json']?.schema;
  if (body) words.push('--json', quoted(JSON.stringify(example(names, body))));
  else if (method === 'post') words.push('-X', 'POST');
  words.push(`"$WRENN_URL${at}${query && `?${query}`}"`);
  return words.join(' ');
}

function answer(names, status, response) {
  const real = names.real(response), [media, content] = Object.entries(real.content ?? {})[0] ?? [];
  return h('tr', {}, h('td', {}, status === 'default' ? 'any other' : status),
    h('td', {}, inline(real.description),
      content && h('div', { class: 'type' }, media === 'application/json' ? type(names, content.schema) : media)));
}

function copyable(command) {
  const button = h('button', { type: 'button', click: async () => {
    const done = await navigator.clipboard?.writeText(command).then(() => true, () => false);
    button.textContent = done ? 'Copied' : 'Copy it by hand';
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  } }, 'Copy');
  return h('div', { class: 'example' }, h('pre', {}, command), button);
}

export function show(names, entry) {
  const { method, path, operation, parameters, open } = entry;
  const body = names.real(operation.requestBody), [media, content] = Object.entries(body?.content ?? {})[0] ?? [];
  return h('article', { class: 'card', id: operation.operationId, 'data-operation': operation.operationId },
    h('h3', {}, h('a', { href: `#${operation.operationId}` },
      h('span', { class: 'method', 'data-method': method }, method.toUpperCase()), h('span', { class: 'path' }, path))),
    h('p', {}, h('strong', {}, `${operation.summary}.`), ' ',
      h('span', { class: 'dim' }, open ? 'Needs no key.' : operation['x-scope'] ? `Needs a key with the scope ${operation['x-scope']}.` : '')),
    text(operation.description),
    parameters.length > 0 && [h('h4', {}, 'Parameters'), h('table', {}, h('tbody', {}, parameters.map((p) =>
      row(names, p.name, p.schema, { required: p.required, description: p.description, where: `in the ${p.in}` }))))],
    content && [h('h4', {}, 'Body', media === 'application/json' ? '' : ` ${media}`),
      text(names.real(content.schema)?.description), fields(names, content.schema)],
    h('h4', {}, 'Answers'),
    h('table', {}, h('tbody', {}, Object.entries(operation.responses).map(([status, r]) => answer(names, status, r)))),
    h('h4', {}, 'Example'), copyable(curl(names, entry)));
}
