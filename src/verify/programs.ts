/** Every EFI program is signed by someone trusted, and what firmware starts first is systemd-boot or a UKI. */
import type { Architecture } from '../formats/dps.ts'
import { isMeantAsUki, type Program, type ProgramRead } from './esp.ts'
import type { Anchor, ProgramFacts } from './facts.ts'
import { checkLink, type Finding, type Link, type Stage } from './link.ts'
import { includesBytes, leadsTo, nameOf } from './trust.ts'

const MACHINES: Record<number, Architecture> = { 34404: 'x86-64', 43620: 'arm64' }
const EFI_NAMES = { 'x86-64': ['X64', 'x64'], arm64: ['AA64', 'aa64'] } as const
const SIGN = 'sign it with the key of db: bisque build does, or sbsign --key db.key --cert db.crt'

export const architectureOf = ({ pe }: ProgramRead): Architecture | undefined => MACHINES[pe.machine]

export async function checkPrograms(
  programs: readonly Program[],
  architecture: Architecture,
  anchor: Anchor,
  links: Link[],
): Promise<ProgramFacts[]> {
  const facts: ProgramFacts[] = []
  for (const { file, read, problem } of programs) {
    const stage: Stage = read?.kind === 'UKI' || read?.kind === 'addon' || isMeantAsUki(file.path) ? 'UKI' : 'boot loader'
    const found = await checkLink(links, stage, `EFI program ${file.path}`, (finding) => {
      if (read) return checkProgram(file.path, read, architecture, anchor, finding)
      finding.wrong(problem ?? 'it cannot be read')
      return undefined
    })
    if (read && found) facts.push({ ...found, partition: file.partition, path: file.path })
  }
  const { bootable, loader } = anchor.chain
  if (loader && (bootable || facts.length > 0))
    await checkLink(links, 'boot loader', 'systemd-boot', (finding) => checkBootLoader(facts, architecture, anchor, finding))
  return facts
}

function checkProgram(
  path: string,
  read: ProgramRead,
  architecture: Architecture,
  anchor: Anchor,
  { evidence, wrong }: Finding,
): Omit<ProgramFacts, 'partition' | 'path'> {
  const { pe, digest, signatures, kind, version } = read
  const { chain } = anchor
  const machine = architectureOf(read)
  if (machine !== architecture) wrong(`it is for ${machine ?? `machine ${pe.machine}`}, the image for ${architecture}`)
  evidence(`${version === undefined ? '' : `${version}, `}Authenticode ${digest}`)
  const held = signatures.flatMap(({ certificate, problems, carried }) =>
    certificate && problems.length === 0 ? [{ certificate, carried }] : [],
  )
  const trusted = held.find(({ certificate, carried }) => leadsTo(certificate, anchor.db, carried))
  if (trusted) evidence(`signed by ${nameOf(trusted.certificate)}`)
  else judgeStrangers(path, signatures, anchor, { evidence, wrong })
  if (anchor.revoked.digests.has(digest)) wrong('dbx revokes it', 'sign a newer one')
  // One such signature is enough for firmware to refuse it, whatever else it bears.
  if (held.some(({ certificate }) => includesBytes(anchor.revoked.certificates, certificate)))
    wrong('dbx revokes the certificate that signed it', 'sign it with another alone')
  if (signatures.length === 0) {
    if (chain.secureBoot) wrong('it is not signed', SIGN)
    else evidence('not signed')
  }
  return {
    ...{ kind, digest, signers: held.map(({ certificate }) => certificate), trusted: trusted !== undefined },
    ...(version === undefined ? {} : { version }),
  }
}

/** Signatures of which none is by someone trusted. */
function judgeStrangers(
  path: string,
  signatures: ProgramRead['signatures'],
  { chain }: Anchor,
  { evidence, wrong }: Finding,
): void {
  for (const { certificate, problems } of signatures) {
    const by = certificate ? nameOf(certificate) : 'an unknown certificate'
    if (problems.length === 0 && chain.signedByOthers) {
      evidence(`signed by ${by}`)
      continue
    }
    // A distribution's kernel as it lies in /boot is no boot entry, and firmware with our keys alone refuses it.
    const isMeantToStart = /\.efi$/i.test(path)
    if (problems.length === 0 && !(isMeantToStart && chain.secureBoot)) {
      evidence(`signed by ${by}${isMeantToStart ? '' : ', so that firmware refuses it'}`)
      continue
    }
    wrong(
      `its signature by ${by} does not count: ${problems.join(', ') || 'the certificate is not a trusted db certificate'}`,
      SIGN,
    )
  }
}

/** Firmware starts one copy, updates replace the other first: both must be there, and in a fresh image be the same. */
function checkBootLoader(
  programs: readonly ProgramFacts[],
  architecture: Architecture,
  { total }: Anchor,
  { evidence, wrong }: Finding,
): void {
  const [fallback, name] = EFI_NAMES[architecture]
  const paths = [`EFI/BOOT/BOOT${fallback}.EFI`, `EFI/systemd/systemd-boot${name}.efi`]
  const [first, second] = paths.map((path) =>
    programs.find((one) => one.partition === 'esp' && one.path.toUpperCase() === path.toUpperCase()),
  )
  if (total && first?.kind === 'UKI' && !second) {
    evidence(`firmware starts the UKI ${first.path} by itself`)
    return
  }
  const isLoader = (one: ProgramFacts | undefined) => one?.kind === 'systemd-boot'
  if (total && first && !second && !isLoader(first))
    wrong(`${first.path} is neither systemd-boot nor a UKI: what it starts is not known`, 'boot with Bootloader=systemd-boot')
  for (const [i, found] of [first, second].entries())
    if (!found && !(total && isLoader(first))) wrong(`there is no sound ${paths[i]}`)
  if (first && second && first.digest !== second.digest) {
    const versions = `${first.version} and ${second.version}`
    if (isLoader(first) && isLoader(second) && first.version !== second.version) evidence(`of different versions: ${versions}`)
    else wrong(`${paths.join(' and ')} are different programs`, 'bootctl update')
  }
  evidence(paths.join(' and '))
}
