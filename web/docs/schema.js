// What the document says of values, in words and tables, and examples of them.
import { h } from '/assets/shared/dom.js';

const SCHEMA = '#/components/schemas/';

/** Names are the document's shared parts. */
export class Names {
  constructor(doc) {
    this.doc = doc;
  }

  /** real follows a $ref. */
  real(thing) {
    while (thing?.$ref) thing = thing.$ref.slice(2).split('/').reduce((at, name) => at[name], this.doc);
    return thing;
  }
}

/** text is a description: its paragraphs, with `code` in it. */
export function text(description) {
  return (description ?? '').trim().split(/\n\s*\n/).filter(Boolean).map((paragraph) => h('p', {}, inline(paragraph)));
}

export const inline = (line) => (line ?? '').split('`').map((part, i) => (i % 2 ? h('code', {}, part) : part));

/** type says what a value is, with links to what has a name. */
export function type(names, schema) {
  if (!schema) return ['anything'];
  if (schema.$ref) {
    const name = schema.$ref.replace(SCHEMA, '');
    return [h('a', { href: `#schema-${name}` }, name)];
  }
  if (schema.type === 'array') return ['list of ', ...type(names, schema.items)];
  if (schema.type === 'object' && typeof schema.additionalProperties === 'object') return ['object of ', ...type(names, schema.additionalProperties)];
  return [schema.format === 'date-time' ? 'time' : schema.type ?? 'anything'];
}

const BOUNDS = [
  ['minimum', 'at least'], ['maximum', 'at most'], ['minLength', 'at least', 'characters'], ['maxLength', 'at most', 'characters'],
  ['minItems', 'at least', 'items'], ['maxItems', 'at most', 'items'],
  ['minProperties', 'at least', 'fields'], ['maxProperties', 'at most', 'fields'],
  ['default', 'default'], ['pattern', 'matches'],
];

/** bounds are what a value must keep to, in words. */
export function bounds(schema) {
  const list = BOUNDS.filter(([name]) => schema?.[name] !== undefined).map(([name, words, unit = '']) => `${words} ${schema[name]} ${unit}`.trim());
  if (schema?.enum) list.unshift(`one of ${schema.enum.join(', ')}`);
  if (schema?.uniqueItems) list.push('each once');
  return list.join('; ');
}

export function row(names, name, schema, { required, description, where } = {}) {
  const about = description ?? schema?.description, limits = bounds(schema), inner = bounds(schema?.items);
  return h('tr', {}, h('td', {}, name, required && h('span', { class: 'needed' }, ' needed')),
    h('td', {}, h('span', { class: 'type' }, where && `${where}, `, type(names, schema)), about && [' — ', inline(about)],
      (limits || inner) && h('div', { class: 'dim' }, [limits, inner && `each ${inner}`].filter(Boolean).join('; '))));
}

/** fields are an object's, as a table; a value that is none says what it is. */
export function fields(names, schema) {
  const object = names.real(schema);
  if (!object?.properties) {
    return h('p', {}, h('span', { class: 'type' }, type(names, object)), bounds(object) && h('span', { class: 'dim' }, ` ${bounds(object)}`));
  }
  return h('table', {}, h('tbody', {}, Object.entries(object.properties).map(([name, property]) =>
    row(names, name, property, { required: object.required?.includes(name) }))));
}

/** example is a value that the schema allows: what must be in it, and what the document has an example of. */
export function example(names, schema) {
  const real = names.real(schema);
  if (!real) return null;
  if (real.example !== undefined) return real.example;
  if (real.enum) return real.enum[0];
  switch (real.type) {
    case 'object': {
      const shown = Object.entries(real.properties ?? {}).filter(([name, property]) =>
        real.required?.includes(name) || names.real(property).example !== undefined);
      if (shown.length === 0 && real.minProperties > 0) shown.push(...Object.entries(real.properties).slice(-2, -1));
      return Object.fromEntries(shown.map(([name, property]) => [name, example(names, property)]));
    }
    case 'array': return real.minItems > 0 ? [example(names, real.items)] : [];
    case 'integer': return real.default ?? real.minimum ?? 0;
    case 'boolean': return real.default ?? true;
    default: return real.format === 'date-time' ? '2030-01-01T00:00:00Z' : 'name';
  }
}
