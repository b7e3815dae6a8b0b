/**
 * The baked example's measured boot: the TPM holds what the manifest foretells, a root that only this machine unlocks is made
 * on first boot, an update unlocks it too, and whatever was tampered with does not.
 *
 * One machine is started, updated and started again; then copies of it are tampered with, and stop in the initrd.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { decodeFirmwareLog, parseUserspaceLog, pcrEvents, replayEvents } from '../../src/formats/event-log.ts'
import { decodePe, findSection, replaceSection, sectionContent } from '../../src/formats/pe.ts'
import { copyImage, editedCopy, openImage } from '../../src/image/edit.ts'
import { signPe } from '../../src/image/efi-program.ts'
import type { Manifest } from '../../src/image/manifest.ts'
import { makeUki } from '../../src/image/uki.ts'
import { loadSigners } from '../../src/signing/load.ts'
import type { Signers } from '../../src/signing/signer.ts'
import { startVm, type Vm, type VmOptions } from '../../src/vm/vm.ts'
import { baked, bakedManifest, CACHE, notBaked } from '../baked.ts'
import { EPOCH, testKeys } from '../keys.ts'
import { JUDGES, MACHINES } from '../oracle.ts'

const toolsTree = MACHINES ?? ''
const STUB = join(JUDGES ?? '', 'usr/lib/systemd/boot/efi/linuxx64.efi.stub')
const found = existsSync(join(toolsTree, 'usr/bin/qemu-system-x86_64')) && existsSync(STUB)
const skip = !found && !process.env['REQUIRE_ORACLES'] ? 'qemu-system-x86_64 is not installed' : notBaked
const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const EXAMPLE = 'examples/minimal'

/** Plenty: QEMU translates every instruction, and other tests run at the same time. */
const BOOT_MS = 900_000
const UKI = 'EFI/Linux/Minimal_2_x86-64.efi'

