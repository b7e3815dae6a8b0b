import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type IniProblem, type IniSection, parseIni } from './ini.ts'

function parsed(text: string): { sections: IniSection[]; problems: IniProblem[] } {
  const problems: IniProblem[] = []
  return { sections: parseIni(text, (problem) => problems.push(problem)), problems }
}

/** Without positions. */
const plain = (text: string) =>
  parsed(text).sections.map(({ name, entries }) => [name, entries.map(({ name, value }) => [name, value])])

test('parseIni() reads sections, values that go on, and comments anywhere in a line', () => {
  const text = `# first
[A]
x=1 # one
y =
  2
# between

	 3 = three # and
z = a=b
[B]
 w=
[A]
x=4`
  assert.deepEqual(plain(text), [
    [
      'A',
      [
        ['x', '1'],
        ['y', '\n2\n3 = three'],
        ['z', 'a=b'],
      ],
    ],
    ['B', [['w', '']]],
    ['A', [['x', '4']]],
  ])
})

test('parseIni() does not count indentation that all lines share', () => {
  assert.deepEqual(plain('  [A]\n  x=1\n    2\n\n  y=3\n'), [
    [
      'A',
      [
        ['x', '1\n2'],
        ['y', '3'],
      ],
    ],
  ])
  // Nor one line less
  assert.deepEqual(plain('  [A]\n x=1\n  2\n y=3\n'), [
    [
      'A',
      [
        ['x', '1\n2'],
        ['y', '3'],
      ],
    ],
  ])
})

test('parseIni() takes the first indented line of a section as a setting', () => {
  assert.deepEqual(plain('[A]\n  x=1\n'), [['A', [['x', '1']]]])
})

test('parseIni() reads lines that end as Windows and old Macs have it, and comments with ;', () => {
  assert.deepEqual(plain('[A]\r\nx=1\r\n  2\r\n'), [['A', [['x', '1\n2']]]])
  assert.deepEqual(plain('[A]\rx=1\r'), [['A', [['x', '1']]]])
  assert.deepEqual(plain('; c\n[A]\n; d\nx=1\n  ; e\n'), [['A', [['x', '1\n; e']]]])
})

test('parseIni() says where things stand', () => {
  const { sections } = parsed('# c\n  [A]\n  x=1\n\n\n   y = 2')
  assert.deepEqual(sections[0], {
    name: 'A',
    line: 2,
    column: 3,
    entries: [{ section: 'A', name: 'x', value: '1\ny = 2', line: 3, column: 3 }],
  })
})

test('parseIni() tells every malformed line and goes on behind it', () => {
  const { sections, problems } = parsed('a=1\n[A\n[ ]\n[B]\nb\n=c\nd=1\n')
  assert.deepEqual(
    problems.map(({ line, column, message }) => `${line}:${column}: ${message}`),
    [
      '1:1: "a=1" stands before the first section',
      '2:1: "[A" is not a section: expected [Name]',
      '3:1: a section needs a name between its brackets',
      '5:1: "b" is not a setting: expected Name=value',
      '6:1: "=c" has no name before its "="',
    ],
  )
  assert.deepEqual(
    sections.at(-1)!.entries.map(({ name }) => name),
    ['d'],
  )
})

/** A line that is one when written: no comment, no blanks at its ends, not empty. */
const line = fc.stringMatching(/^[!-~äß]( ?[!-~äß]){0,8}$/).filter((text) => !text.includes('#') && text.trim() === text)
const name = fc.stringMatching(/^[A-Za-z][A-Za-z0-9]{0,9}$/)
const file = fc.array(
  fc.record({
    name,
    entries: fc.array(fc.record({ name, first: fc.option(line, { nil: '' }), more: fc.array(line, { maxLength: 3 }) })),
  }),
)

test('parseIni() reads back what is written', () => {
  fc.assert(
    fc.property(
      file,
      fc.constantFrom('\n', '\n\n', '\n# c\n', ' # c\n'),
      fc.constantFrom('', '  ', '\t'),
      (sections, end, margin) => {
        const lines = sections.flatMap((section) => [
          `[${section.name}]`,
          ...section.entries.flatMap(({ name, first, more }) => [`${name}=${first}`, ...more.map((text) => `  ${text}`)]),
        ])
        const text = lines.map((line) => margin + line).join(end.replace('# c\n', `${margin}# c\n`))
        assert.deepEqual(
          plain(text),
          sections.map(({ name, entries }) => [
            name,
            entries.map(({ name, first, more }) => [name, [first, ...more].join('\n')]),
          ]),
        )
        assert.deepEqual(parsed(text).problems, [])
      },
    ),
  )
})

test('parseIni() never throws, and every position lies in the text', () => {
  const any = fc.array(
    fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('[A]', 'a=b', ' ', '\t', '\n', '\r', '#', '=', ']', '[', ';')),
  )
  fc.assert(
    fc.property(any, (parts) => {
      const text = parts.join('')
      const { sections, problems } = parsed(text)
      const lines = text.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/)
      for (const { line, column } of [...problems, ...sections, ...sections.flatMap(({ entries }) => entries)]) {
        assert.ok(line >= 1 && line <= lines.length)
        assert.ok(column >= 1 && column <= lines[line - 1]!.length)
      }
    }),
  )
})
