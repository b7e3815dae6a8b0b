import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { anyKey, keyPositions } from './position.ts'

const at = (source: string, path: string): string | undefined => {
  const p = keyPositions(source).get(path)
  return p && `${p.line}:${p.column}`
}

test('keyPositions() finds keys of the recipe and of its profiles', () => {
  const source = `import { defineRecipe } from 'bisque'
const other = { packages: [] }
export default defineRecipe({
  release: 'trixie', packages: ['a'],
  'hostname': 'x',
  profiles: {
    desktop: { packages: ['b'], ...other, timezone: 'UTC' },
  },
})`
  assert.equal(at(source, 'release'), '4:3')
  assert.equal(at(source, 'packages'), '4:22')
  assert.equal(at(source, 'hostname'), '5:3')
  assert.equal(at(source, 'profiles.desktop.packages'), '7:16')
  assert.equal(at(source, 'profiles.desktop.timezone'), '7:43')
  assert.equal(at(source, 'desktop'), undefined)
})

test('keyPositions() is not fooled by strings, comments, templates and regular expressions', () => {
  const source = [
    'export default defineRecipe({',
    "  // packages: ['no'],  '",
    "  /* hostname: 'no', ` */ imageId: 'it\\'s: {',",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the source of a template
    '  output: `a ${ { seed: `}${1}` } } { seed: 1, `,',
    '  kernelCommandLine: [/[{"`/]\\/,}/.source, 1 / 2 / 3],',
    '  environment: { A: "packages: {" },',
    '  seed: 1,',
    '})',
  ].join('\n')
  assert.equal(at(source, 'packages'), undefined)
  assert.equal(at(source, 'hostname'), undefined)
  assert.equal(at(source, 'imageId'), '3:27')
  assert.equal(at(source, 'environment.A'), '6:18')
  assert.equal(at(source, 'seed'), '7:3')
})

test('keyPositions() knows shorthand, methods, nested calls, and a plain default export', () => {
  const source =
    'const release = "x"\nexport default {\n  release,\n  packages: list({ a: 1 }, (x) => { return { seed: 2 } }),\n  hostname() {},\n}'
  assert.equal(at(source, 'release'), '3:3')
  assert.equal(at(source, 'packages'), '4:3')
  assert.equal(at(source, 'hostname'), '5:3')
  assert.equal(at(source, 'seed'), undefined)
})

test('anyKey() finds a key outside of the recipe’s object', () => {
  assert.deepEqual(anyKey("const base = {\n  relaese: 'x' }\nexport default defineRecipe({ ...base })", 'relaese'), {
    line: 2,
    column: 3,
  })
  assert.equal(anyKey("const s = 'relaese: 1'", 'relaese'), undefined)
})

test('keyPositions() ends on any text', () => {
  const bits = fc.constantFrom(
    'defineRecipe({',
    'export default {',
    '{',
    '}',
    '`',
    '${',
    "'",
    '"',
    '/',
    '/*',
    '//',
    '\n',
    ':',
    ',',
    'a',
    '[',
    ')',
    '\\',
  )
  fc.assert(
    fc.property(fc.array(bits, { maxLength: 40 }), (parts) => void keyPositions(parts.join(''))),
    { numRuns: 500 },
  )
})
