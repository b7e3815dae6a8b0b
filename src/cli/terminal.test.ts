import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Event } from '../base/report.ts'
import { clean, formatMs, openTerminal } from './terminal.ts'

const EVENTS: Event[] = [
  { type: 'start', step: 1, parent: 0, name: 'Build Minimal' },
  { type: 'start', step: 2, parent: 1, name: 'Fetch packages' },
  { type: 'progress', step: 2, done: 1024, total: 4096, unit: 'bytes' },
  { type: 'note', step: 2, level: 'warning', message: 'mirror\x1b]0;title\x07 is slow' },
  { type: 'progress', step: 2, done: 4096, total: 4096, unit: 'bytes' },
  { type: 'end', step: 2, ms: 3400 },
  { type: 'start', step: 3, parent: 1, name: 'Sign UKI' },
  { type: 'end', step: 3, ms: 2, failed: 'no key' },
  { type: 'artifact', step: 1, name: 'Minimal.raw', size: 1 << 20, digest: '00' },
  { type: 'end', step: 1, ms: 125_000 },
]

/** A stream that keeps what is written, and the lines a terminal would show of it. */
function screen(more: { isTTY?: boolean; columns?: number; rows?: number } = {}) {
  const writes: string[] = []
  return { ...more, writes, write: (text: string) => writes.push(text), text: () => writes.join('') }
}

/** What a terminal shows after these bytes: enough of ECMA-48 for what the view writes. */
function screenOf(text: string): string[] {
  const lines: string[] = ['']
  let row = 0
  for (const [token] of text.matchAll(/\x1b\[\??\d*[A-Za-z]|\r|\n|[^\x1b\r\n]+/g)) {
    if (token === '\n') lines[++row] ??= ''
    else if (/^\x1b\[\d+A$/.test(token)) row -= Number.parseInt(token.slice(2), 10)
    else if (token === '\x1b[J') lines.splice(row, lines.length, '')
    else if (!token.startsWith('\x1b') && token !== '\r') lines[row] = token
  }
  return lines.map((line) => line.trimEnd())
}

test('elsewhere than on a terminal there is one plain line for each step that ended', () => {
  const out = screen()
  const view = openTerminal(out, { color: false })
  for (const event of EVENTS) view.show(event)
  view.stop()
  const lines = out.text().split('\n')
  assert.equal(lines[0], '! mirror�]0;title� is slow')
  assert.match(lines[1]!, /^✓ Build Minimal › Fetch packages +4\.0 KiB +3\.4 s$/)
  assert.match(lines[2]!, /^✗ Build Minimal › Sign UKI +2 ms$/)
  assert.equal(lines[3], '→ Minimal.raw  1.0 MiB')
  assert.match(lines[4]!, /^✓ Build Minimal +2:05 min$/)
  assert.doesNotMatch(out.text(), /\x1b/)
})

test('on a terminal what ended stays below what runs, then stays for good, and the cursor comes back', async () => {
  const out = screen({ isTTY: true, columns: 60, rows: 20 })
  const view = openTerminal(out, { color: false })
  for (const event of EVENTS.slice(0, 6)) view.show(event)
  await new Promise((resolve) => setTimeout(resolve, 200))
  const shown = screenOf(out.text())
  assert.match(shown[0]!, /^\S Build Minimal +\d+ ms$/)
  assert.match(shown[1]!, /^ {2}✓ Fetch packages +4\.0 KiB +3\.4 s$/)
  assert.equal(shown[2], '    ! mirror�]0;title� is slow')
  assert.ok(out.writes.length >= 2 && out.writes.length <= 4, `${out.writes.length} writes`)
  for (const event of EVENTS.slice(6)) view.show(event)
  view.stop()
  const last = screenOf(out.text())
  assert.deepEqual(
    last.map((line) => line.trim().split(/ {2,}/)[0]),
    ['✓ Build Minimal', '✓ Fetch packages', '! mirror�]0;title� is slow', '✗ Sign UKI', '→ Minimal.raw', ''],
  )
  assert.equal(last.length, 6)
  assert.ok(out.text().endsWith('\x1b[?25h'))
  const written = out.writes.length
  await new Promise((resolve) => setTimeout(resolve, 120))
  assert.equal(out.writes.length, written)
})

test('lines fit a narrow terminal and more steps than rows fit a low one', async () => {
  const out = screen({ isTTY: true, columns: 30, rows: 6 })
  const view = openTerminal(out, { color: false })
  for (let step = 1; step <= 20; step++) view.show({ type: 'start', step, parent: 0, name: `Compress a very long name ${step}` })
  await new Promise((resolve) => setTimeout(resolve, 100))
  const lines = screenOf(out.text()).filter((line) => line !== '')
  assert.equal(lines.length, 4)
  for (const line of lines) assert.ok(line.length < 30, line)
  assert.match(lines[0]!, /…/)
  view.stop()
})

test('running steps stand below their parents, whatever the order of their start', async () => {
  const out = screen({ isTTY: true, columns: 40, rows: 20 })
  const view = openTerminal(out, { color: false })
  const started = [
    [1, 0, 'build'],
    [2, 1, 'install'],
    [3, 1, 'initrd'],
    [4, 2, 'configure'],
  ] as const
  for (const [step, parent, name] of started) view.show({ type: 'start', step, parent, name })
  await new Promise((resolve) => setTimeout(resolve, 100))
  const names = screenOf(out.text()).flatMap((line) => /\S (\w+)/.exec(line)?.[1] ?? [])
  assert.deepEqual(names, ['build', 'install', 'configure', 'initrd'])
  view.stop()
})

test('progress shows how much of how much, and the rate of bytes', async () => {
  const out = screen({ isTTY: true, columns: 100, rows: 20 })
  let now = 0
  const view = openTerminal(out, { color: true, nowMs: () => now })
  view.show({ type: 'start', step: 1, parent: 0, name: 'Fetch' })
  view.show({ type: 'progress', step: 1, done: 0, total: 10 << 20, unit: 'bytes' })
  now = 2000
  view.show({ type: 'progress', step: 1, done: 4 << 20, total: 10 << 20, unit: 'bytes' })
  await new Promise((resolve) => setTimeout(resolve, 120))
  view.stop()
  assert.match(out.text(), /4\.0 MiB of 10\.0 MiB {2}2\.0 MiB\/s/)
  assert.match(out.text(), /\x1b\[36m/)
})

test('formatMs() and clean()', () => {
  assert.deepEqual([0, 999, 1000, 59_949, 59_960, 3_600_000].map(formatMs), [
    '0 ms',
    '999 ms',
    '1.0 s',
    '59.9 s',
    '1:00 min',
    '60:00 min',
  ])
  assert.equal(clean('a\x1b[2J\tb\nc\u202e'), 'a�[2J  b\nc�')
})
