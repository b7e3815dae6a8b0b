/**
 * Changed keys, on a machine that runs: its firmware takes the updates and refuses a stranger's, starts what the new keys
 * alone signed, and, when trust in the old ones is taken back, no longer what they signed. Where the image has a root that
 * the TPM unlocks, it still does. `BISQUE_BOOT_IMAGE` names an image to use instead of the example's, with its keys.
 */
import assert from 'node:assert/strict'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { decodeSignatureLists } from '../../src/formats/esl.ts'
import { decodePe, patchCertificateTable } from '../../src/formats/pe.ts'
import { encodeVeritySignature } from '../../src/formats/verity.ts'
import { type EditedImage, editedCopy } from '../../src/image/edit.ts'
import { signPe } from '../../src/image/efi-program.ts'
import { loadCertificate } from '../../src/signing/certificate.ts'
import { generateKeys, loadOwner } from '../../src/signing/keys.ts'
import { loadSigners } from '../../src/signing/load.ts'
import { revocationLists } from '../../src/signing/revocations.ts'
import { signRootHash } from '../../src/signing/root-hash.ts'
import { finishRotation, openRotation } from '../../src/signing/rotate.ts'
import { makeEnrolment } from '../../src/signing/secure-boot.ts'
import type { KeyRole, Signer } from '../../src/signing/signer.ts'
import { enrolledVariables, type FirmwareKeys, readFirmwareKeys } from '../../src/vm/firmware.ts'
import { startVm, type Vm } from '../../src/vm/vm.ts'
import { baked, notBaked } from '../baked.ts'
import { EPOCH } from '../keys.ts'
import { MACHINES } from '../oracle.ts'

const toolsTree = MACHINES ?? ''
const found = existsSync(join(toolsTree, 'usr/bin/qemu-system-x86_64'))
const skip = !found && !process.env['REQUIRE_ORACLES'] ? 'qemu-system-x86_64 is not installed' : notBaked
const EXAMPLE_KEYS = fileURLToPath(new URL('../../examples/minimal/keys', import.meta.url))

/** Plenty: QEMU translates every instruction, and other tests run at the same time. */
const BOOT_MS = 1_800_000
const DB = '/sys/firmware/efi/efivars/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f'
/** Later than any image's time. */
const NOW = Math.max(EPOCH, Math.floor(Date.now() / 1000))

