/**
 * Microsoft's Secure Boot certificates, for machines that must start something of Microsoft's or signed by it.
 *
 * None is entered unless a recipe asks for it: whoever holds such a certificate's key decides what else starts on the
 * machine. The files are those that Debian's firmware packages bring; a test compares them. All three of 2011 expired in
 * 2026, which firmware does not look at: what was signed with them starts as before, new things are signed with those of
 * 2023.
 */
import { readFile } from 'node:fs/promises'
import { readCertificate } from '../formats/x509.ts'

/** The GUID under which Microsoft's certificates are entered everywhere. */
export const MICROSOFT_OWNER = '77fa9abd-0359-4d32-bd60-28f4e78f784b'

export interface MicrosoftCertificate {
  /** Its file in `microsoft/`, without ending. */
  name: string
  subject: string
  /** SHA-256 of its DER. */
  fingerprint: string
}

// biome-ignore format: table
const CERTIFICATES = {
  'uefi-ca-2011':                { subject: 'Microsoft Corporation UEFI CA 2011',     fingerprint: '48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507' },
  'uefi-ca-2023':                { subject: 'Microsoft UEFI CA 2023',                 fingerprint: 'f6124e34125bee3fe6d79a574eaa7b91c0e7bd9d929c1a321178efd611dad901' },
  'windows-production-pca-2011': { subject: 'Microsoft Windows Production PCA 2011',  fingerprint: 'e8e95f0733a55e8bad7be0a1413ee23c51fcea64b3c8fa6a786935fddcc71961' },
  'windows-uefi-ca-2023':        { subject: 'Windows UEFI CA 2023',                   fingerprint: '076f1fea90ac29155ebf77c17682f75f1fdd1be196da302dc8461e350a9ae330' },
  'kek-ca-2011':                 { subject: 'Microsoft Corporation KEK CA 2011',      fingerprint: 'a1117f516a32cefcba3f2d1ace10a87972fd6bbe8fe0d0b996e09e65d802a503' },
  'kek-2k-ca-2023':              { subject: 'Microsoft Corporation KEK 2K CA 2023',   fingerprint: '3cd3f0309edae228767a976dd40d9f4affc4fbd5218f2e8cc3c9dd97e8ac6f9d' },
} as const
type Name = keyof typeof CERTIFICATES

/** What a recipe may ask for, and what it lets in. */
// biome-ignore format: table
export const MICROSOFT_CHOICES = {
  'uefi-ca': { variable: 'db',  names: ['uefi-ca-2011', 'uefi-ca-2023'],
    lets: 'option ROMs of graphics and network cards, and the shim of every distribution: whatever those start can boot on the machine' },
  windows:   { variable: 'db',  names: ['windows-production-pca-2011', 'windows-uefi-ca-2023'],
    lets: 'the boot loader of Windows, beside ours' },
  kek:       { variable: 'KEK', names: ['kek-ca-2011', 'kek-2k-ca-2023'],
    lets: 'Microsoft change db and dbx: its revocations arrive by firmware updates, and so may anything it adds' },
} as const satisfies Record<string, { variable: 'db' | 'KEK'; names: readonly Name[]; lets: string }>
export type MicrosoftChoice = keyof typeof MICROSOFT_CHOICES

export const MICROSOFT_CERTIFICATES: readonly MicrosoftCertificate[] = Object.entries(CERTIFICATES).map(([name, rest]) => ({
  name,
  ...rest,
}))

/** DER of the certificates that these choices enter into a variable. */
export async function loadMicrosoft(choices: readonly MicrosoftChoice[], variable: 'db' | 'KEK'): Promise<Uint8Array[]> {
  const names = Object.entries(MICROSOFT_CHOICES).flatMap(([choice, { variable: into, names }]) =>
    into === variable && choices.includes(choice as MicrosoftChoice) ? names : [],
  )
  return Promise.all(names.map(load))
}

async function load(name: Name): Promise<Uint8Array> {
  const { raw, fingerprint256 } = readCertificate(await readFile(new URL(`microsoft/${name}.crt`, import.meta.url), 'utf8'))
  const fingerprint = fingerprint256.replaceAll(':', '').toLowerCase()
  if (fingerprint !== CERTIFICATES[name].fingerprint) throw new Error(`microsoft/${name}.crt is ${fingerprint}`)
  return raw
}
