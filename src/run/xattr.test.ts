import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { getXattr, listXattrs, readXattrs, setXattr } from './xattr.ts'

test('readXattrs() returns what setXattr() set, byte for byte, and does not follow links', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-xattr-'))
  t.after(() => rmSync(dir, { recursive: true }))
  writeFileSync(`${dir}/file`, '')
  symlinkSync('file', `${dir}/link`)
  const value = Uint8Array.from({ length: 256 }, (_, i) => i)
  try {
    setXattr(`${dir}/file`, 'user.b', value)
  } catch (error) {
    return t.skip((error as Error).message) // a file system without them
  }
  setXattr(`${dir}/file`, 'user.a', Buffer.alloc(0))
  assert.deepEqual(
    [...readXattrs(`${dir}/file`)],
    [
      ['user.a', new Uint8Array(0)],
      ['user.b', value],
    ],
  )
  assert.deepEqual(listXattrs(`${dir}/link`), [])
  assert.equal(getXattr(`${dir}/file`, 'user.c'), undefined)
})

test('listXattrs() finds none where a file system has none, and refuses a path that is not there', () => {
  assert.deepEqual(listXattrs('/proc/self/status'), [])
  assert.throws(() => listXattrs('/proc/no-such-file'), { code: 'host', message: /no such file/ })
})
