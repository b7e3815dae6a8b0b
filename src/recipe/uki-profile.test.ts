import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { folder, message, refuses, takes } from '../../test/setting-types.ts'
import { ukiProfile } from './uki-profile.ts'

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
