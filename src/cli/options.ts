/** Options that several verbs share, and the forms that all of them are written in. */
import { object } from '@optique/core/constructs'
import { lineBreak, type Message, message, text } from '@optique/core/message'
import { multiple, optional, withDefault } from '@optique/core/modifiers'
import { argument, flag, option } from '@optique/core/primitives'
import { type NonEmptyString, string, type ValueParser } from '@optique/core/valueparser'
import { path } from '@optique/run/valueparser'
import { parseSize } from '../base/size.ts'

/** A switch that is off unless given. */
export const toggle = (name: `--${string}`, description: Message) => withDefault(flag(name, { description }), false)

export const folder = (metavar: NonEmptyString = 'DIR') => path({ metavar })

/** An option with a value, or undefined. */
export const valued = <T>(name: `--${string}`, value: ValueParser<'sync', T>, description: Message) =>
  optional(option(name, value, { description }))

export const recipeArgument = withDefault(
  argument(path({ metavar: 'RECIPE' }), {
    description: message`Folder with recipe.ts or mkosi.conf, or such a file; the current folder by default.`,
  }),
  '.',
)

/** What every verb that reads a recipe takes. */
export const recipeOptions = object({
  recipe: recipeArgument,
  profiles: multiple(
    option('--profile', string({ metavar: 'NAME' }), {
      description: message`Apply a profile of the recipe; may be given several times.`,
    }),
  ),
  set: multiple(
    option('--set', string({ metavar: 'KEY=VALUE' }), {
      description: message`Set or add to a setting, by mkosi's name or in camelCase; may be given several times.`,
    }),
  ),
})

export const outputOption = optional(
  option('-o', '--output', folder(), { description: message`Folder for the artifacts; out beside the recipe by default.` }),
)
export const keysOption = valued('--keys', folder(), message`Folder of the signing keys; keys beside the recipe by default.`)
export const offlineOption = toggle('--offline', message`Keep off the network: use only what is cached.`)

/** The examples at the foot of a verb's help: pairs of a command and what it does. */
export function examples(...pairs: readonly (readonly [command: string, does: string])[]): Message {
  const width = Math.max(...pairs.map(([command]) => command.length))
  const lines = pairs.flatMap(([command, does]) => [lineBreak(), text(`  ${command.padEnd(width)}  ${does}`)])
  return [text('Examples:'), ...lines]
}

/** `512M`, `2G`: sizes as recipes write them. */
export const size: ValueParser<'sync', number> = {
  mode: 'sync',
  metavar: 'SIZE',
  placeholder: 0,
  parse(input) {
    try {
      return { success: true, value: parseSize(input) }
    } catch {
      return { success: false, error: message`Expected a size such as 512M or 2G, but got ${input}.` }
    }
  },
  format: (bytes) => `${bytes}`,
}
