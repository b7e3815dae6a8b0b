import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { encodeNullCredential } from './credential.ts'

const options = { iv: Buffer.alloc(12, 7), time: 1_795_392_000 }

test('encodeNullCredential() gives the same bytes for the same input', () => {
  const one = encodeNullCredential('a.name', Buffer.from('value'), options)
  assert.deepEqual(one, encodeNullCredential('a.name', Buffer.from('value'), options))
  assert.notDeepEqual(one, encodeNullCredential('b.name', Buffer.from('value'), options))
})

oracle('systemd-creds', 'decrypts what encodeNullCredential() wrote, under its name only', async (_t, judge) => {
  writeFileSync(join(judge.dir, 'a.cred'), encodeNullCredential('a.name', Buffer.from('the value'), options))
  const decrypt = (name: string) => ['systemd-creds', '--allow-null', `--name=${name}`, 'decrypt', 'a.cred', '-']
  assert.equal((await judge.run(decrypt('a.name'))).stdout, 'the value')
  assert.notEqual((await judge.run(decrypt('b.name'), { allowFailure: true })).exitCode, 0)
})
