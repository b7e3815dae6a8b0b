import { merge, object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { command, constant } from '@optique/core/primitives'
import { examples, recipeOptions, toggle } from '../options.ts'
import type { Run } from '../session.ts'

export const parser = command(
  'summary',
  merge(
    object({ verb: constant('summary') }),
    recipeOptions,
    object({ all: toggle('--all', message`Show settings that are at their default as well.`) }),
  ),
  {
    brief: message`Show the settings and where each came from`,
    description: message`Show every setting of the recipe, its value after profiles and --set, and the place that gave it.`,
    footer: examples(
      ['bisque summary', 'what the recipe in this folder sets'],
      ['bisque summary --all --json', 'everything, for programs'],
    ),
  },
)

export interface SummaryOptions {
  recipe: string
  profiles: readonly string[]
  set: readonly string[]
  all: boolean
}

export const run: Run<SummaryOptions> = async (options, session) => {
  const { loadRecipe } = await import('../../recipe/recipe.ts')
  const { KEYS, mkosiName, ROWS } = await import('../../recipe/schema.ts')
  const recipe = await loadRecipe(options.recipe, { profiles: options.profiles, set: options.set, env: session.environment })
  const settings = recipe.settings as unknown as Readonly<Record<string, unknown>>
  const shown = KEYS.filter((key) => key in settings && (options.all || recipe.origins.get(key) !== 'default'))
  const masked = (key: string): unknown => (ROWS[key]!.secret && settings[key] !== undefined ? '(secret)' : settings[key])
  const result = Object.fromEntries(
    shown.map((key) => [mkosiName(key), { value: masked(key) ?? null, origin: recipe.origins.get(key) }]),
  )

  const rows = shown.map((key) => [mkosiName(key), valueLines(masked(key)), recipe.origins.get(key) ?? ''] as const)
  const nameWidth = Math.max(...rows.map(([name]) => name.length))
  const valueWidth = Math.min(60, Math.max(...rows.flatMap(([, lines]) => lines.map((line) => line.length))))
  const dim = (text: string): string => (session.color ? `\x1b[2m${text}\x1b[0m` : text)
  const lines = rows.flatMap(([name, values, origin]) => [
    `${name.padEnd(nameWidth)}  ${values[0]!.padEnd(valueWidth)}  ${dim(origin)}`.trimEnd(),
    ...values.slice(1).map((line) => `${' '.repeat(nameWidth)}  ${line}`),
  ])
  const profiles = recipe.knownProfiles.map((name) => (recipe.profiles.includes(name) ? `${name} (applied)` : name))
  const tail = profiles.length > 0 ? ['', `Profiles: ${profiles.join(', ')}`] : []
  const notes = recipe.notes.length > 0 ? ['', ...recipe.notes] : []
  return {
    result: { file: recipe.file, profiles: recipe.profiles, settings: result, notes: recipe.notes },
    text: [...lines, ...tail, ...notes].join('\n'),
  }
}

/** Lists and objects over several lines of readable width. */
function valueLines(value: unknown): string[] {
  if (value === undefined) return ['(none)']
  if (typeof value === 'boolean') return [value ? 'yes' : 'no']
  if (!Array.isArray(value)) {
    if (value === null || typeof value !== 'object') return [String(value)]
    const pairs = Object.entries(value)
    return pairs.length === 0 ? ['(none)'] : pairs.map(([key, element]) => `${key}=${element}`)
  }
  if (value.length === 0) return ['(none)']
  const lines: string[] = []
  for (const element of value) {
    const text = typeof element === 'object' ? `${element.source}:${element.target}` : String(element)
    const last = lines.at(-1)
    if (last !== undefined && last.length + text.length < 60) lines[lines.length - 1] = `${last} ${text}`
    else lines.push(text)
  }
  return lines
}
