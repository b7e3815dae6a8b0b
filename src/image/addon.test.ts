import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { tinyPe } from '../../test/tiny-pe.ts'
import { checkAuthenticode } from '../formats/authenticode.ts'
import { decodePe, sectionContent } from '../formats/pe.ts'
import { makeAddon } from './addon.ts'

const { signers } = await testKeys()
const stub = { bytes: tinyPe() }

const sectionsOf = (image: Uint8Array) =>
  decodePe(image).sections.map(({ name, ...section }) => [name, `${sectionContent(image, { name, ...section })}`] as const)

test('makeAddon() makes a signed program of what it adds, the same each time', async () => {
  const input = { stub, cmdline: 'debug', initrds: [{ bytes: Buffer.from('archive') }], signer: signers.db }
  const addon = await makeAddon(input)
  assert.deepEqual(checkAuthenticode(addon)[0]!.problems, [])
  const sections = Object.fromEntries(sectionsOf(addon))
  assert.deepEqual(Object.keys(sections), ['.text', '.sbat', '.cmdline', '.initrd'])
  assert.match(sections['.sbat']!, /^uki-addon,1,/m)
  assert.ok(Buffer.from(await makeAddon(input)).equals(addon))
})

test('makeAddon() refuses one that adds nothing, and a command line of two lines', async () => {
  await assert.rejects(makeAddon({ stub, uname: '6.12' }), /it would add nothing/)
  await assert.rejects(makeAddon({ stub, cmdline: 'a\nb' }), /cmdline has control character/)
})

oracle('ukify', 'ukify makes the same addon of the same input', async (_t, judge) => {
  await judge.run(['cp', '/usr/lib/systemd/boot/efi/addonx64.efi.stub', 'stub'])
  writeFileSync(join(judge.dir, 'initrd'), 'archive')
  // biome-ignore format: a command
  await judge.run([
    'ukify', 'build', '--stub=stub', '--cmdline=debug rd.break', '--uname=6.12', '--initrd=initrd', '--output=theirs.efi',
  ])
  const theirs = readFileSync(join(judge.dir, 'theirs.efi'))
  const ours = await makeAddon({
    stub: { path: join(judge.dir, 'stub') },
    cmdline: 'debug rd.break',
    uname: '6.12',
    initrds: [{ path: join(judge.dir, 'initrd') }],
  })
  const comparable = (image: Uint8Array) => sectionsOf(image).map(([name, text]) => [name, text.replace(/\0$/, '')])
  assert.deepEqual(comparable(ours), comparable(theirs))
})
