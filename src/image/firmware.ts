/** Chooses firmware: what kernel modules ask for, and what rules add to that or leave out of it. */
import { followLinks } from '../tree/links.ts'
import type { Tree } from '../tree/tree.ts'
import { globExpression, globMatcher, toRegExp } from './module-globs.ts'

export const FIRMWARE = 'usr/lib/firmware'

export interface FirmwareRules {
  /**
   * Globs relative to `usr/lib/firmware`, the last one that matches wins: add files no module asks for, or with `-` in
   * front leave out ones that are. `re:` is a regular expression, which only adds.
   */
  firmware?: readonly string[]
  /** Regular expressions of files to leave out. */
  firmwareExclude?: readonly string[]
}

/** Paths of the firmware that is there, of that which is asked for by name and that which rules add, with every link to it. */
export function chooseFirmware(tree: Tree, names: Iterable<string>, rules: FirmwareRules): Set<string> {
  const chosen = new Set<string>()
  for (const path of firmwareFiles(tree, names, rules)) for (const link of withLinks(tree, path)) chosen.add(link)
  return chosen
}

function firmwareFiles(tree: Tree, names: Iterable<string>, { firmware = [], firmwareExclude = [] }: FirmwareRules): string[] {
  const all = [...tree].filter(([path, { type }]) => path.startsWith(`${FIRMWARE}/`) && (type === 'file' || type === 'symlink'))
  const relative = all.map(([path]) => path.slice(FIRMWARE.length + 1))
  const found = new Set<string>()
  for (const name of names) {
    for (const suffix of ['', '.xz', '.zst']) {
      if (!/[*?[]/.test(name) && withLinks(tree, `${FIRMWARE}/${name}${suffix}`).length > 0) found.add(name + suffix)
    }
    if (!/[*?[]/.test(name)) continue
    const expression = globExpression(name)
    for (const path of relative) if (expression.test(path) || expression.test(bare(path))) found.add(path)
  }
  const matches = globMatcher(firmware.filter((rule) => !rule.startsWith('re:')))
  const expressions = firmware.filter((rule) => rule.startsWith('re:')).map((rule) => toRegExp(rule.slice(3)))
  const excluded = firmwareExclude.map((rule) => toRegExp(rule.replace(/^re:/, '')))
  const kept = [...found].filter((path) => matches(bare(path), true) && !excluded.some((one) => one.test(path)))
  const added = relative.filter((path) => matches(bare(path), false) || expressions.some((one) => one.test(path)))
  return [...new Set([...kept, ...added])].map((path) => `${FIRMWARE}/${path}`)
}

const bare = (path: string): string => path.replace(/\.(?:gz|xz|zst)$/, '')

/** A file with every link on the way to it. Nothing where the path leads nowhere. */
export function withLinks(tree: Tree, path: string): string[] {
  const followed = followLinks(tree, path)
  return followed && tree.get(followed.path)?.type === 'file' ? [...followed.links, followed.path] : []
}
