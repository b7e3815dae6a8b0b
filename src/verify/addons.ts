/** Addons: programs that the stub loads for what they add to a command line, an initrd or a devicetree. */
import { findSection, type PeSection, sectionContent } from '../formats/pe.ts'
import { type Program, programBytes } from './esp.ts'
import type { ProgramFacts, UkiFacts } from './facts.ts'
import { checkLink, type Finding, type Link } from './link.ts'
import { nameOf } from './trust.ts'

const MAX_TEXT_BYTES = 64 << 10
const GLOBAL = /^loader\/addons\/[^/]+\.addon\.efi$/i
const OWN = /^(.*\.efi)\.extra\.d\/[^/]+\.addon\.efi$/i

export interface AddonFacts {
  path: string
  /** Words it adds; measured in PCR 12, and covered by no PCR 11 policy. */
  commandLine: string
  trusted: boolean
  /** Paths of the UKIs that load it. */
  ukis: string[]
}

/** One link for each: whom it is by is the link of the program. */
export async function checkAddons(
  programs: readonly Program[],
  facts: readonly ProgramFacts[],
  ukis: readonly UkiFacts[],
  links: Link[],
): Promise<AddonFacts[]> {
  const addons: AddonFacts[] = []
  for (const program of programs) {
    const { path } = program.file
    if (program.read?.kind !== 'addon' && !OWN.test(path) && !GLOBAL.test(path)) continue
    const found = await checkLink(links, 'UKI', `addon ${path}`, (finding) =>
      judgeAddon(
        program,
        facts.find((one) => one.path === path),
        ukis,
        finding,
      ),
    )
    if (found) addons.push(found)
  }
  return addons
}

function judgeAddon(
  { file, read, problem }: Program,
  facts: ProgramFacts | undefined,
  ukis: readonly UkiFacts[],
  { evidence, wrong }: Finding,
): AddonFacts | undefined {
  const { path } = file
  if (!read) {
    wrong(`not checked: ${problem}`)
    return undefined
  }
  const bytes = programBytes(file)
  const text = (name: string) => {
    const section = findSection(read.pe, name)
    return section
      ? Buffer.from(sectionContent(bytes, section).subarray(0, MAX_TEXT_BYTES)).toString('utf8').replace(/\0+$/, '')
      : undefined
  }
  if (findSection(read.pe, '.linux')) wrong('it has a kernel: the stub takes no such addon')
  const uname = text('.uname')
  const fits = loadersOf(path, ukis).filter((uki) => uname === undefined || uki.uname === uname.trim())
  if (!facts?.trusted)
    wrong('nobody trusted signed it: firmware refuses it, and would not where Secure Boot is off', `remove ${path}`)
  else evidence(`signed by ${facts.signers.map(nameOf).join(' and ')}`)
  const adds = ['.initrd', '.ucode', '.dtb', '.dtbauto', '.hwids', '.efifw'].flatMap((name) =>
    describe(findSection(read.pe, name)),
  )
  if (adds.length > 0) evidence(`adds ${adds.join(', ')}`)
  const commandLine = text('.cmdline') ?? ''
  if (commandLine !== '') evidence(`adds to the command line: ${commandLine.slice(0, 400)}`)
  evidence(fits.length === 0 ? 'no UKI loads it' : `loaded by ${fits.map((uki) => uki.path).join(', ')}, measured in PCR 12`)
  return { path, commandLine, trusted: facts?.trusted ?? false, ukis: fits.map((uki) => uki.path) }
}

const describe = (section: PeSection | undefined): string[] =>
  section ? [`${section.name} of ${section.virtualSize} bytes`] : []

/** The UKIs whose stub picks up what lies there: in a folder beside it, which is called without its counter of attempts, or for all. */
export function loadersOf(path: string, ukis: readonly UkiFacts[]): UkiFacts[] {
  if (/^loader\//i.test(path)) return [...ukis]
  const folder = path.slice(0, path.lastIndexOf('/')).toUpperCase()
  const isBeside = (uki: string) => folder === `${uki}.EXTRA.D`
  return ukis.filter(({ path: uki }) => {
    const name = uki.toUpperCase()
    return isBeside(name) || isBeside(name.replace(/\+\d+(?:-\d+)?(?=\.EFI$)/, ''))
  })
}
