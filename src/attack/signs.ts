/** What those who stand guard print when they refuse, as machines printed it. */
import type { Refuser } from './case.ts'

export const SIGNS = {
  /** Of what firmware starts by itself. */
  loader: /BdsDxe: failed to load Boot\d+ .*: Access Denied/,
  /** Of what systemd-boot asks firmware to start. */
  uki: /Error loading \S+: Access denied/i,
  corrupted: /device-mapper: verity: \S+ (?:data|metadata) block \d+ is corrupted/,
  signature: /device-mapper: .*verity: Root hash verification failed/,
  /** An audit record of a denial that holds; one that is only noted says enforcing=0. */
  denied: /type=1420 .*enforcing=1 .*DENY/,
  /** Of systemd-cryptsetup, whose only key for the root is the TPM's. */
  locked:
    /Failed to unseal secret using TPM2|TPM2 operation failed|TPM2? key integrity check failed|policy digest does not match|No TPM2 metadata matching/,
} as const

const BY: Record<keyof typeof SIGNS, Refuser> = {
  loader: 'firmware',
  uki: 'firmware',
  corrupted: 'dm-verity',
  signature: 'kernel',
  denied: 'IPE',
  locked: 'TPM',
}

/** Who else was seen to refuse something. */
export function anotherWho(text: string, by: Refuser): { by: Refuser; sign: RegExp } | undefined {
  for (const [name, sign] of Object.entries(SIGNS) as [keyof typeof SIGNS, RegExp][])
    if (BY[name] !== by && sign.test(text)) return { by: BY[name], sign }
  return undefined
}
