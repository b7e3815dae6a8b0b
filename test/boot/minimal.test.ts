/**
 * The baked example, booted: the chain of trust as firmware, kernel and systemd see it.
 *
 * `BISQUE_BOOT_IMAGE` names an image to boot instead of the example's that `test/prepare.ts` baked.
 * One machine starts in setup mode and is asked everything; a second one shows that no two are the same.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { sha256 } from '../../src/base/digest.ts'
import { readFirmwareKeys } from '../../src/vm/firmware.ts'
import { startVm, type Vm } from '../../src/vm/vm.ts'
import { baked, bakedManifest, notBaked } from '../baked.ts'
import { MACHINES } from '../oracle.ts'

const toolsTree = MACHINES ?? ''
const found = existsSync(join(toolsTree, 'usr/bin/qemu-system-x86_64'))
const skip = !found && !process.env['REQUIRE_ORACLES'] ? 'qemu-system-x86_64 is not installed' : notBaked

/** Plenty: QEMU translates every instruction, and other tests run at the same time. */
const BOOT_MS = 600_000
const VARIABLES = '/sys/firmware/efi/efivars'
const GLOBAL = '8be4df61-93ca-11d2-aa0d-00e098032b8c'

describe('[qemu-system-x86_64] examples/minimal', { skip }, () => {
  const keep = mkdtempSync(join(tmpdir(), 'bisque-boot-'))
  const options = { toolsTree, keep, kernelCommandLine: 'systemd.firstboot=no' }
  let image = ''
  let digest = ''
  let resets = 0
  let machineId = ''
  let vm: Vm

  before(async () => {
    image = process.env['BISQUE_BOOT_IMAGE'] ?? baked('.raw')
    digest = sha256(readFileSync(image))
    assert.deepEqual(await startsInSetupMode(), true)
    vm = await startVm({ ...options, image })
    vm.qmp.onEvent(({ event }) => {
      if (event === 'RESET') resets++
    })
    await vm.waitBoot(BOOT_MS)
  })
  after(async () => {
    await vm?.kill()
    rmSync(keep, { recursive: true, force: true })
  })
  const startsInSetupMode = async () =>
    (await readFirmwareKeys(join(toolsTree, 'usr/share/OVMF/OVMF_VARS_4M.fd'))).setupMode &&
    !existsSync(join(keep, 'variables.fd'))

  const output = async (command: string) => {
    const outcome = await vm.run(command)
    assert.equal(outcome.exitCode, 0, `${command}:\n${outcome.output}`)
    return outcome.output.trim()
  }

  test('enrols its keys by itself, restarts once, and comes up with Secure Boot enforcing', async () => {
    assert.equal(resets, 1)
    for (const [name, value] of Object.entries({ SecureBoot: '1', SetupMode: '0' }))
      assert.equal(await output(`od -An -tu1 -j4 -N1 ${VARIABLES}/${name}-${GLOBAL}`), value, name)
    assert.match(await output('cat /sys/kernel/security/lockdown'), /\[(integrity|confidentiality)\]/)
  })

  test('reaches multi-user.target with nothing failed', async () => {
    const state = (await vm.run('systemctl is-system-running --wait', BOOT_MS)).output.trim()
    assert.equal(await output('systemctl --failed --no-legend --plain'), '')
    assert.equal(state, 'running')
    assert.equal(await output('systemctl is-active multi-user.target'), 'active')
  })

  test('has /usr on dm-verity, its root hash signed by a key the kernel trusts', async () => {
    assert.match(await output('findmnt --noheadings --output SOURCE,FSTYPE /usr'), /^\/dev\/mapper\/usr +erofs$/)
    // The kernel was handed the signature with the root hash, and refuses the table where it does not verify.
    assert.match(
      await output('veritysetup status usr 2>&1 || dmsetup table usr'),
      /verified \(with signature\)|root_hash_sig_key_desc/,
    )
  })

  test('has in PCR 11 what the manifest foretold, phase by phase', {
    skip: process.env['BISQUE_BOOT_IMAGE'] !== undefined,
  }, async () => {
    const foretold = bakedManifest().pcr11['enter-initrd:leave-initrd:sysinit:ready']?.sha256
    assert.equal((await output('cat /sys/class/tpm/tpm0/pcr-sha256/11')).toLowerCase(), foretold)
  })

  test('has a /usr nobody can write to', async () => {
    const touched = await vm.run('LC_ALL=C touch /usr/x')
    assert.notEqual(touched.exitCode, 0)
    assert.match(touched.output, /Read-only file system/)
    assert.notEqual((await vm.run('mount -o remount,rw /usr && touch /usr/x')).exitCode, 0)
    assert.match(
      await output('dd if=/dev/zero of=/dev/mapper/usr count=1 2>&1; test $? -ne 0'),
      /not permitted|Read-only|Permission/,
    )
  })

  test('enforces the IPE policy of the booted system, which has denied nothing of it', async () => {
    const ipe = '/sys/kernel/security/ipe'
    assert.equal(await output(`cat ${ipe}/enforce ${ipe}/policies/Minimal/active ${ipe}/policies/Minimal-booted/active`), '101')
    assert.equal(await output("journalctl --boot --no-pager --quiet | grep -E 'IPE_ACCESS|type=1420' || true"), '')
    assert.equal(await output('dmesg | grep type=1420 || true'), '')
  })

  test('lets nobody change what it enforces: CAP_MAC_ADMIN is gone for good', async () => {
    const sets = (await output('grep -hE "^Cap(Prm|Bnd)" /proc/1/status /proc/self/status')).split('\n')
    for (const set of sets) assert.equal((BigInt(`0x${set.split(/\s+/)[1]}`) >> 33n) & 1n, 0n, set)
    const [low, high] = (await output('cat /proc/sys/kernel/usermodehelper/bset')).split(/\s+/).map(Number)
    assert.equal((BigInt(high!) << 32n) & (1n << 33n), 0n, `${low} ${high}`)
    for (const [file, text] of [
      ['enforce', '0'],
      ['policies/Minimal/active', '1'],
      ['policies/Minimal/delete', '1'],
      ['new_policy', 'x'],
    ]) {
      const { exitCode } = await vm.run(`printf ${text} | unshare --user --map-root-user cat >/sys/kernel/security/ipe/${file}`)
      assert.notEqual(exitCode, 0, file)
    }
  })

  test('executes nothing that was copied, and the audit log tells', async () => {
    await output('echo 0 >/proc/sys/kernel/printk_ratelimit') // otherwise the kernel prints but ten records in five seconds
    for (const [path, what] of [
      ['/tmp/true', '/tmp'],
      ['/var/true', 'the root'],
      ['/run/true', '/run'],
    ]) {
      const { exitCode, output: said } = await vm.run(`cp /usr/bin/true ${path} && LC_ALL=C ${path}`)
      assert.equal(exitCode, 126, `${what}: ${said}`)
      assert.match(said, /Permission denied/)
    }
    const denied = /type=1420 .*ipe_op=EXECUTE ipe_hook=BPRM_CHECK enforcing=1 .*path="\/tmp\/true" .*rule="DEFAULT action=DENY"/
    assert.match(await output('dmesg | grep type=1420'), denied)
    // Where execution is allowed by the mount, it is the policy that denies.
    await output('mkdir -p /mnt/x && mount -t tmpfs -o exec none /mnt/x && cp /usr/bin/true /mnt/x')
    assert.equal((await vm.run('/mnt/x/true')).exitCode, 126)
    const library = 'L=$(ldd /usr/bin/true | sed -n "s/.* => \\(.*libc[.]so[^ ]*\\) .*/\\1/p"); cp "$L" /mnt/x/libx.so'
    assert.match(
      (await vm.run(`${library}; LD_PRELOAD=/mnt/x/libx.so /usr/bin/true`)).output,
      /cannot be preloaded|failed to map/,
    )
    assert.notEqual((await vm.run('/lib64/ld-linux-x86-64.so.2 /mnt/x/true')).exitCode, 0)
    const module = 'M=$(modinfo -n dummy) && cp "$M" /mnt/x/ && insmod "/mnt/x/$(basename "$M")"'
    assert.notEqual((await vm.run(module)).exitCode, 0)
    assert.equal((await vm.run('modprobe dummy')).exitCode, 0)
    const records = await output('dmesg | grep type=1420')
    for (const record of [
      /ipe_op=EXECUTE ipe_hook=BPRM_CHECK enforcing=1 .*path="\/mnt\/x\/true" .*rule="DEFAULT action=DENY"/,
      /ipe_op=EXECUTE ipe_hook=MMAP enforcing=1 .*path="\/mnt\/x\/libx\.so"/,
      /ipe_op=KMODULE ipe_hook=KERNEL_READ enforcing=1 .*path="\/mnt\/x\/dummy\.ko/,
    ])
      assert.match(records, record)
  })

  test('executes nothing of its first file system either, which root can reach again and write to', async () => {
    const loader = './lib64/ld-linux-x86-64.so.2 --library-path ./lib/x86_64-linux-gnu'
    const reached = `cd /usr
unshare --mount sh -c 'mount --make-rprivate /; sleep 60 & umount --lazy /; wait' & sleep 3
inside='L="${loader}"; $L ./bin/cp ./bin/true ./lib64/ld-linux-x86-64.so.2 / && echo written; /ld-linux-x86-64.so.2 --library-path ./lib/x86_64-linux-gnu ./bin/true || echo denied'
nsenter --mount=/proc/$!/ns/mnt --wd=/usr ${loader} ./bin/bash -c "$inside"
kill $!`
    assert.match((await vm.run(reached)).output, /written[\s\S]*denied/)
  })

  test('mounts without execution what can be written to', async () => {
    for (const folder of ['/', '/dev/shm', '/run', '/var', '/home']) {
      const options = await output(`mkdir -p ${folder}; findmnt --noheadings --output OPTIONS --target ${folder}`)
      for (const option of ['noexec', 'nosuid', 'nodev']) assert.ok(options.split(',').includes(option), `${folder}: ${options}`)
    }
  })

  test('has no complaint of the kernel about its file system or its blocks', async () => {
    assert.equal(await output("dmesg | grep -iE 'erofs.*(err|corrupt|fail|unable)|verity.*(corrupt|fail)|I/O error' || true"), '')
  })

  test('comes up again after a restart, enforcing still, with the same machine id', async (t) => {
    machineId = await output('cat /etc/machine-id')
    assert.match(machineId, /^[0-9a-f]{32}$/)
    if ((await output('findmnt --noheadings --output FSTYPE /')) === 'tmpfs')
      return t.skip('its root is forgotten at every start')
    await vm.reboot(BOOT_MS)
    assert.equal(await output('cat /etc/machine-id'), machineId)
  })

  test('leaves the keys in the firmware and the image as it was', async () => {
    await vm.powerOff()
    const { setupMode, secureBoot, pk, kek, db } = await readFirmwareKeys(join(keep, 'variables.fd'))
    assert.deepEqual({ setupMode, secureBoot }, { setupMode: false, secureBoot: true })
    for (const lists of [pk, kek, db]) assert.ok(lists)
    assert.equal(sha256(readFileSync(image)), digest)
  })

  test('is another machine on another machine, where its keys are known beforehand', async () => {
    const variables = readFileSync(join(keep, 'variables.fd'))
    await using second = await startVm({ image, toolsTree, variables, kernelCommandLine: 'systemd.firstboot=no' })
    let secondResets = 0
    second.qmp.onEvent(({ event }) => {
      if (event === 'RESET') secondResets++
    })
    await second.waitBoot(BOOT_MS)
    assert.equal(secondResets, 0)
    const { output } = await second.run('cat /etc/machine-id')
    assert.match(output, /^[0-9a-f]{32}\n$/)
    assert.notEqual(output.trim(), machineId)
  })
})
