/** While IPE enforces, no one may have the capability that switches it off: PID 1 drops it for all it starts. */
import type { Finding } from '../link.ts'
import type { SystemFacts } from './facts.ts'
import { configFiles, configFolders, etcFile, parseUnit } from './files.ts'

export function checkBounding({ files, ipe }: SystemFacts, { evidence, wrong }: Finding): void {
  if (!ipe) {
    evidence('there is no IPE to switch off')
    return
  }
  if (!files) throw new Error('not checked: the file system cannot be read')
  const main = etcFile(files, 'systemd/system.conf')
  const configs = [...(main ? [main] : []), ...configFiles(files, configFolders('systemd/system.conf.d'), '.conf')]
  let bounding: { words: string[]; path: string } | undefined
  for (const { path, text } of configs)
    for (const { key, value } of parseUnit(text))
      if (key === 'CapabilityBoundingSet') bounding = { words: value.split(/\s+/), path }
  if (bounding && !allows(bounding.words, 'CAP_MAC_ADMIN'))
    evidence(`/${bounding.path}: CapabilityBoundingSet=${bounding.words.join(' ').slice(0, 200)}`)
  else
    wrong(
      `root may switch IPE off: CAP_MAC_ADMIN is in the bounding set of ${bounding ? `/${bounding.path}` : 'PID 1, which nothing limits'}`,
      'put CapabilityBoundingSet=~CAP_MAC_ADMIN into [Manager] of /usr/lib/systemd/system.conf.d/NAME.conf',
    )
}

/** `~A B` is all but those, `A B` only those; empty is none. */
function allows(words: readonly string[], capability: string): boolean {
  const inverted = words[0]?.startsWith('~') ?? false
  const named = words.map((word) => word.replace(/^~/, '').toUpperCase()).includes(capability)
  return inverted ? !named : named
}
