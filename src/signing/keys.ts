/** The keys of an image: made once into a folder of PEM files; load.ts makes Signers of them. */
import { generateKeyPair, type KeyObject, randomBytes, randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { Fault } from '../base/fault.ts'
import { attachCertificateSignature, prepareCertificate } from '../formats/x509.ts'
import { signerOf } from './file.ts'
import { hostFault, writeFolder, writeOnce } from './folder.ts'
import { KEY_ROLES, type KeyRole } from './signer.ts'

// biome-ignore format: table
export const ROLE_PURPOSES: Record<KeyRole, { title: string; purpose: string }> = {
  pk:     { title: 'Platform Key',     purpose: 'owns the machine: signs changes of PK and KEK' },
  kek:    { title: 'Key Exchange Key', purpose: 'signs changes of the signature databases db and dbx' },
  db:     { title: 'Secure Boot',      purpose: 'signs what firmware starts: systemd-boot and the UKI' },
  verity: { title: 'dm-verity',        purpose: 'signs the root hash of /usr' },
  pcr:    { title: 'PCR policy',       purpose: 'signs the TPM policies secrets are sealed to' },
}

const RSA_BITS = 2048
const OWNER_FILE = 'owner.guid'
/** For a calendar year; a certificate need not end on the day. */
const YEAR_SECONDS = 365.25 * 86_400

export interface KeyPlan {
  /** Whose keys they are; each certificate adds what it is for. */
  commonName: string
  /** Seconds since 1970: the start of validity. */
  now: number
  years: number
}

/** Makes all keys and certificates of an image. The folder appears whole or not at all, and is never written to again. */
export async function generateKeys(directory: string, plan: KeyPlan): Promise<void> {
  checkPlan(directory, plan)
  const refusal = new Fault('usage', `Cannot generate keys in ${directory}: it is there already and not empty`, {
    hint: `bisque keys show --keys ${directory}`,
  })
  await hostFault(`generate keys in ${directory}`, () =>
    writeFolder(resolve(directory), refusal, async (fresh) => {
      await writePairs(fresh, KEY_ROLES, plan)
      await writeOnce(join(fresh, OWNER_FILE), `${randomUUID()}\n`)
    }),
  )
}

/** The GUID under which these keys are entered into firmware. */
export async function loadOwner(directory: string): Promise<string> {
  const path = join(directory, OWNER_FILE)
  const text = await readFile(path, 'utf8').catch((cause) => {
    throw new Fault('missing', `Cannot read ${path}: ${(cause as Error).message}`, { cause })
  })
  const owner = text.trim()
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(owner)) return owner
  throw new Fault('format', `Cannot read ${path}: "${owner.slice(0, 60)}" is not a GUID in lower case`)
}

/** Makes a key and a certificate for each of these roles, in a folder that has none for them. */
export async function writePairs(directory: string, roles: readonly KeyRole[], plan: KeyPlan): Promise<void> {
  const pairs = await Promise.all(roles.map(async (role) => [role, await generatePair(role, plan)] as const))
  for (const [role, { key, certificate }] of pairs) {
    await writeOnce(join(directory, `${role}.key`), key, 0o600)
    await writeOnce(join(directory, `${role}.crt`), certificate)
  }
}

async function generatePair(role: KeyRole, plan: KeyPlan): Promise<{ key: string; certificate: string }> {
  const pair: { publicKey: KeyObject; privateKey: KeyObject } = await promisify(generateKeyPair)('rsa', {
    modulusLength: RSA_BITS,
  })
  const serialNumber = randomBytes(16)
  serialNumber[0] = (serialNumber[0]! & 0x3f) | 0x40
  const prepared = prepareCertificate({
    commonName: `${plan.commonName} ${ROLE_PURPOSES[role].title}`,
    serialNumber,
    notBefore: plan.now,
    notAfter: Math.floor(plan.now + plan.years * YEAR_SECONDS),
    publicKey: pair.publicKey,
    authority: role !== 'pcr',
    codeSigning: role === 'db',
  })
  const signature = await signerOf(pair.privateKey, new Uint8Array()).sign(prepared.digest, 'certificate')
  const key = pair.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  return { key, certificate: pemOf('CERTIFICATE', attachCertificateSignature(prepared, signature)) }
}

function pemOf(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

function checkPlan(directory: string, { commonName, now, years }: KeyPlan): void {
  const problems: string[] = []
  // RFC 5280's upper bound of a common name is 64 characters; the longest title takes 17.
  if (commonName === '' || commonName.length > 46 || /[\0-\x1f\x7f]/.test(commonName))
    problems.push(`the common name "${commonName.slice(0, 60)}" must have 1 to 46 printable characters`)
  if (!Number.isInteger(now) || now < 0) problems.push(`the time ${now} is not in whole seconds since 1970`)
  if (!(years > 0 && years <= 100)) problems.push(`${years} years of validity are not between 0 and 100`)
  if (problems.length) throw new Fault('usage', `Cannot generate keys in ${directory}: ${problems.join('; ')}`)
}
