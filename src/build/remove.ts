/** Removing packages from a finished root, with what depends on them, as `apt-get purge` does. */

import { readFile } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import type { Report } from '../base/report.ts'
import { field, parseStanzas, type Stanza } from '../formats/deb822.ts'
import { type Installed, programIn, runInImage } from '../image/system/programs.ts'
import { parseRelations } from '../packages/deb/dependency.ts'

/** Purges packages and whatever needs them. */
export async function removePackages(image: Installed, names: readonly string[], report: Report): Promise<void> {
  if (names.length === 0) return
  if (programIn(image.root, 'dpkg') === undefined)
    throw new Fault('recipe', 'Cannot remove packages: dpkg is not in the image', { hint: 'leave RemovePackages= empty' })
  const status = parseStanzas(await readFile(`${image.root}/var/lib/dpkg/status`))
  const all = withDependants(status, names)
  const missing = names.filter((name) => !all.includes(name) && !all.some((one) => one.startsWith(`${name}:`)))
  if (missing.length > 0)
    report.tell({ type: 'note', level: 'info', message: `not in the image, so not removed: ${missing.join(', ')}` })
  if (all.length === 0) return
  await report.step(`Remove ${all.length} packages`, () =>
    runInImage(image, ['dpkg', '--force-remove-essential', '--force-unsafe-io', '--purge', ...all]),
  )
}

/** Those of the named packages that are installed, and installed ones whose dependencies could not be met without them. */
export function withDependants(status: readonly Stanza[], names: readonly string[]): string[] {
  const there = status.filter((stanza) => /\binstalled$/.test(field(stanza, 'Status') ?? ''))
  const gone = new Set(there.filter((stanza) => names.includes(field(stanza, 'Package')!)))
  for (let before = -1; before !== gone.size; ) {
    before = gone.size
    const left = there.filter((stanza) => !gone.has(stanza))
    const offered = new Set(left.flatMap(offers))
    const was = new Set(there.flatMap(offers))
    for (const stanza of left) {
      const broken = ['Depends', 'Pre-Depends'].some((name) =>
        parseRelations(field(stanza, name) ?? '', `${name} of ${field(stanza, 'Package')}`).some(
          (alternatives) => alternatives.some((one) => was.has(one.name)) && !alternatives.some((one) => offered.has(one.name)),
        ),
      )
      if (broken) gone.add(stanza)
    }
  }
  return [...gone].map((stanza) =>
    field(stanza, 'Multi-Arch') === 'same'
      ? `${field(stanza, 'Package')}:${field(stanza, 'Architecture')}`
      : field(stanza, 'Package')!,
  )
}

const offers = (stanza: Stanza): string[] => [
  field(stanza, 'Package')!,
  ...parseRelations(field(stanza, 'Provides') ?? '', 'Provides').flatMap((one) => one.map(({ name }) => name)),
]
