/**
 * Shell wildcards for one name: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`, as fnmatch(3) reads them without flags.
 *
 * Takes steps in proportion to the two lengths multiplied, whatever the pattern: it goes back to the last star only.
 */
export function wildcard(pattern: string): (name: string) => boolean {
  const tokens = tokensOf(pattern)
  return (name) => {
    let [at, token] = [0, 0]
    let star: { token: number; at: number } | undefined
    while (at < name.length || token < tokens.length) {
      const wanted = tokens[token]
      if (wanted === 'star') {
        star = { token: token++, at }
      } else if (at < name.length && wanted?.(name[at]!)) {
        at++
        token++
      } else {
        if (star === undefined || star.at === name.length) return false
        at = ++star.at
        token = star.token + 1
      }
    }
    return true
  }
}

type Token = 'star' | ((character: string) => boolean)

function tokensOf(pattern: string): Token[] {
  const tokens: Token[] = []
  for (const [part, not, set] of pattern.matchAll(/\[(!?)(\]?[^\]]*)\]|[\s\S]/g)) {
    if (set) tokens.push(setOf(not === '!', set))
    else if (part === '?') tokens.push(() => true)
    else if (part !== '*') tokens.push(...part.split('').map((one) => (character: string) => character === one))
    else if (tokens.at(-1) !== 'star') tokens.push('star')
  }
  return tokens
}

/** A set of characters; a range that runs backwards holds nothing. */
function setOf(not: boolean, set: string): Token {
  const ranges = [...set.matchAll(/([\s\S])-([\s\S])|([\s\S])/g)].map(([, from, to, one]) => [one ?? from!, one ?? to!] as const)
  return (character) => ranges.some(([from, to]) => from <= character && character <= to) !== not
}
