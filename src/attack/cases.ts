/** The matrix: every case, in the order of the boot. */
import type { Case } from './case.ts'
import { ESP_CASES } from './cases/esp.ts'
import { FIRMWARE_CASES } from './cases/firmware.ts'
import { RUNNING_CASES } from './cases/running.ts'
import { TPM_CASES } from './cases/tpm.ts'
import { USR_CASES } from './cases/usr.ts'

export const CASES: readonly Case[] = [...FIRMWARE_CASES, ...ESP_CASES, ...USR_CASES, ...TPM_CASES, ...RUNNING_CASES]
