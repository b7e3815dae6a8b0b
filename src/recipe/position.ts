/**
 * Where a key stands in the source of a recipe, so that a problem can name file:line:column.
 *
 * A small tokenizer, not a parser: it knows strings, templates, comments, regular expressions and brackets, which is what it
 * takes to tell a key of the recipe's object from the same word elsewhere. What is computed (`...common`) is not found.
 */
export interface Position {
  line: number
  column: number
}

/** Positions of keys by their path below the object given to `defineRecipe`: `packages`, `profiles.desktop.packages`. */
export function keyPositions(source: string): Map<string, Position> {
  const tokens = tokenize(source)
  const found = new Map<string, Position>()
  const start = recipeObject(tokens)
  if (start !== undefined) readObject(tokens, start, '', found, positions(source))
  return found
}

/** The first place in the text where `word` is a key of any object. */
export function anyKey(source: string, word: string): Position | undefined {
  const tokens = tokenize(source)
  const at = tokens.findIndex((t, i) => t.text === word && (tokens[i + 1]?.text === ':' || endsKey(tokens, i)))
  return at < 0 ? undefined : positions(source)(tokens[at]!.offset)
}

interface Token {
  kind: 'word' | 'string' | 'other' | 'punctuation'
  /** Of a string: its content without quotes. */
  text: string
  offset: number
}

const SPACE = /\s+|\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/y
const WORD = /[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*/uy
const NUMBER = /\.?\d[\w.]*/y
const STRING = /'(?:\\[\s\S]|[^'\\\n])*'?|"(?:\\[\s\S]|[^"\\\n])*"?/y
const REGEX = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/y
/** After one of these, a slash begins a regular expression. */
const BEFORE_REGEX = new Set([...'([{,;:=!&|?+-*%<>~^', 'return', 'typeof', 'case', 'in', 'of', 'default', '=>'])

function tokenize(source: string): Token[] {
  const tokens: Token[] = []
  let at = 0
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at
    return pattern.exec(source)?.[0]
  }
  while (at < source.length) {
    const space = take(SPACE)
    if (space) {
      at += space.length
      continue
    }
    const token = tokenAt(source, at, take, tokens.at(-1))
    tokens.push(token.token)
    at += token.length
  }
  return tokens
}

function tokenAt(
  source: string,
  offset: number,
  take: (pattern: RegExp) => string | undefined,
  last: Token | undefined,
): { token: Token; length: number } {
  const word = take(WORD)
  if (word) return { token: { kind: 'word', text: word, offset }, length: word.length }
  const text = take(STRING)
  if (text)
    return {
      token: { kind: 'string', text: text.slice(1, text.at(-1) === text[0] ? -1 : undefined), offset },
      length: text.length,
    }
  const number = take(NUMBER)
  if (number) return { token: { kind: 'other', text: number, offset }, length: number.length }
  if (source[offset] === '`') {
    const length = templateEnd(source, offset) - offset
    return { token: { kind: 'other', text: '`', offset }, length }
  }
  const regex =
    source[offset] === '/' && (!last || (last.kind !== 'string' && BEFORE_REGEX.has(last.text))) ? take(REGEX) : undefined
  if (regex) return { token: { kind: 'other', text: regex, offset }, length: regex.length }
  if (source.startsWith('=>', offset)) return { token: { kind: 'punctuation', text: '=>', offset }, length: 2 }
  if (source.startsWith('...', offset)) return { token: { kind: 'punctuation', text: '...', offset }, length: 3 }
  return { token: { kind: 'punctuation', text: source[offset]!, offset }, length: 1 }
}

/** The offset after a template literal; its `${…}` may hold further ones. */
function templateEnd(source: string, start: number): number {
  const open: ('`' | '{')[] = ['`']
  let at = start + 1
  while (at < source.length && open.length > 0) {
    const inText = open.at(-1) === '`'
    const c = source[at]!
    if (c === '\\') at++
    else if (c === '`') inText ? open.pop() : open.push('`')
    else if (inText && c === '$' && source[at + 1] === '{') {
      open.push('{')
      at++
    } else if (!inText && c === '{') open.push('{')
    else if (!inText && c === '}') open.pop()
    at++
  }
  return at
}

/** Index of the `{` that opens the recipe: after `defineRecipe(`, else after `export default`. */
function recipeObject(tokens: readonly Token[]): number | undefined {
  const call = tokens.findIndex(
    (t, i) => t.kind === 'word' && t.text === 'defineRecipe' && tokens[i + 1]?.text === '(' && tokens[i + 2]?.text === '{',
  )
  if (call >= 0) return call + 2
  const exported = tokens.findIndex(
    (t, i) => t.text === 'export' && tokens[i + 1]?.text === 'default' && tokens[i + 2]?.text === '{',
  )
  return exported < 0 ? undefined : exported + 2
}

/** Reads the object whose `{` is at `start` and returns the index after its `}`. */
function readObject(
  tokens: readonly Token[],
  start: number,
  prefix: string,
  found: Map<string, Position>,
  position: (offset: number) => Position,
): number {
  let i = start + 1
  while (i < tokens.length && !isBracket(tokens[i]!, '}')) {
    const token = tokens[i]!
    const isKey = (token.kind === 'word' || token.kind === 'string') && (tokens[i + 1]?.text === ':' || endsKey(tokens, i))
    if (isKey) {
      const path = prefix + token.text
      // The last of several equal keys is the one that counts.
      found.set(path, position(token.offset))
      const value = tokens[i + 2]
      if (tokens[i + 1]?.text === ':' && value && isBracket(value, '{'))
        i = readObject(tokens, i + 2, `${path}.`, found, position)
    }
    // Text that is no TypeScript may hold a stray bracket: go on behind it.
    i = Math.max(skipToComma(tokens, i), i + (isBracket(tokens[i] ?? token, '}') ? 0 : 1))
  }
  return i + 1
}

const isBracket = (token: Token, text: string): boolean => token.kind === 'punctuation' && token.text === text

/** A shorthand property or a method. */
function endsKey(tokens: readonly Token[], i: number): boolean {
  const next = tokens[i + 1]
  const before = tokens[i - 1]
  const first = before !== undefined && before.kind === 'punctuation' && (before.text === '{' || before.text === ',')
  return first && tokens[i]!.kind === 'word' && next?.kind === 'punctuation' && [',', '}', '('].includes(next.text)
}

/** From inside a property to the start of the next one, or to the closing brace. */
function skipToComma(tokens: readonly Token[], from: number): number {
  let depth = 0
  for (let i = from; i < tokens.length; i++) {
    const token = tokens[i]!
    if (token.kind !== 'punctuation') continue
    if (depth === 0 && token.text === ',') return i + 1
    if ('([{'.includes(token.text)) depth++
    else if (')]}'.includes(token.text)) {
      if (depth === 0) return i
      depth--
    }
  }
  return tokens.length
}

/** Offset → line and column, both from 1. */
function positions(source: string): (offset: number) => Position {
  const starts = [0]
  for (let at = source.indexOf('\n'); at >= 0; at = source.indexOf('\n', at + 1)) starts.push(at + 1)
  return (offset) => {
    let line = starts.findIndex((start) => start > offset)
    if (line < 0) line = starts.length
    return { line, column: offset - starts[line - 1]! + 1 }
  }
}
