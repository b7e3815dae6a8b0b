import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { decodeSignedData } from '../formats/cms.ts'
import { parseIpePolicy } from '../formats/ipe-policy.ts'
import { loadRecipe } from '../recipe/recipe.ts'
import { madeDirectory, madeFile, readContent } from '../tree/content.ts'
import { treeOf } from '../tree/tree.ts'
import { ipeFiles, ipeInitrds, ipeNotes, ipeProfiles, ipeWords } from './ipe.ts'

const directory = mkdtempSync(join(tmpdir(), 'bisque-ipe-'))
after(() => rmSync(directory, { recursive: true, force: true }))
const { signers } = await testKeys()

let count = 0
async function recipe(settings: string) {
  const file = join(directory, `recipe-${count++}.ts`)
  writeFileSync(file, `export default { release: 'trixie', imageId: 'Acme', ${settings} }\n`)
  return loadRecipe(file)
}
const PROFILE = { ID: 'ipe', TITLE: 'Boot with IPE enforcement' }

test('an image that enforces has the word for it, and a root that nothing is executed on', async () => {
  const { settings } = await recipe('')
  assert.deepEqual(ipeWords(settings), ['ipe.enforce=1', 'rootflags=noexec,nosuid,nodev', 'mount.usrflags=ro,nodev'])
  assert.deepEqual(ipeProfiles(settings), [])
  assert.deepEqual(ipeWords((await recipe("kernelCommandLine: ['rootflags=ro']")).settings), ['ipe.enforce=1'])
})

test('an image that leaves it to a profile has one that enforces, unless the recipe has it', async () => {
  const { settings } = await recipe("ipe: 'profile'")
  assert.deepEqual(ipeWords(settings), ['ipe.enforce=0'])
  assert.deepEqual(ipeProfiles(settings), [{ profile: PROFILE, cmdline: ['ipe.enforce=1'], signExpectedPcr: true }])
  const own = "unifiedKernelImageProfiles: [{ profile: { ID: 'safe' }, cmdline: ['ipe.enforce=1'] }]"
  assert.deepEqual(ipeProfiles((await recipe(`ipe: 'profile', ${own}`)).settings), [])
})

test('an image without a policy has nothing of it', async () => {
  const image = await recipe("ipe: 'off'")
  assert.deepEqual(ipeWords(image.settings), [])
  assert.deepEqual(ipeProfiles(image.settings), [])
  assert.equal(ipeFiles(image.settings, 0).size, 0)
  assert.deepEqual(await ipeInitrds(image, { signers, secrets: [], owner: '' }, 0), [])
})

test('the initrd of a folder in mkosi’s format has the policy, too, where it asks for one', async () => {
  const folder = mkdtempSync(join(directory, 'folder-'))
  const conf = '[Distribution]\nDistribution=debian\nRelease=trixie\n[Output]\nImageId=Crumb\n[Validation]\nSecureBoot=yes\n'
  writeFileSync(join(folder, 'mkosi.conf'), conf)
  assert.equal((await loadRecipe(folder)).settings.ipe, 'off')
  writeFileSync(join(folder, 'own.pol'), 'policy_name=own policy_version=1.0.0\nDEFAULT action=ALLOW\n')
  writeFileSync(join(folder, 'mkosi.conf'), `${conf}[Bisque]\nIpe=enforce\nIpePolicy=own.pol\n`)
  const image = await loadRecipe(folder)
  const [initrd, ...more] = await ipeInitrds(image, { signers, secrets: [], owner: '' }, 0)
  assert.deepEqual(more, [])
  const bytes = Buffer.from(await readContent(initrd!.content))
  assert.ok(bytes.includes('usr/lib/ipe/own.p7b\0'))
  assert.ok(ipeFiles(image.settings, 0).has('usr/lib/systemd/system/bisque-ipe.service'))
  assert.deepEqual(ipeWords(image.settings), ['ipe.enforce=1'])
})

test('the policies are signed with the verity key, the same each time', async () => {
  const image = await recipe("ipePolicy: { name: 'mine', version: '2.0.0' }")
  const [first] = await ipeInitrds(image, { signers, secrets: [], owner: '' }, 0)
  assert.deepEqual(await ipeInitrds(image, { signers, secrets: [], owner: '' }, 0), [first])
  const bytes = Buffer.from(await readContent(first!.content))
  // A file of an archive follows its name, from the next multiple of four on; its size stands 56 bytes before the name.
  const name = bytes.indexOf('usr/lib/ipe/mine.p7b\0')
  const size = Number.parseInt(bytes.subarray(name - 56, name - 48).toString(), 16)
  const start = Math.ceil((name + 'usr/lib/ipe/mine.p7b\0'.length) / 4) * 4
  const { content } = decodeSignedData(bytes.subarray(start, start + size))
  const text = Buffer.from(content!).toString('latin1') // behind the head of an OCTET STRING
  assert.deepEqual(parseIpePolicy(text.slice(text.indexOf('policy_name='))).version, [2, 0, 0])
})

test('a build says that AppArmor will not work where nobody may change what the kernel enforces', async () => {
  const system = treeOf([['usr/sbin/apparmor_parser', madeFile('', 0)]], madeDirectory(0))
  const { settings } = await recipe('')
  assert.match(ipeNotes(settings, system).join(), /^\/usr\/sbin\/apparmor_parser cannot load profiles/)
  assert.deepEqual(ipeNotes(settings, new Map()), [])
  assert.deepEqual(ipeNotes((await recipe('ipe: false')).settings, system), [])
})