describe('[qemu-system-x86_64] measured boot of examples/minimal', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-measured-'))
  const [disk, state, second] = [join(folder, 'disk.raw'), join(folder, 'state'), join(folder, 'second')]
  let vm: Vm
  let machineId = ''
  let signers: Signers

  before(async () => {
    signers = await loadSigners(join(ROOT, EXAMPLE, 'keys'), { epoch: EPOCH })
    await copyImage(baked('.raw'), disk)
    vm = await startVm(machine())
    await vm.waitBoot(BOOT_MS)
  })
  after(async () => {
    await vm?.kill()
    rmSync(folder, { recursive: true, force: true })
  })

  const machine = (change: Partial<VmOptions> = {}): VmOptions => ({
    ...{ image: disk, writable: true, keep: state, toolsTree },
    credentials: { 'systemd.unit-dropin.systemd-firstboot.service': '[Unit]\nConditionPathExists=!/\n' },
    ...change,
  })
  const output = async (command: string) => {
    const outcome = await vm.run(command)
    assert.equal(outcome.exitCode, 0, `${command}:\n${outcome.output}`)
    return outcome.output.trim()
  }
  const pcrs = async () => {
    await output('systemctl is-system-running --wait') // until then, phases are still to be measured
    const lines = await output('cd /sys/class/tpm/tpm0/pcr-sha256; for i in *; do echo $i $(cat $i); done')
    return Object.fromEntries(lines.split('\n').map((line) => line.toLowerCase().split(' ') as [string, string]))
  }
  const foretold = ({ pcrs }: Pick<Required<Manifest>, 'pcrs'>) => {
    const { pcr4, pcr7 } = pcrs.firmware.enrolled!
    const { pcr9, pcr11, pcr12 } = pcrs.profiles[0]!
    return { 4: pcr4, 7: pcr7, 9: pcr9, 11: pcr11['enter-initrd:leave-initrd:sysinit:ready'], 12: pcr12 }
  }

  test('the TPM holds what the manifest foretold: PCRs 4, 7, 9, 11 and 12', async () => {
    const { 4: four, 7: seven, 9: nine, 11: eleven, 12: twelve } = await pcrs()
    assert.deepEqual({ 4: four, 7: seven, 9: nine, 11: eleven, 12: twelve }, foretold(bakedManifest()))
  })

  test('the logs of firmware and systemd, replayed, give every PCR', async () => {
    const file = async (path: string) => Buffer.from(await output(`base64 -w0 ${path}`), 'base64')
    const { events } = decodeFirmwareLog(await file('/sys/kernel/security/tpm0/binary_bios_measurements'))
    const later = parseUserspaceLog((await file('/run/log/systemd/tpm2-measure.log')).toString())
    assert.ok(later.some(({ pcr, eventType }) => pcr === 15 && eventType === 'volume-key'))
    const replayed = replayEvents('sha256', pcrEvents(later), replayEvents('sha256', events))
    const { 10: _ima, ...held } = await pcrs() // the kernel's IMA keeps a log of its own
    for (const [pcr, value] of Object.entries(held)) {
      const reset = Number(pcr) >= 17 && Number(pcr) <= 22 ? 'f' : '0'
      assert.equal(Buffer.from(replayed.get(Number(pcr)) ?? []).toString('hex') || reset.repeat(64), value, `PCR ${pcr}`)
    }
  })

  test('first boot made an encrypted root, sealed to PCRs 7, 12, 13 and to the signed policies over PCR 11', async () => {
    assert.match(await output('findmnt --noheadings --output SOURCE,FSTYPE /'), /^\/dev\/mapper\/root +ext4$/)
    const dump = await output('cryptsetup luksDump --dump-json-metadata /dev/disk/by-partlabel/Minimal-root')
    const { tokens, keyslots } = JSON.parse(dump) as { tokens: Record<string, Record<string, unknown>>; keyslots: object }
    assert.deepEqual([Object.keys(tokens), Object.keys(keyslots)], [['0'], ['0']])
    const { type, 'tpm2-pcrs': literal, tpm2_pubkey_pcrs: signed, tpm2_pubkey: key } = tokens['0']!
    assert.deepEqual([type, literal, signed], ['systemd-tpm2', [7, 12, 13], [11]])
    assert.match(Buffer.from(key as string, 'base64').toString(), /^-----BEGIN PUBLIC KEY-----/)
    machineId = await output('echo kept >/var/kept && sync && cat /etc/machine-id')
    await vm.powerOff()
  })

  test('an update unlocks it', async () => {
    const argv = ['src/main.ts', 'build', EXAMPLE, '--relock', '--cache', CACHE, '--set', 'ImageVersion=2', '--output', second]
    const { status, stderr } = spawnSync(process.execPath, argv, { cwd: ROOT, encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    install(join(second, 'Minimal_2_x86-64.raw'))
    vm = await startVm(machine())
    await vm.waitBoot(BOOT_MS)
    assert.match(await output('cat /etc/os-release'), /^IMAGE_VERSION="?2"?$/m)
    assert.equal(await output('cat /var/kept /etc/machine-id'), `kept\n${machineId}`)
    const { 4: four, 7: seven, 9: nine, 11: eleven, 12: twelve } = await pcrs()
    const manifest = JSON.parse(readFileSync(join(second, 'Minimal_2_x86-64.manifest.json'), 'utf8'))
    assert.deepEqual({ 4: four, 7: seven, 9: nine, 11: eleven, 12: twelve }, foretold(manifest))
    await vm.powerOff()
  })

  /** Puts another version's /usr and UKI beside the first's, as an updater does. */
  function install(from: string): void {
    using image = openImage(disk)
    using next = openImage(from)
    for (const type of ['usr-verity-sig', 'usr-verity', 'usr'] as const) {
      const one = next.partition(type)
      const { label, attributes } = one
      // The halves of the root hash name tree and data; the signature's place had a name before, which an updater keeps.
      const guid = type === 'usr-verity-sig' ? randomUUID() : one.guid
      image.addPartition({ type, label, guid, attributes, bytes: next.read(one) })
    }
    image.changeEsp({ [UKI]: next.readEsp(UKI) })
  }

  /** The TPM has refused, and nothing else unlocks it; systemd shortens the name of what failed. */
  const LOCKED = /Failed to start systemd-crypt[^\n]*\broot\b/

  /** Starts a copy of the machine that was changed, and waits until its root stays locked. */
  async function locked(name: string, tampered: { freshTpm?: boolean; uki?: (uki: Uint8Array) => Promise<Uint8Array> }) {
    const copy = { image: join(folder, `${name}.raw`), keep: join(folder, name) }
    cpSync(state, copy.keep, { recursive: true })
    if (tampered.freshTpm) rmSync(join(copy.keep, 'tpm'), { recursive: true })
    await editedCopy(disk, copy.image, async (image) => {
      if (tampered.uki) image.changeEsp({ [UKI]: await tampered.uki(image.readEsp(UKI)) })
    })
    await using other = await startVm(machine(copy))
    await other.console.waitFor(LOCKED, BOOT_MS)
    assert.doesNotMatch(other.console.text, /Switch Root|login:/)
    rmSync(copy.image)
  }

  test('another TPM does not unlock it', async () => {
    await locked('tpm', { freshTpm: true })
  })

  test('a UKI with another initrd keeps it locked, signed by the right key, with the policies of the one before', async () => {
    await locked('initrd', {
      uki: async (uki) => {
        const unsigned = await withOtherInitrd(uki, { pcr: signers.pcr })
        return signPe(replaceSection(unsigned, '.pcrsig', sectionOf(uki, '.pcrsig')), signers.db)
      },
    })
  })

  test('a UKI whose policies another key signed keeps it locked', async () => {
    const stranger = (await testKeys()).signers.pcr
    await locked('policy', { uki: (uki) => withOtherInitrd(uki, { db: signers.db, pcr: stranger }) })
  })
})

const sectionOf = (uki: Uint8Array, name: string): Uint8Array => sectionContent(uki, findSection(decodePe(uki), name)!)

/** The same kernel, command line and initrd, and another initrd behind it. */
async function withOtherInitrd(uki: Uint8Array, signers: Partial<Pick<Signers, 'db' | 'pcr'>>): Promise<Uint8Array> {
  const text = (name: string) => Buffer.from(sectionOf(uki, name)).toString()
  const { bytes } = await makeUki({
    stub: { path: STUB },
    kernel: { bytes: sectionOf(uki, '.linux') },
    initrds: [{ bytes: sectionOf(uki, '.initrd') }, { bytes: Buffer.alloc(4) }],
    osRelease: text('.osrel'),
    cmdline: text('.cmdline'),
    uname: text('.uname'),
    signers,
  })
  return bytes
}
