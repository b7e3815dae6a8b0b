import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Fault } from '../base/fault.ts'
import type * as type from './type.ts'
import { ukiProfile } from './uki-profile.ts'

const place = { directory: '/recipe', env: { HOME: '/home/ada' } }
const takes = (of: type.Type<unknown, unknown, unknown>, input: unknown, value: unknown) =>
  assert.deepEqual(of.check(input, place), value)
const message = (body: () => unknown): string => {
  try {
    body()
  } catch (error) {
    assert.ok(error instanceof Fault)
    assert.equal(error.code, 'recipe')
    return error.message
  }
  return assert.fail('was accepted')
}
const refuses = (of: type.Type<unknown, unknown, unknown>, input: unknown) => message(() => of.check(input, place))

/** A folder with files, gone after the test. */
function folder(t: TestContext, files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-type-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true })
    writeFileSync(join(directory, name), text)
  }
  return directory
}

test('ukiProfile reads a file, or what the file would say', (t) => {
  const conf = '[UKIProfile]\nProfile=\n    ID=live\n    TITLE=Live, "now"\nCmdline=\n    a b=1,2\n    c\nSignExpectedPcr=no\n'
  const directory = folder(t, { 'live.conf': conf, 'bare.conf': '[UKIProfile]\nProfile=ID=b\n', 'wrong.conf': 'ID=b\n' })
  const read = (text: string) => ukiProfile.parse(text, { directory, env: {} })
  const live = { profile: { ID: 'live', TITLE: 'Live, "now"' }, cmdline: ['a', 'b=1,2', 'c'], signExpectedPcr: false }
  assert.deepEqual(read('live.conf'), { ...live, source: join(directory, 'live.conf') })
  const bare = { profile: { ID: 'b' }, cmdline: [], signExpectedPcr: true }
  assert.deepEqual(read('bare.conf'), { ...bare, source: join(directory, 'bare.conf') })
  takes(ukiProfile, { profile: { ID: 'b' } }, bare)
  assert.match(
    message(() => read('wrong.conf')),
    /wrong\.conf:1:/,
  )
  assert.match(
    message(() => read('gone.conf')),
    /expected a file that is there/,
  )
  for (const wrong of [5, {}, { profile: { ID: 1 } }, { profile: {}, cmdline: 'x' }, { profile: {}, signExpectedPcr: 'no' }])
    refuses(ukiProfile, wrong)
})
