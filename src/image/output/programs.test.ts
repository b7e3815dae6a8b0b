import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { testKeys } from '../../../test/keys.ts'
import { JUDGES, type Judge, oracle } from '../../../test/oracle.ts'
import { tinyPe } from '../../../test/tiny-pe.ts'
import { checkAuthenticode } from '../../formats/authenticode.ts'
import { decodePe, findSection, sectionContent } from '../../formats/pe.ts'
import { madeDirectory, madeFile } from '../../tree/content.ts'
import { treeOf } from '../../tree/tree.ts'
import { makeTreeAddon, makeTreeUki } from './programs.ts'

const EPOCH = 1_700_000_000
const { signers } = await testKeys()
const options = { epoch: EPOCH, compression: 'zstd', level: 3 } as const
const tree = treeOf([['usr/lib/os-release', madeFile('ID=soup\n', EPOCH + 5)]], madeDirectory(EPOCH))
const empty = treeOf([], madeDirectory(EPOCH))
const stub = (kind: string) => ({ path: `${JUDGES}/usr/lib/systemd/boot/efi/${kind}x64.efi.stub` })

/** What a foreign tool lists of the archive in a program. */
async function filesIn(judge: Judge, program: Uint8Array): Promise<string> {
  writeFileSync(`${judge.dir}/initrd`, sectionContent(program, findSection(decodePe(program), '.initrd')!))
  return (await judge.run(['bsdtar', '-tf', 'initrd'])).stdout
}

oracle('ukify', 'ukify finds in a UKI the tree it was made of', async (_t, judge) => {
  const input = {
    stub: stub('linux'),
    kernel: { bytes: tinyPe({ text: Buffer.from('a kernel') }) },
    osRelease: 'ID=soup\n',
    cmdline: 'quiet',
    uname: '6.12',
    signers,
  }
  const uki = await makeTreeUki(tree, input, options)
  writeFileSync(`${judge.dir}/a.efi`, uki.bytes)
  const inspected = JSON.parse((await judge.run(['ukify', '--json=short', 'inspect', 'a.efi'])).stdout)
  assert.equal(inspected['.cmdline'].text, 'quiet')
  assert.match(await filesIn(judge, uki.bytes), /^usr\/lib\/os-release$/m)
  assert.deepEqual(checkAuthenticode(readFileSync(`${judge.dir}/a.efi`))[0]!.problems, [])
  assert.ok(Buffer.from((await makeTreeUki(tree, input, options)).bytes).equals(uki.bytes))
})

oracle('ukify', 'ukify finds in an addon the tree and the command line', async (_t, judge) => {
  const input = { stub: stub('addon'), cmdline: 'debug', signer: signers.db }
  const addon = await makeTreeAddon(tree, input, options)
  writeFileSync(`${judge.dir}/a.efi`, addon)
  const inspected = JSON.parse((await judge.run(['ukify', '--json=short', 'inspect', 'a.efi'])).stdout)
  assert.equal(inspected['.cmdline'].text, 'debug')
  assert.match(await filesIn(judge, addon), /^usr\/lib\/os-release$/m)

  writeFileSync(`${judge.dir}/b.efi`, await makeTreeAddon(empty, input, options))
  const bare = JSON.parse((await judge.run(['ukify', '--json=short', 'inspect', 'b.efi'])).stdout)
  assert.deepEqual([bare['.cmdline'].text, '.initrd' in bare], ['debug', false])
  await assert.rejects(makeTreeAddon(empty, { stub: stub('addon') }, options), { code: 'recipe', message: /add nothing/ })
})
