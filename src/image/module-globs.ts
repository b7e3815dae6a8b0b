/** Globs and expressions that name kernel modules and firmware, as mkosi reads them. */
import { Fault } from '../base/fault.ts'
import { nameOf } from '../tree/tree.ts'

export function toRegExp(source: string): RegExp {
  try {
    return new RegExp(source)
  } catch (cause) {
    throw new Fault('recipe', `Cannot select by "re:${source}": ${(cause as Error).message}`, { cause })
  }
}

/** `_` is `-` everywhere but inside `[…]`. */
export const normalGlob = (glob: string): string => glob.replace(/\[[^\]]*\]|_/g, (part) => (part === '_' ? '-' : part))

/** Whether a path is included, by the last glob that matches it. */
export function globMatcher(globs: readonly string[]): (path: string, otherwise: boolean) => boolean {
  const rules = globs
    .map((glob) => {
      const include = !glob.startsWith('-')
      const wanted = (include ? glob : glob.slice(1)).replace(/\/$/, '/*')
      const anchored = wanted.startsWith('/')
      const sources = anchored ? [`/kernel${wanted}`, wanted, `*/${wanted}`] : wanted.includes('/') ? [`*/${wanted}`] : []
      return { include, whole: sources.map(globExpression), name: globExpression(wanted) }
    })
    .reverse()
  return (path, otherwise) => {
    const name = nameOf(path)
    const rule = rules.find((r) => r.name.test(name) || r.whole.some((expression) => expression.test(`/${path}`)))
    return rule?.include ?? otherwise
  }
}

/** As fnmatch without flags has it: `*` and `?` match slashes too. */
export function globExpression(glob: string): RegExp {
  let source = ''
  for (let i = 0; i < glob.length; i++) {
    const c = glob[i]!
    const close = c === '[' ? glob.indexOf(']', i + (glob[i + 1] === '!' ? 3 : 2)) : -1
    if (c === '*') source += source.endsWith('.*') ? '' : '.*'
    else if (c === '?') source += '.'
    else if (close > 0) {
      const set = glob.slice(i + 1, close).replace(/[\\\]^[]/g, '\\$&')
      source += set.startsWith('!') ? `[^${set.slice(1)}]` : `[${set}]`
      i = close
    } else source += c.replace(/[\\^$.|+()[\]{}]/g, '\\$&')
  }
  return toRegExp(`^${source}$`)
}
