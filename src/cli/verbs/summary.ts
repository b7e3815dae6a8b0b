import { merge, object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { command, constant } from '@optique/core/primitives'
import type { ImageRecipe } from '../../recipe/recipe.ts'
import type { Key } from '../../recipe/schema.ts'
import type { Summary } from '../../recipe/summary.ts'
import { examples, recipeOptions, toggle } from '../options.ts'
import type { Run, Session } from '../session.ts'

export const parser = command(
  'summary',
  merge(
    object({ verb: constant('summary') }),
    recipeOptions,
    object({ all: toggle('--all', message`Show defaults as well, and what the built-in initrd sets.`) }),
  ),
  {
    brief: message`Show the settings and where each came from`,
    description: message`Show every image of the recipe with its settings, their values after profiles and --set, and the place that gave each. With --json the values are in the form of mkosi's own summary.`,
    footer: examples(
      ['bisque summary', 'what the recipe in this folder sets'],
      ['bisque summary --profile desktop', 'what a profile makes of it'],
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
  const { mkosiName } = await import('../../recipe/schema.ts')
  const { byName, summaryOf } = await import('../../recipe/summary.ts')
  const { profiles, set, all } = options
  const recipe = await loadRecipe(options.recipe, { profiles, set, env: session.environment, anyValue: true })
  const images = [...recipe.subimages, recipe].map((image) => {
    const shown = [...summaryOf(image)].filter(([, { origin }]) => all || isOwn(origin))
    return { image, shown: new Map(shown) }
  })
  const main = images.at(-1)!

  const text = images.map(({ image, shown }) => {
    const heading = images.length > 1 ? [...headingOf(image, session), ''] : []
    return [...heading, ...table(image, [...shown], mkosiName, session)].join('\n')
  })
  const known = recipe.knownProfiles.map((name) => (recipe.profiles.includes(name) ? `${name} (applied)` : name))
  const tail = known.length > 0 ? [`Profiles: ${known.join(', ')}`] : []
  const notes = recipe.notes.length > 0 ? [recipe.notes.join('\n')] : []
  return {
    result: {
      file: recipe.file,
      profiles: recipe.profiles,
      settings: byName(main.shown),
      images: images.map(({ image, shown }) => ({ name: image.name, settings: byName(shown) })),
      notes: recipe.notes,
    },
    text: [...text, ...tail, ...notes].join('\n\n'),
  }
}

/** Whether somebody set it: neither a default nor what the built-in initrd alone says. */
const isOwn = (origin: string): boolean =>
  origin.split(', ').some((place) => place !== 'default' && !place.startsWith('built-in '))

function headingOf({ name, settings }: ImageRecipe, { color }: Session): string[] {
  const title = `${name}: ${settings.format} image ${settings.output}`
  return color ? [`\x1b[1m${title}\x1b[0m`] : [title, '─'.repeat(title.length)]
}

type Table = (image: ImageRecipe, shown: readonly [Key, Summary][], nameOf: (key: Key) => string, session: Session) => string[]

const table: Table = (_, shown, nameOf, { color }) => {
  const rows = shown.map(([key, { value, origin }]) => [nameOf(key), valueLines(value), origin.split(', ')] as const)
  const nameWidth = Math.max(0, ...rows.map(([name]) => name.length))
  const valueWidth = Math.min(60, Math.max(0, ...rows.flatMap(([, lines]) => lines.map((line) => line.length))))
  const dim = (text: string): string => (color && text !== '' ? `\x1b[2m${text}\x1b[0m` : text)
  return rows.flatMap(([name, values, origins]) =>
    Array.from({ length: Math.max(values.length, origins.length) }, (_, i) => {
      const columns = [(i === 0 ? name : '').padEnd(nameWidth), (values[i] ?? '').padEnd(valueWidth), dim(origins[i] ?? '')]
      return columns.join('  ').trimEnd()
    }),
  )
}

/** Lists and objects over several lines of readable width. */
function valueLines(value: unknown): string[] {
  if (value === null) return ['(none)']
  if (typeof value === 'boolean') return [value ? 'yes' : 'no']
  if (!Array.isArray(value)) {
    if (typeof value !== 'object') return [String(value)]
    const pairs = Object.entries(value)
    return pairs.length === 0 ? ['(none)'] : pairs.map(([key, element]) => `${key}=${element}`)
  }
  if (value.length === 0) return ['(none)']
  const lines: string[] = []
  for (const element of value) {
    const text = elementText(element)
    const last = lines.at(-1)
    if (last !== undefined && last.length + text.length < 60) lines[lines.length - 1] = `${last} ${text}`
    else lines.push(text)
  }
  return lines
}

/** Trees as they are written, credentials and boot entries by their names. */
function elementText(element: unknown): string {
  if (element === null || typeof element !== 'object') return String(element)
  const { Source, Target, Name, Profile } = element as Record<string, unknown>
  if (Source !== undefined) return Target ? `${Source}:${Target}` : String(Source)
  return String(Name ?? (Profile as Record<string, string>)['ID'] ?? JSON.stringify(Profile))
}
