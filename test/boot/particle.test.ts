/**
 * examples/particle, booted: what a user of ParticleOS sees. The first boot makes an encrypted root that this machine's
 * TPM unlocks; the boot menu offers every profile of the UKI.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { startVm, type Vm } from '../../src/vm/vm.ts'
import { notBaked, particle } from '../baked.ts'
import { MACHINES } from '../oracle.ts'

const toolsTree = MACHINES ?? ''
const found = existsSync(join(toolsTree, 'usr/bin/qemu-system-x86_64'))
const skip = !found && !process.env['REQUIRE_ORACLES'] ? 'qemu-system-x86_64 is not installed' : notBaked

/** Plenty: QEMU translates every instruction, and other tests run at the same time. */
const BOOT_MS = 900_000

describe('[qemu-system-x86_64] examples/particle', { skip }, () => {
  const keep = mkdtempSync(join(tmpdir(), 'bisque-boot-'))
  let vm: Vm

  before(async () => {
    vm = await startVm({
      image: particle('.raw'),
      toolsTree,
      keep,
      diskBytes: 6 * 2 ** 30,
      kernelCommandLine: 'systemd.firstboot=no',
    })
    await vm.waitBoot(BOOT_MS)
  })
  after(async () => {
    await vm?.kill()
    rmSync(keep, { recursive: true, force: true })
  })

  const output = async (command: string) => {
    const outcome = await vm.run(command)
    assert.equal(outcome.exitCode, 0, `${command}:\n${outcome.output}`)
    return outcome.output.trim()
  }

  test('comes up under Secure Boot with nothing failed', async () => {
    const state = (await vm.run('systemctl is-system-running --wait', BOOT_MS)).output.trim()
    assert.equal(await output('systemctl --failed --no-legend --plain'), '')
    assert.equal(state, 'running')
    assert.match(await output('bootctl status 2>&1'), /Secure Boot: enabled \(user\)/)
    assert.equal(await output('cat /run/crumb'), 'hello from Crumb 1')
    assert.match(await output('systemd-analyze'), /^Startup finished in /)
  })

  test('offers every profile of its UKI in the boot menu', async () => {
    const entries = JSON.parse(await output('bootctl list --json=short')) as { id: string; title: string }[]
    const ids = entries.map(({ id }) => id).filter((id) => id.startsWith('Crumb_1_x86-64.efi'))
    const profiles = ['main', 'live', 'factory-reset', 'emergency']
    assert.deepEqual(
      ids,
      profiles.map((profile) => `Crumb_1_x86-64.efi@${profile}`),
    )
    const titles = entries.map(({ title }) => title).join('\n')
    for (const title of ['Live System', 'Reset to Factory Defaults', 'Emergency Mode']) assert.ok(titles.includes(title), title)
  })

  test('has /usr on dm-verity, and its own encrypted root that its TPM unlocks', async () => {
    assert.match(await output('findmnt --noheadings --output SOURCE,FSTYPE /usr'), /^\/dev\/mapper\/usr +erofs$/)
    assert.match(await output('findmnt --noheadings --output SOURCE,FSTYPE /'), /^\/dev\/mapper\/root +btrfs$/)
    const tokens = await output('cryptsetup luksDump /dev/disk/by-partlabel/Crumb-root')
    assert.match(tokens, /systemd-tpm2/)
    assert.match(tokens, /tpm2-pubkey-pcrs:\s+11/)
  })

  test('has room for the next version', async () => {
    const table = await output('lsblk --noheadings --list --output PARTLABEL /dev/vda')
    const labels = table
      .split('\n')
      .map((line) => line.trim())
      .filter((label) => label !== '')
    assert.deepEqual(labels.filter((label) => label === '_empty').length, 3)
    for (const label of ['Crumb_1', 'Crumb_1_verity', 'Crumb_1_verity_sig', 'Crumb-root'])
      assert.ok(labels.includes(label), label)
  })

  test('unlocks the same root after a restart', async () => {
    await output('echo kept >/var/kept && sync')
    await vm.reboot(BOOT_MS)
    assert.equal(await output('cat /var/kept'), 'kept')
  })
})
