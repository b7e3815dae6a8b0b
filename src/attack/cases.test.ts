import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { CASES } from './cases.ts'

const docs = readFileSync(new URL('../../docs/attack.md', import.meta.url), 'utf8')

test('every case has a name of its own, and a place in docs/attack.md', () => {
  assert.equal(new Set(CASES.map(({ name }) => name)).size, CASES.length)
  assert.deepEqual(
    CASES.map(({ name }) => name).filter((name) => !docs.includes(`\`${name}\``)),
    [],
  )
})

const caseOf = (name: string) => CASES.find((one) => one.name === name)!

/** What those who refuse print, as machines printed it. */
const SIGNS: Record<string, string> = {
  'loader-unsigned':
    'BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0): Access Denied\nBdsDxe: No bootable option or device was found.\n',
  'uki-unsigned':
    '../src/boot/boot.c:2576@image_start: Error loading \\EFI\\Linux\\Minimal_1_x86-64.efi: Access denied\nBdsDxe: No bootable option or device was found.\n',
  'usr-data':
    '[   27.670432] device-mapper: verity: 253:4: data block 0 is corrupted\n[   29.897385] device-mapper: verity: 253:4: reached maximum errors\n',
  'usr-tree':
    '[   36.150216] device-mapper: verity: 253:4: metadata block 1 is corrupted\n[   38.966954] device-mapper: verity: 253:4: reached maximum errors\n',
  'usr-signature':
    '[   31.626477] device-mapper: table: 254:0: verity: Root hash verification failed (-EINVAL)\n[FAILED] Failed to start systemd-veritysetup@usr.service\n',
  'tpm-swapped':
    '[  260.009743] systemd-cryptsetup[271]: Failed to unseal secret using TPM2: State not recoverable\n[FAILED] Failed to start systemd-cryptsetup…vice - Cryptography Setup for root.\n',
}

test('the sign of a refusal is the text that machines print, and no other case of the boot mistakes it', () => {
  for (const [name, text] of Object.entries(SIGNS)) {
    const { attack } = caseOf(name)
    assert.ok(attack.kind === 'boot')
    assert.match(text, attack.refused, name)
    if (attack.ended) assert.match(text, attack.ended, name)
    for (const [other, otherText] of Object.entries(SIGNS))
      if (caseOf(other).by !== caseOf(name).by) assert.doesNotMatch(otherText, attack.refused, `${name} in ${other}`)
  }
})

const LAID_BESIDE: Record<string, string> = {
  'addon-unsigned':
    "../src/boot/stub.c:597@load_addons: Failed to read 'unsigned.addon.efi' from '\\loader\\addons\\unsigned.addon.efi', ignoring: Access denied",
  'addon-stranger':
    "../src/boot/stub.c:597@load_addons: Failed to read 'stranger.addon.efi' from '\\EFI\\Linux\\a.efi.extra.d\\stranger.addon.efi', ignoring: Access denied",
  credential:
    "[   46.846003] systemd-debug-generator[147]: Failed to read credential 'systemd.extra-unit.bisque-attack.service', ignoring: Operation not supported",
  sysext: '[  123.241530] (sd-merge)[223]: /.extra/sysext/attack.sysext.raw: Image does not match image policy.',
}

test('what is laid beside signed files is refused with the text that machines print', () => {
  for (const [name, text] of Object.entries(LAID_BESIDE)) {
    const { attack } = caseOf(name)
    assert.ok(attack.kind === 'beside')
    assert.match(text, attack.refused, name)
    assert.doesNotMatch(text, attack.worked, name)
  }
})