describe('[qemu-system-x86_64] keys that are rotated', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-rotate-'))
  const [keys, rebuilt, ofRotation] = [join(folder, 'keys'), join(folder, 'new.raw'), join(folder, 'both.raw')]
  const state = (name: string) => join(folder, name)
  // Its disks may be slow to appear, as everything is.
  const settings = { toolsTree, kernelCommandLine: 'systemd.firstboot=no systemd.default_device_timeout_sec=1500' }
  const image = process.env['BISQUE_BOOT_IMAGE'] ?? baked('.raw')
  let vm: Vm | undefined
  let rootHash = ''
  after(async () => {
    await vm?.kill()
    rmSync(folder, { recursive: true, force: true })
  })

  const run = async (command: string) => {
    const outcome = await vm!.run(command)
    assert.equal(outcome.exitCode, 0, `${command}:\n${outcome.output}`)
    return outcome.output.trim()
  }
  /** Brings a file into the machine, as a person would with scp. */
  const bring = async (from: string, to: string) => {
    const packed = gzipSync(readFileSync(from)).toString('base64')
    await run(`mkdir -p ${join(to, '..')}; echo ${packed} | base64 -d | gzip -d >${to}`)
  }
  const bringUpdates = async (folders: readonly string[]) => {
    for (const at of folders)
      for (const name of ['db', 'KEK', 'PK', 'dbx'])
        if (existsSync(join(at, `${name}.auth`)))
          await bring(join(at, `${name}.auth`), `/run/updates/${at.split('/').at(-1)}/${name}.auth`)
    await bring(join(keys, 'updates/take'), '/run/updates/take')
  }
  const held = async (name: string): Promise<Partial<Record<keyof FirmwareKeys, Buffer[]>>> => {
    const found = await readFirmwareKeys(join(state(name), 'variables.fd'))
    const list = (lists: Uint8Array | undefined) =>
      lists ? decodeSignatureLists(lists).flatMap(({ entries }) => entries.map(({ data }) => Buffer.from(data))) : []
    return { pk: list(found.pk), kek: list(found.kek), db: list(found.db), dbx: list(found.dbx) }
  }
  const certificates = async (directory: string, ...roles: KeyRole[]) =>
    Promise.all(roles.map(async (role) => Buffer.from((await loadCertificate(join(directory, `${role}.crt`))).raw)))

  test('a machine that runs takes its keys’ updates, again and again, and refuses a stranger’s', async () => {
    cpSync(EXAMPLE_KEYS, keys, { recursive: true })
    const old = await loadSigners(keys, { epoch: NOW })
    const { PK, KEK, db } = await makeEnrolment(old, { owner: await loadOwner(keys), time: EPOCH - 86_400 })
    const template = readFileSync(join(toolsTree, 'usr/share/OVMF/OVMF_VARS_4M.fd'))
    const enrolled = { pk: PK.lists, kek: KEK.lists, db: db.lists }
    const variables = enrolledVariables(template, enrolled, new Date((EPOCH - 86_400) * 1000))
    vm = await startVm({ ...settings, image, variables, keep: state('first') })
    const opened = await openRotation(keys, { roles: ['pk', 'kek', 'db', 'verity'], now: NOW, years: 10 })
    await generateKeys(state('stranger'), { commonName: 'Stranger', now: NOW, years: 10 })
    const theirs = await openRotation(state('stranger'), { roles: ['db'], now: NOW, years: 10 })
    await vm.waitBoot(BOOT_MS)
    assert.equal(await run('od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-*'), '1')

    await bring(join(theirs.updates[0]!, 'db.auth'), '/run/stranger.auth')
    const before = await run(`sha256sum <${DB}`)
    const strangers = await vm.run(
      `{ printf '\\147\\000\\000\\000'; cat /run/stranger.auth; } >/run/x; echo 'h ${DB} - - - - -i' | systemd-tmpfiles --create -; LC_ALL=C cat /run/x >${DB}`,
    )
    assert.match(strangers.output, /Permission denied|Operation not permitted/)
    assert.equal(await run(`sha256sum <${DB}`), before)

    await bringUpdates(opened.updates)
    const isSealed = (await run('findmnt --noheadings --output FSTYPE /')) !== 'tmpfs'
    const taken = (await run('sh /run/updates/take')).split('\n')
    if (isSealed) assert.match(taken.shift()!, /: sealed without PCR 7; restart, then run: .*take seal$/)
    assert.deepEqual(taken, ['1-open db: taken', '1-open KEK: taken', '1-open PK: taken'])
    assert.match(
      await run('sh /run/updates/take'),
      /db: taken already\n.*KEK: taken already\n.*PK: not for this machine, or taken already$/s,
    )
    rootHash = /usrhash=([0-9a-f]{64})/.exec(await run('cat /proc/cmdline'))![1]!
    if (isSealed) await sealsAgain()
    await vm.powerOff()

    const next = join(keys, 'next')
    const now = await held('first')
    assert.deepEqual(now.db, [...(await certificates(keys, 'db', 'verity')), ...(await certificates(next, 'db', 'verity'))])
    assert.deepEqual(now.kek, [...(await certificates(keys, 'kek')), ...(await certificates(next, 'kek'))])
    assert.deepEqual(now.pk, await certificates(next, 'pk'))
  })

  /** The root was sealed to Secure Boot's state, which is another now. */
  const sealsAgain = async () => {
    const pcrs =
      "cryptsetup luksDump --dump-json-metadata /dev/disk/by-partlabel/*-root | tr -d ' \\n' | grep -o '\"tpm2-pcrs\":[^]]*'"
    assert.equal((await vm!.run('sh /run/updates/take seal')).exitCode, 1, 'only after a restart')
    assert.equal(await run(pcrs), '"tpm2-pcrs":[12,13')
    await run('cp -r /run/updates /var/lib/updates')
    await vm!.reboot(BOOT_MS)
    assert.match(
      await run('sh /var/lib/updates/take seal'),
      /: sealed to PCRs 7\+12\+13, and to what the key of PCR policies signs$/,
    )
    assert.equal(await run(pcrs), '"tpm2-pcrs":[7,12,13')
    await vm!.reboot(BOOT_MS)
  }

  test('it starts what the new keys alone signed, and takes the trust in the old ones back', async () => {
    const { db, verity } = await loadSigners(keys, { epoch: NOW })
    await editedCopy(image, ofRotation, (image) => signAnew(image, db))
    await editedCopy(image, rebuilt, async (image) => {
      await signAnew(image, db.successor!)
      const signature = await signRootHash(rootHash, verity.successor!)
      image.write(image.partition('usr-verity-sig'), 0, encodeVeritySignature(signature))
    })
    const variables = readFileSync(join(state('first'), 'variables.fd'))
    vm = await startVm({ ...settings, image: rebuilt, variables, keep: state('second') })
    const finished = await finishRotation(keys, { now: NOW + 60, microsoft: [] })
    await vm.waitBoot(BOOT_MS)
    assert.equal(await run('od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-*'), '1')

    await bringUpdates(finished.updates)
    assert.match(await run('sh /run/updates/take'), /1-finish db: taken\n1-finish KEK: taken$/)
    assert.equal(await run('sh /run/updates/take dbx'), '1-revoke dbx: taken')
    assert.equal(await run('sh /run/updates/take dbx'), '1-revoke dbx: taken already')
    await vm.powerOff()

    const [previous = ''] = readdirSync(join(keys, 'previous'))
    assert.deepEqual(await held('second'), {
      pk: await certificates(keys, 'pk'),
      kek: await certificates(keys, 'kek'),
      db: await certificates(keys, 'db', 'verity'),
      dbx: await certificates(join(keys, 'previous', previous), 'db', 'verity'),
    })
  })

  test('then its firmware no longer starts what the old key signed, though the new one signed it, too', async () => {
    const variables = readFileSync(join(state('second'), 'variables.fd'))
    vm = await startVm({ ...settings, image: ofRotation, variables })
    await vm.console.waitFor(/Access Denied|Security Violation/, BOOT_MS)
    await vm.kill()
  })

  test('a new machine enrols what is revoked with its keys', async () => {
    const [copy, program] = [join(folder, 'revoking.raw'), '5e'.repeat(32)]
    const signers = await loadSigners(EXAMPLE_KEYS, { epoch: NOW })
    const owner = await loadOwner(EXAMPLE_KEYS)
    const revoked = revocationLists(owner, [{ name: 'old.efi', on: '2026-11-23', program }])
    const { dbx } = await makeEnrolment(signers, { owner, time: EPOCH - 86_400, revoked })
    await editedCopy(image, copy, (image) => image.changeEsp({ 'loader/keys/auto/dbx.auth': dbx!.auth }))
    vm = await startVm({ ...settings, image: copy, keep: state('new') })
    const { promise, resolve } = Promise.withResolvers<void>()
    vm.qmp.onEvent(({ event }) => {
      if (event === 'RESET') resolve()
    })
    await promise
    await vm.kill()
    const now = await held('new')
    assert.deepEqual(now.dbx, [Buffer.from(program, 'hex')])
    assert.deepEqual(now.pk, await certificates(EXAMPLE_KEYS, 'pk'))
  })
})

async function signAnew(image: EditedImage, signer: Signer): Promise<void> {
  const programs = [...image.espFiles().keys()].filter((path) => /\.efi$/i.test(path))
  const signed = programs.map(async (path) => [path, await signPe(unsigned(image.readEsp(path)), signer)] as const)
  image.changeEsp(Object.fromEntries(await Promise.all(signed)))
}

/** A signed program without its signatures. */
function unsigned(image: Uint8Array): Uint8Array {
  const pe = decodePe(image)
  const plain = Uint8Array.from(image.subarray(0, pe.certificateTable.offset))
  patchCertificateTable(plain, pe, { offset: 0, sizeBytes: 0 })
  return plain
}
