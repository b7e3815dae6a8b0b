import { object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { multiple, withDefault } from '@optique/core/modifiers'
import { argument, command, constant, option } from '@optique/core/primitives'
import { integer, string } from '@optique/core/valueparser'
import { path } from '@optique/run/valueparser'
import { examples, folder, toggle, valued } from '../options.ts'
import type { Run } from '../session.ts'

export const parser = command(
  'attack',
  object({
    verb: constant('attack'),
    image: withDefault(
      argument(path({ metavar: 'IMAGE' }), { description: message`Disk image, or a folder with one; ./out by default.` }),
      'out',
    ),
    keys: valued('--keys', folder(), message`The image's own keys, for the cases that only their holder can make.`),
    other: valued(
      '--other',
      path({ metavar: 'IMAGE' }),
      message`Another version of the image, whose /usr is put in the place of the first; one is forged by default.`,
    ),
    only: multiple(
      option('--only', string({ metavar: 'NAME' }), {
        description: message`Run only this case, or group of cases; may be given several times.`,
      }),
    ),
    list: toggle('--list', message`List the cases and run none.`),
    html: valued('--html', path({ metavar: 'FILE' }), message`Write the report as a page, too.`),
    logs: valued('--logs', folder(), message`Keep what each machine prints on its console, a file for each.`),
    lanes: withDefault(
      option('--machines', integer({ metavar: 'N', min: 1, max: 16 }), {
        description: message`How many machines run at a time; 2 by default.`,
      }),
      2,
    ),
    timeoutSeconds: withDefault(
      option('--timeout', integer({ metavar: 'SECONDS', min: 30 }), {
        description: message`How long a machine may take to come up; 300 by default.`,
      }),
      300,
    ),
  }),
  {
    brief: message`Attack an image in virtual machines and see who refuses`,
    description: message`Boot the image once as it is, then tamper with copies of it, with its firmware, its TPM and the running machine. Each case names who must refuse it and is held to have been refused only where that was seen. The image itself is not changed.`,
    footer: examples(
      ['bisque attack out/Minimal_1_x86-64.raw', 'the whole matrix'],
      ['bisque attack --keys keys --html attack.html', 'with the cases that take the keys, and a page'],
      ['bisque attack --only exec-tmpfs --only usr', 'one case, and one group'],
      ['bisque attack --list', 'what the cases are'],
    ),
  },
)

/** What `runAttack` is given. */
export interface AttackOptions {
  image: string
  keys: string | undefined
  other: string | undefined
  only: readonly string[]
  list: boolean
  html: string | undefined
  logs: string | undefined
  lanes: number
  timeoutSeconds: number
}

export const run: Run<AttackOptions> = async (options, session) => {
  const { runAttack } = await import('../attack.ts')
  return await runAttack(options, session)
}
