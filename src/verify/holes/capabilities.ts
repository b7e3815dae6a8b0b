/** While IPE enforces, no one may have the capability that switches it off: PID 1 drops it for all it starts. */
import type { Finding } from '../link.ts'
import type { SystemFacts } from './facts.ts'
import { configFiles, configFolders, etcFile, type Files, parseUnit, shown } from './files.ts'

/** What PID 1 drops in the initrd, it has dropped for good: every initrd does, or else the system. */
export function checkBounding({ files, initrds, ipe }: SystemFacts, { evidence, wrong }: Finding): void {
  if (!ipe) {
    evidence('there is no IPE to switch off')
    return
  }
  const safe = [initrds, files ? [files] : []].find((all) => all.length > 0 && all.every((one) => drops(one)))
  if (safe) {
    const { path, words } = boundingOf(safe[0]!)!
    evidence(`${shown(safe[0]!, path)}: CapabilityBoundingSet=${words.join(' ').slice(0, 200)}`)
    return
  }
  const set = files && boundingOf(files)
  wrong(
    `root may switch IPE off: CAP_MAC_ADMIN is in the bounding set of ${set ? `/${set.path}` : 'PID 1, which nothing limits'}`,
    'put CapabilityBoundingSet=~CAP_MAC_ADMIN into [Manager] of /usr/lib/systemd/system.conf.d/NAME.conf',
  )
}

const drops = (files: Files): boolean => {
  const set = boundingOf(files)
  return set !== undefined && !allows(set.words, 'CAP_MAC_ADMIN')
}

function boundingOf(files: Files): { words: string[]; path: string } | undefined {
  const main = etcFile(files, 'systemd/system.conf')
  const configs = [...(main ? [main] : []), ...configFiles(files, configFolders('systemd/system.conf.d'), '.conf')]
  const found = configs.flatMap(({ path, text }) =>
    parseUnit(text).flatMap(({ key, value }) => (key === 'CapabilityBoundingSet' ? [{ words: value.split(/\s+/), path }] : [])),
  )
  return found.at(-1)
}

/** `~A B` is all but those, `A B` only those; empty is none. */
function allows(words: readonly string[], capability: string): boolean {
  const inverted = words[0]?.startsWith('~') ?? false
  const named = words.map((word) => word.replace(/^~/, '').toUpperCase()).includes(capability)
  return inverted ? !named : named
}
