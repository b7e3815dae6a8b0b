/** From the command line to a verb and its options. */

import { bash, fish, zsh } from '@optique/core/completion'
import { merge, object, or } from '@optique/core/constructs'
import { runParser } from '@optique/core/facade'
import { formatMessage, lineBreak, type Message, message, text } from '@optique/core/message'
import { optional, withDefault } from '@optique/core/modifiers'
import { flag, option } from '@optique/core/primitives'
import { Fault } from '../base/fault.ts'
import { folder } from './options.ts'
import type { Outcome, Session } from './session.ts'
import * as attack from './verbs/attack.ts'
import * as build from './verbs/build.ts'
import * as bump from './verbs/bump.ts'
import * as cache from './verbs/cache.ts'
import * as clean from './verbs/clean.ts'
import * as doctor from './verbs/doctor.ts'
import * as init from './verbs/init.ts'
import * as keys from './verbs/keys.ts'
import * as lock from './verbs/lock.ts'
import * as sign from './verbs/sign.ts'
import * as summary from './verbs/summary.ts'
import * as verify from './verbs/verify.ts'
import * as vm from './verbs/vm.ts'

const verbs = { init, summary, lock, build, bump, clean, vm, verify, attack, keys, sign, cache, doctor }

const globals = object('Global options', {
  json: withDefault(
    flag('--json', { description: message`Print events as JSON, one a line; the last line is the result.` }),
    false,
  ),
  chdir: optional(option('-C', folder(), { description: message`Change to this folder first.` })),
  cacheFolder: optional(
    option('--cache', folder(), { description: message`Folder of the cache; bisque in $XDG_CACHE_HOME by default.` }),
  ),
})

const parser = merge(
  globals,
  or(
    ...[init.parser, summary.parser, lock.parser, build.parser, bump.parser, clean.parser],
    ...[vm.parser, verify.parser, attack.parser, keys.parser, sign.parser, cache.parser, doctor.parser],
  ),
)

export interface Command {
  verb: string
  json: boolean
  directory: string | undefined
  cache: string | undefined
  run(session: Session): Promise<Outcome>
}

/** What to print instead of running a verb: help, the version, a completion script. */
export interface Page {
  page: string
}

export interface Surroundings {
  version: string
  color: boolean
  columns: number | undefined
}

/** Parses arguments. Wrong ones are a Fault `usage`. */
export function parseArguments(args: readonly string[], { version, color, columns }: Surroundings): Command | Page {
  const pages: string[] = []
  const shown = Symbol('shown')
  const stop = (): never => {
    throw shown
  }
  try {
    const { json, chdir, cacheFolder, ...options } = runParser(parser, 'bisque', args.length === 0 ? ['--help'] : args, {
      help: { option: { names: ['-h', '--help'] }, command: true, onShow: stop },
      version: { value: version, option: true, onShow: stop },
      completion: { command: true, shells: { bash, fish, zsh }, onShow: stop },
      colors: color,
      ...(columns !== undefined && columns >= 60 ? { maxWidth: Math.min(columns, 110) } : {}),
      termWidth: 'auto',
      aboveError: 'none',
      commandList: 'top-level',
      usageLine: [{ type: 'literal', value: 'VERB' }, { type: 'ellipsis' }],
      brief: message`Stir a traditional Linux distribution into an immutable one.`,
      footer: FOOTER,
      stdout: (page) => pages.push(page),
      stderr: () => {},
      onError: (_, error) => {
        throw usageFault(error, args)
      },
    })
    const name = options.verb.split(' ')[0] as keyof typeof verbs
    const run = verbs[name].run as (options: unknown, session: Session) => Promise<Outcome>
    return { verb: options.verb, json, directory: chdir, cache: cacheFolder, run: (session) => run(options, session) }
  } catch (error) {
    if (error === shown) return { page: pages.join('\n') }
    throw error
  }
}

const FOOTER: Message = [
  text('Examples:'),
  lineBreak(),
  text('  bisque init my-os && bisque build my-os    bake a first image'),
  lineBreak(),
  text('  bisque vm my-os/out                        boot it under Secure Boot'),
  lineBreak(),
  text('  source <(bisque completion bash)           complete verbs and options'),
  lineBreak(),
  lineBreak(),
  text('bisque VERB --help tells more about one of them.'),
]

function usageFault(error: Message, args: readonly string[]): Fault {
  const known = Object.keys(verbs)
  const verb = args.find((arg) => known.includes(arg))
  const said = formatMessage(error, { colors: false, quotes: true })
    .replace(/\.$/, '')
    .replace(/\s*\n\s*/g, ' ')
  return new Fault('usage', `Cannot understand the command line: ${said.charAt(0).toLowerCase()}${said.slice(1)}`, {
    hint: args[0] === 'completion' ? 'bisque completion bash' : verb ? `bisque ${verb} --help` : 'bisque --help',
  })
}
