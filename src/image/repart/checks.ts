/** What the settings of a definition, and definitions among each other, must agree on; and what follows from them. */
import type { Definition, Draft } from './definition.ts'

/** File systems that are written once, in the size they need. */
export const READ_ONLY_FORMATS: readonly string[] = ['erofs', 'squashfs']

export const isReadOnlyFormat = (format: string | undefined): boolean =>
  format !== undefined && READ_ONLY_FORMATS.includes(format)

/** Whether a file system gets any files. */
export const populates = (d: Pick<Draft, 'copyFiles' | 'makeDirectories' | 'makeSymlinks'>): boolean =>
  d.copyFiles.length > 0 || d.makeDirectories.length > 0 || d.makeSymlinks.length > 0

/** Settings that cannot stand together, each told with its place. */
export function checkDefinition(draft: Draft): string[] {
  const problems: string[] = []
  const fill = ['Format', 'CopyFiles', 'MakeDirectories', 'MakeSymlinks']
  const must = (wrong: boolean, settings: readonly string[], message: string) => {
    const at = settings.map((name) => draft.places.get(name)).find((place) => place !== undefined) ?? `${draft.file}:1:1`
    if (wrong) problems.push(`${at}: ${message}`)
  }
  const exceeds = (least: number | undefined, most: number | undefined) =>
    least !== undefined && most !== undefined && least > most
  const format = formatOf(draft)
  const blocks = draft.copyBlocks !== undefined
  const { verity } = draft
  must(draft.type === undefined, [], 'Type= is missing; write for example Type=root')
  must(exceeds(draft.sizeMinBytes, draft.sizeMaxBytes), ['SizeMinBytes'], 'SizeMinBytes= is larger than SizeMaxBytes=')
  must(
    exceeds(draft.paddingMinBytes, draft.paddingMaxBytes),
    ['PaddingMinBytes'],
    'PaddingMinBytes= is larger than PaddingMaxBytes=',
  )
  must(
    blocks && (draft.format !== undefined || populates(draft)),
    ['CopyBlocks'],
    `CopyBlocks= cannot stand with ${orList(fill)}`,
  )
  must(format === 'swap' && populates(draft), fill.slice(1), `a swap partition holds no files; remove ${orList(fill.slice(1))}`)
  must(draft.format === 'empty' && populates(draft), fill.slice(1), 'Format=empty cannot stand with files to put into it')
  must(
    isReadOnlyFormat(format) && !populates(draft),
    ['Format'],
    `${format} without source files would stay empty for ever; add CopyFiles=`,
  )
  const minimized = draft.minimize !== 'off'
  must(minimized && format === undefined && verity !== 'hash', ['Minimize'], 'Minimize= needs Format= or Verity=hash')
  must(
    draft.minimize === 'best' && format !== undefined && !isReadOnlyFormat(format) && format !== 'btrfs',
    ['Minimize'],
    `Minimize=best is for erofs, squashfs, btrfs and Verity=hash; write Minimize=guess for ${format}`,
  )
  must(verity !== 'off' && draft.verityMatchKey === undefined, ['Verity'], `Verity=${verity} needs VerityMatchKey=`)
  must(verity === 'off' && draft.verityMatchKey !== undefined, ['VerityMatchKey'], 'VerityMatchKey= needs Verity=')
  const made = verity === 'hash' || verity === 'signature'
  must(made && (draft.format !== undefined || populates(draft)), fill, `${orList(fill)} cannot stand with Verity=${verity}`)
  must(verity === 'data' && format === undefined && !blocks, ['Verity'], 'Verity=data needs Format=, CopyFiles= or CopyBlocks=')
  must(verity !== 'off' && draft.encrypt !== 'off', ['Encrypt'], `Encrypt= cannot stand with Verity=${verity}`)
  const sized = draft.sizeMinBytes !== undefined || draft.sizeMaxBytes !== undefined
  must(
    verity === 'signature' && sized,
    ['SizeMinBytes', 'SizeMaxBytes'],
    'a signature partition has 16384 bytes; remove SizeMinBytes= and SizeMaxBytes=',
  )
  must(
    draft.defaultSubvolume !== undefined && !draft.subvolumes.some(({ path }) => path === draft.defaultSubvolume),
    ['DefaultSubvolume'],
    `DefaultSubvolume=${draft.defaultSubvolume} is not among Subvolumes=`,
  )
  const supplement = draft.supplementFor !== undefined
  must(
    supplement && (blocks || draft.encrypt !== 'off' || verity !== 'off'),
    ['SupplementFor'],
    'SupplementFor= cannot stand with CopyBlocks=, Encrypt= or Verity=',
  )
  return problems
}

