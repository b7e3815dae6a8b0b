/**
 * ParticleOS, as its own repository has it: baked, compared with what mkosi bakes of the same folder, and booted.
 *
 * PARTICLEOS       its checkout; without one everything here is skipped
 * MKOSI_OUTPUT     the output folder of a recipe that mkosi built, with that recipe's mkosi.key and mkosi.crt beside it
 * PARTICLEOS_BOOT  1 also boots it, which takes minutes where QEMU translates every instruction
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { designatorOf } from '../src/formats/dps.ts'
import { loadRecipe } from '../src/recipe/recipe.ts'
import { startVm, type Vm } from '../src/vm/vm.ts'
import { CACHE } from './baked.ts'
import { MACHINES } from './oracle.ts'
import { type Comparison, compareImages, readPartitions, readUki } from './peer/compare.ts'
import { EXPLAINED, judge, sayDifference } from './peer/explained.ts'
import { copyRecipe, makeKeys, PROFILES } from './peer/particleos.ts'

const { PARTICLEOS: checkout = '', MKOSI_OUTPUT: theirs = '', PARTICLEOS_BOOT: boots } = process.env
const skip = checkout === '' ? 'PARTICLEOS names no checkout of ParticleOS' : false

const NAME = 'ParticleOS_1_x86-64'
const BOOT_MS = 900_000

describe('ParticleOS', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-particleos-'))
  const recipe = join(folder, 'recipe')
  const output = join(recipe, 'mkosi.output')
  const artifact = (suffix: string) => join(output, `${NAME}${suffix}`)
  let told: Record<string, any>

  const bisque = (verb: string): string => {
    const argv = ['src/main.ts', verb, recipe, '--json', '--cache', CACHE, '--set', 'AllowExpired=yes']
    const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8', maxBuffer: 256 << 20 })
    assert.equal(status, 0, `${stdout.split('\n').slice(-20).join('\n')}\n${stderr}`)
    return stdout.trimEnd().split('\n').at(-1)!
  }

  before(() => {
    copyRecipe(checkout, recipe)
    if (theirs === '') makeKeys(recipe)
    else for (const file of ['mkosi.key', 'mkosi.crt']) copyFileSync(join(dirname(theirs), file), join(recipe, file))
    bisque('lock')
    told = JSON.parse(bisque('build'))
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  test('is baked under the names its recipe gives', () => {
    const names = readdirSync(output).map((name) => name.replace(/[0-9a-f]{32}/, 'GUID'))
    const partitions = ['usr-x86-64', 'usr-x86-64-verity', 'usr-x86-64-verity-sig'].map((type) => `.${type}.GUID.raw`)
    for (const suffix of ['.raw', '.efi', '.esp.raw', '.manifest.json', ...partitions])
      assert.ok(names.includes(`${NAME}${suffix}`), `${suffix}: ${names.join(' ')}`)
  })

  test('has its chain of trust checked, link by link', () => {
    assert.equal(told['type'], 'result')
    assert.ok(told['verified'] >= 15, JSON.stringify(told['verified']))
  })

  test('has the partitions of its definitions, in their order', () => {
    const found = readPartitions(artifact('.raw')).map(({ name, type }) => [name, designatorOf(type)?.designator])
    assert.deepEqual(found, [
      ['esp', 'esp'],
      ['ParticleOS_1_verity_sig', 'usr-verity-sig'],
      ['ParticleOS_1_verity', 'usr-verity'],
      ['ParticleOS_1', 'usr'],
    ])
  })

  test('has all profiles in its UKI, with signed policies for those that ask for them', () => {
    const sections = readUki(artifact('.efi'))
    const having = (name: string) => PROFILES.filter((profile) => sections.has(`${profile} ${name}`))
    assert.deepEqual(having('.profile'), PROFILES)
    assert.deepEqual(having('.cmdline'), PROFILES.slice(1)) // the first has that of the base
    assert.deepEqual(having('.pcrsig'), ['main', 'ipe', 'factory-reset', 'emergency', 'debug'])
  })

  describe('compared with mkosi’s', { skip: theirs === '' ? 'MKOSI_OUTPUT names no artifacts' : false }, () => {
    let comparison: Comparison
    before(() => {
      comparison = compareImages(output, theirs)
    })

    test('differs only where it is known why', () => {
      assert.deepEqual(judge(comparison.differences).unexplained.map(sayDifference), [])
    })

    test('has the same packages, and what it has in common is nearly everything', () => {
      const { compared, differences } = comparison
      assert.deepEqual(differences.filter(({ part }) => part === 'packages').map(sayDifference), [])
      assert.ok(compared['/usr'] > 30_000 && compared.initrd > 3000 && compared.packages > 300, JSON.stringify(compared))
    })
  })

  const machines = boots === '1' ? (MACHINES ?? 'none') : ''
  const asleep =
    machines === '' ? 'PARTICLEOS_BOOT=1 boots it' : existsSync(machines) ? false : 'qemu-system-x86_64 is not installed'

  describe('[qemu-system-x86_64] booted', { skip: asleep }, () => {
    const keep = mkdtempSync(join(tmpdir(), 'bisque-boot-'))
    let vm: Vm
    before(async () => {
      const { settings } = await loadRecipe(recipe, { env: {} })
      const credentials = settings.credentials.map((one) => [
        one.name,
        'value' in one ? one.value : readFileSync(one.path, 'utf8'),
      ])
      vm = await startVm({
        ...{ image: artifact('.raw'), toolsTree: machines, keep },
        diskBytes: settings.runtimeSize ?? 30 * 2 ** 30,
        credentials: Object.fromEntries(credentials),
        kernelCommandLine: 'console=ttyS0 systemd.firstboot=no',
        ...(settings.ram !== undefined && { memoryBytes: settings.ram }),
      })
      await vm.waitBoot(BOOT_MS)
    })
    after(async () => {
      await vm?.kill()
      rmSync(keep, { recursive: true, force: true })
    })

    const said = async (command: string) => {
      const { exitCode, output } = await vm.run(command, BOOT_MS)
      assert.equal(exitCode, 0, `${command}:\n${output}`)
      return output.trim()
    }

    test('comes up under Secure Boot with nothing failed', async () => {
      const state = (await vm.run('systemctl is-system-running --wait', BOOT_MS)).output.trim()
      assert.equal(await said('systemctl --failed --no-legend --plain'), '')
      assert.equal(state, 'running')
      assert.match(await said('bootctl status 2>&1'), /Secure Boot: enabled \(user\)/)
    })

    test('offers every profile of its UKI in the boot menu', async () => {
      const entries: { id: string }[] = JSON.parse(await said('bootctl list --json=short'))
      const ids = entries.map(({ id }) => id).filter((id) => id.startsWith(`${NAME}.efi`))
      assert.deepEqual(
        ids,
        PROFILES.map((profile) => `${NAME}.efi@${profile}`),
      )
    })

    test('has /usr on dm-verity, and its own encrypted root', async () => {
      assert.match(await said('findmnt --noheadings --output SOURCE,FSTYPE /usr'), /^\/dev\/mapper\/usr +erofs$/)
      assert.match(await said('findmnt --noheadings --output SOURCE,FSTYPE /'), /^\/dev\/mapper\/root +btrfs$/)
      assert.match(await said('lsblk --noheadings --list --output PARTLABEL,FSTYPE /dev/vda'), /^ParticleOS-root +crypto_LUKS$/m)
    })
  })
})

test('every reason says why, and none says it of everything', () => {
  for (const { path, why } of EXPLAINED) {
    assert.ok(why.length > 20, why)
    assert.ok(!path.test('any/thing at all'), String(path))
  }
})
