import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { resolveInside } from './inside.ts'

test('resolveInside() walks links as a process with that root would, and never leaves it', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'bisque-inside-'))
  t.after(() => rmSync(root, { recursive: true }))
  mkdirSync(`${root}/usr/bin`, { recursive: true })
  symlinkSync('usr/bin', `${root}/bin`)
  symlinkSync('/etc', `${root}/usr/absolute`)
  symlinkSync('../../../..', `${root}/usr/up`)
  symlinkSync('loop', `${root}/loop`)
  // biome-ignore format: table
  const CASES: [path: string, resolved: string][] = [
    ['/bin/sh',           'usr/bin/sh'],
    ['bin',               'bin'],
    ['/usr/absolute/x',   'etc/x'],
    ['/usr/up/etc/x',     'etc/x'],
    ['/../../etc/passwd', 'etc/passwd'],
    ['/bin/../x',         'usr/x'],
    ['/',                 ''],
    ['/new/./path//x',    'new/path/x'],
  ]
  for (const [path, resolved] of CASES) assert.equal(resolveInside(root, path), resolved, path)
  assert.equal(resolveInside(root, '/bin', { followLast: true }), 'usr/bin')
  assert.throws(() => resolveInside(root, '/loop/x'), { code: 'format', message: /symbolic links/ })
})