/** The definition with what follows from its settings. Its checks have passed. */
export function completed(draft: Draft): Definition {
  const { type, splitName = '%t', addValidateFs, format: _, ...rest } = draft
  const format = formatOf(draft)
  const definition: Definition = {
    ...rest,
    type: type!,
    addValidateFs: addValidateFs ?? (format !== undefined && format !== 'swap' && format !== 'vfat'),
  }
  if (format !== undefined) definition.format = format
  if (splitName !== '-') definition.splitName = splitName
  if (draft.format === 'empty') {
    definition.noAuto ??= true
    definition.label ??= '_empty'
  }
  if (draft.verity === 'data' || draft.verity === 'signature') definition.readOnly ??= true
  return definition
}

/** The file system a definition asks for, be it without words. */
function formatOf(draft: Draft): string | undefined {
  if (draft.format !== undefined) return draft.format === 'empty' ? undefined : draft.format
  const designator = draft.type?.designator
  if (designator === 'swap') return 'swap'
  const makes = populates(draft) || (draft.encrypt !== 'off' && draft.copyBlocks === undefined)
  if (!makes) return undefined
  return designator === 'esp' || designator === 'xbootldr' ? 'vfat' : 'ext4'
}

/** What definitions must agree on among each other. */
export function checkDefinitions(definitions: readonly Definition[]): string[] {
  return [...definitions.flatMap((one) => checkVerity(one, definitions)), ...checkSupplements(definitions)]
}

/** The definition of a verity set that has this role; undefined where there is none. */
export const siblingOf = (
  definitions: readonly Definition[],
  one: Definition,
  role: Exclude<Definition['verity'], 'off'>,
): Definition | undefined => definitions.find((other) => other.verity === role && other.verityMatchKey === one.verityMatchKey)

function checkVerity(one: Definition, definitions: readonly Definition[]): string[] {
  if (one.verity === 'off') return []
  const problems: string[] = []
  const at = placeOf(one, 'Verity')
  const key = `VerityMatchKey=${one.verityMatchKey}`
  for (const role of ['data', 'hash', 'signature'] as const) {
    const found = definitions.filter((other) => other.verity === role && other.verityMatchKey === one.verityMatchKey)
    const [first] = found
    if (found.length > 1 && first === one)
      problems.push(`${at}: ${found.map(({ name }) => name).join(' and ')} both have Verity=${role} and ${key}`)
    if (first === undefined && role !== 'signature') problems.push(`${at}: no definition has Verity=${role} and ${key}`)
    if (first && first.priority !== one.priority)
      problems.push(`${at}: its priority is ${one.priority}, that of ${first.name} of the same verity set is ${first.priority}`)
  }
  const data = siblingOf(definitions, one, 'data')
  if (one.verity === 'hash' && one.minimize !== 'off' && data && data.minimize === 'off' && data.copyBlocks === undefined)
    problems.push(`${placeOf(one, 'Minimize')}: Minimize= needs Minimize= or CopyBlocks= in ${data.name}, whose hashes it holds`)
  if (one.verity !== 'data' && one.copyBlocks !== undefined && data && data.copyBlocks === undefined)
    problems.push(`${placeOf(one, 'CopyBlocks')}: CopyBlocks= needs CopyBlocks= in ${data.name}, too`)
  return problems
}

function checkSupplements(definitions: readonly Definition[]): string[] {
  const problems: string[] = []
  const taken = new Map<string, string>()
  for (const one of definitions) {
    if (one.supplementFor === undefined) continue
    const target = definitions.find(({ name }) => name === one.supplementFor)
    const tell = (message: string) => problems.push(`${placeOf(one, 'SupplementFor')}: ${message}`)
    if (!target) tell(`there is no definition ${one.supplementFor}`)
    else if (target.supplementFor !== undefined) tell(`${target.name} is itself a supplement`)
    else if (taken.has(target.name)) tell(`${target.name} has the supplement ${taken.get(target.name)} already`)
    else if (target.copyBlocks !== undefined || target.encrypt !== 'off' || target.verity !== 'off')
      tell(`${target.name} has CopyBlocks=, Encrypt= or Verity=, so nothing can supplement it`)
    else if (apart(one.sizeMinBytes, one.sizeMaxBytes, target.sizeMinBytes, target.sizeMaxBytes))
      tell(`SizeMinBytes= is larger than SizeMaxBytes= once it is merged with ${target.name}`)
    else if (apart(one.paddingMinBytes, one.paddingMaxBytes, target.paddingMinBytes, target.paddingMaxBytes))
      tell(`PaddingMinBytes= is larger than PaddingMaxBytes= once it is merged with ${target.name}`)
    if (target) taken.set(target.name, one.name)
  }
  return problems
}

/** Whether two ranges have nothing in common. */
const apart = (aMin = 0, aMax = Number.POSITIVE_INFINITY, bMin = 0, bMax = Number.POSITIVE_INFINITY): boolean =>
  Math.max(aMin, bMin) > Math.min(aMax, bMax)

const placeOf = (one: Definition, setting: string): string => one.places.get(setting) ?? `${one.file}:1:1`

const orList = (names: readonly string[]): string =>
  names
    .map((name) => `${name}=`)
    .join(', ')
    .replace(/, ([^,]*)$/, ' or $1')
