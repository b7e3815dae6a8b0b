import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Judge, oracle } from '../../test/oracle.ts'
import { partitionType } from '../formats/dps.ts'
import { madeDirectory, madeFile } from '../tree/content.ts'
import { treeOf } from '../tree/tree.ts'
import { findsSignatures, usrSignatureScript, usrSignatureUnit, usrSignatureWord } from './usr-signature.ts'

const HASH = '0a64d6a3'.repeat(4) + '5f00c0de'.repeat(4)
const DATA = '0a64d6a3-0a64-d6a3-0a64-d6a30a64d6a3'
const SIGNATURE = Buffer.from(Array.from({ length: 1300 }, (_, i) => i % 256))
const TYPE = partitionType('usr-verity-sig', 'x86-64').guid

const json = (rootHash: string, signature = SIGNATURE.toString('base64')) =>
  Buffer.concat([
    Buffer.from(JSON.stringify({ rootHash, certificateFingerprint: 'ab', signature })),
    Buffer.alloc(16384),
  ]).subarray(0, 16384)

/** Partitions as plain files; their types are told by a udevadm that reads them from `types/`. */
async function run(judge: Judge, cmdline: string, partitions: Record<string, [type: string, content: Uint8Array]>) {
  for (const dir of ['partitions', 'types', 'bin']) mkdirSync(join(judge.dir, dir), { recursive: true })
  writeFileSync(join(judge.dir, 'cmdline'), `${cmdline}\n`)
  writeFileSync(join(judge.dir, 'script'), usrSignatureScript('x86-64'))
  const udevadm = `#!/bin/sh
case $1 in
  wait) shift 2; [ -e "$1" ] ;;
  settle) ;;
  info) for name; do :; done; cat "${judge.dir}/types/\${name##*/}" ;;
esac
`
  writeFileSync(join(judge.dir, 'bin/udevadm'), udevadm)
  chmodSync(join(judge.dir, 'bin/udevadm'), 0o755)
  for (const [name, [type, content]] of Object.entries(partitions)) {
    writeFileSync(join(judge.dir, 'partitions', name), content)
    writeFileSync(join(judge.dir, 'types', name), `${type}\n`)
  }
  const at = (name: string) => `BISQUE_${name.toUpperCase()}=${judge.dir}/${name}`
  const env = [at('cmdline'), at('partitions'), `BISQUE_OUT=${judge.dir}/run/usr.p7s`, 'BISQUE_ATTEMPTS=1']
  const path = `PATH=${judge.dir}/bin:/usr/bin`
  const verdict = await judge.run(['env', path, ...env, 'sh', `${judge.dir}/script`], { allowFailure: true })
  const out = join(judge.dir, 'run/usr.p7s')
  return { ...verdict, signature: existsSync(out) ? readFileSync(out) : undefined }
}

oracle('sh', 'the script takes the signature whose root hash is the one of the command line', async (_t, judge) => {
  const { exitCode, stderr, signature } = await run(judge, `quiet usrhash=${HASH} rw`, {
    [DATA]: ['usr', Buffer.alloc(100)],
    '1': ['other-type', json(HASH, 'd3Jvbmc=')],
    '2': [TYPE, Buffer.alloc(16384)],
    '3': [TYPE, json('f'.repeat(64), 'd3Jvbmc=')],
    '4': [TYPE, json(HASH)],
  })
  assert.equal(exitCode, 0, stderr)
  assert.ok(signature?.equals(SIGNATURE))
})

oracle('sh', 'the script says which signatures it saw when none is right', async (_t, judge) => {
  const { exitCode, stderr, signature } = await run(judge, `usrhash=${HASH}`, {
    [DATA]: ['usr', Buffer.alloc(100)],
    other: [TYPE, json('f'.repeat(64))],
    hostile: [TYPE, Buffer.from(`{"rootHash":"$(touch pwned)","signature":"\`reboot\`"}`)],
  })
  assert.equal(exitCode, 1)
  assert.match(
    stderr,
    new RegExp(`no partition of type ${TYPE} is for root hash ${HASH}; seen: hostile \\(\\) other \\(f{64}\\)`),
  )
  assert.equal(signature, undefined)
  assert.ok(!existsSync(join(judge.dir, 'pwned')))
})

oracle('sh', 'the script refuses a root hash that is none', async (_t, judge) => {
  for (const cmdline of ['usrhash=short', 'quiet', `usrhash=${HASH}$(reboot)`, `xusrhash=${HASH}`]) {
    const { exitCode, stderr } = await run(judge, cmdline, {})
    assert.equal(exitCode, 1)
    assert.match(stderr, /is not a SHA-256 root hash/)
  }
})

oracle('sh', 'the script says that the data partition did not appear', async (_t, judge) => {
  const { stderr } = await run(judge, `usrhash=${HASH}`, {})
  assert.match(stderr, new RegExp(`no partition ${DATA} appeared in 1 seconds`))
})

oracle('systemd-analyze', 'systemd-analyze finds nothing wrong with the unit', async (_t, judge) => {
  for (const [path, inode] of usrSignatureUnit({ architecture: 'x86-64', epoch: 0 })) {
    if (inode.type !== 'file' || !path.endsWith('.service') || !('bytes' in inode.content)) continue
    const text = Buffer.from(inode.content.bytes)
      .toString()
      .replace(/^ExecStart=.*/m, 'ExecStart=/bin/true')
    writeFileSync(join(judge.dir, 'bisque-usr-signature.service'), text)
  }
  const { exitCode, stderr } = await judge.run(['systemd-analyze', 'verify', '--man=no', './bisque-usr-signature.service'], {
    allowFailure: true,
  })
  assert.doesNotMatch(stderr, /bisque-usr-signature\.service/)
  assert.equal(exitCode, 0, stderr)
})

test('usrSignatureUnit() gives the same tree each time', () => {
  const options = { architecture: 'arm64', epoch: 1 } as const
  assert.deepEqual(usrSignatureUnit(options), usrSignatureUnit(options))
  assert.match(usrSignatureScript('arm64'), /^type=c23ce4ff-44bd-4b00-b2d4-b41b3419e02a$/m)
})

test('from systemd 258 on, the signature is left to systemd to find', () => {
  const system = (library: string) => treeOf([[library, madeFile('', 0)]], madeDirectory(0))
  for (const [library, found] of [
    ['usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so', false],
    ['usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-258.so', true],
    ['usr/lib/systemd/libsystemd-shared-261~rc2.so', true],
    ['usr/lib/other/libsystemd-shared-300.so', false],
  ] as const) {
    assert.equal(findsSignatures(system(library)), found, library)
    assert.equal(
      usrSignatureWord(system(library)),
      `systemd.verity_usr_options=root-hash-signature=${found ? 'auto' : '/run/bisque/usr.p7s'}`,
    )
  }
})
