import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { JUDGES, oracle } from '../../test/oracle.ts'
import { enrolledVariables, firmwareState, readFirmwareKeys } from './firmware.ts'

const FIRMWARE = join(JUDGES ?? '', 'usr/share/OVMF')
const read = (file: string) => Uint8Array.from(readFileSync(join(FIRMWARE, file)))

oracle('virt-fw-vars', 'readFirmwareKeys() tells a machine fresh from the factory from one with keys', async () => {
  assert.deepEqual(await readFirmwareKeys(join(FIRMWARE, 'OVMF_VARS_4M.fd')), { setupMode: true, secureBoot: false })
  const { setupMode, secureBoot, pk, kek, db } = await readFirmwareKeys(join(FIRMWARE, 'OVMF_VARS_4M.ms.fd'))
  assert.deepEqual({ setupMode, secureBoot }, { setupMode: false, secureBoot: true })
  for (const lists of [pk, kek, db]) assert.ok(lists!.length > 500)
})

oracle('virt-fw-vars', 'finds the keys enrolledVariables() put there, and Secure Boot on', async (_t, judge) => {
  const { pk, kek, db, dbx } = firmwareState(read('OVMF_VARS_4M.ms.fd'))
  const time = new Date(Date.UTC(2026, 0, 2, 3, 4, 5))
  const flash = enrolledVariables(read('OVMF_VARS_4M.fd'), { pk: pk!, kek: kek!, db: db!, ...(dbx ? { dbx } : {}) }, time)
  assert.deepEqual(firmwareState(flash), firmwareState(read('OVMF_VARS_4M.ms.fd')))

  const file = join(judge.dir, 'variables.fd')
  writeFileSync(file, flash)
  const printed = (await judge.run(['virt-fw-vars', '--input', file, '--print', '--verbose'])).stdout
  assert.match(printed, /bool: ON/)
  assert.match(printed, /Microsoft Corporation UEFI CA 2011/)
})
