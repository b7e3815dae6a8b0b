import { merge, object, or } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { withDefault } from '@optique/core/modifiers'
import { command, constant, option } from '@optique/core/primitives'
import { integer, string } from '@optique/core/valueparser'
import { examples, folder } from '../options.ts'
import type { Run } from '../session.ts'

const where = object({
  keys: withDefault(option('--keys', folder(), { description: message`Folder of the keys; ./keys by default.` }), 'keys'),
})

export const parser = command(
  'keys',
  or(
    command(
      'generate',
      merge(
        object({ verb: constant('keys generate') }),
        where,
        object({
          commonName: withDefault(
            option('--common-name', string({ metavar: 'NAME' }), {
              description: message`Name in the certificates; Bisque by default.`,
            }),
            'Bisque',
          ),
          years: withDefault(
            option('--years', integer({ metavar: 'N', min: 1, max: 100 }), {
              description: message`How long the certificates are valid; 10 by default.`,
            }),
            10,
          ),
        }),
      ),
      {
        brief: message`Make new keys and certificates`,
        description: message`Make a key and a certificate for each role: PK, KEK and db of Secure Boot, verity root hashes, PCR policies. Existing keys are never overwritten.`,
        footer: examples(['bisque keys generate --keys my-os/keys', 'keys for the recipe in my-os']),
      },
    ),
    command('show', merge(object({ verb: constant('keys show') }), where), {
      brief: message`Show the certificates`,
      description: message`Show each role's certificate: its name, dates and fingerprint.`,
      footer: examples(['bisque keys show --keys my-os/keys', 'what is in that folder']),
    }),
  ),
  {
    brief: message`Make and show signing keys`,
    description: message`Make and show the keys that sign images. Private keys are PEM files that only their owner can read.`,
    footer: examples(['bisque keys generate', 'make ./keys'], ['bisque keys show', 'show what is in ./keys']),
  },
)

export type KeysOptions =
  | { verb: 'keys generate'; keys: string; commonName: string; years: number }
  | { verb: 'keys show'; keys: string }

export const run: Run<KeysOptions> = async ({ verb, ...options }) => {
  const { keysGenerate, keysLines, keysShow } = await import('../keys.ts')
  const now = Math.floor(Date.now() / 1000)
  const result = 'years' in options ? await keysGenerate({ ...options, now }) : await keysShow(options)
  return { result: { verb, ...result }, text: keysLines(result).join('\n') }
}
