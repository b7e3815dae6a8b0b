import { merge, object, or } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { command, constant, option } from '@optique/core/primitives'
import { examples, folder, offlineOption, outputOption, recipeOptions, valued } from '../options.ts'
import type { Run } from '../session.ts'

const build = object({
  output: outputOption,
  keys: valued('--keys', folder(), message`Folder of the certificates; keys beside the recipe by default.`),
  offline: offlineOption,
})

export const parser = command(
  'sign',
  or(
    command(
      'prepare',
      merge(
        object({ verb: constant('sign prepare') }),
        recipeOptions,
        object({
          folder: option('--to', folder(), { description: message`Folder for the digests; their signatures go there too.` }),
        }),
        build,
      ),
      {
        brief: message`Write the digests that are to be signed`,
        description: message`Build as far as it goes without keys, and write the digests that can be signed now. The folder of keys holds a certificate for each role (ROLE.crt); roles whose key is there too sign at once. The image is the one that bisque build would make with all keys.`,
        footer: examples(
          ['bisque sign prepare --to sign', 'write the digests of the first round'],
          ['sign/sign.sh db ~/secret/db.key', 'sign those of one key with openssl, anywhere'],
          ['bisque sign attach --from sign', 'take the signatures, and say what comes next'],
        ),
      },
    ),
    command(
      'attach',
      merge(
        object({ verb: constant('sign attach') }),
        recipeOptions,
        object({ folder: option('--from', folder(), { description: message`Folder of the digests and their signatures.` }) }),
        build,
      ),
      {
        brief: message`Make the image with the signatures, or ask for more`,
        description: message`Check every signature in the folder and build with them. What covers other signatures could not be signed before: its digests are written to the same folder as the next round, and the exit code is 9 until the image is there. All options are those that sign prepare was given.`,
        footer: examples(
          ['bisque sign attach --from sign', 'take the signatures in ./sign'],
          ['bisque sign attach my-os --from sign', 'of another recipe'],
        ),
      },
    ),
  ),
  {
    brief: message`Sign where the keys are, away from the build`,
    description: message`Sign an image with keys that the build never sees: it writes digests, anything signs them, and the same build with the signatures makes the image.`,
    footer: examples(
      ['bisque sign prepare --to sign', 'write what is to be signed'],
      ['bisque sign attach --from sign', 'take the signatures'],
    ),
  },
)

export interface SignVerbOptions {
  verb: 'sign prepare' | 'sign attach'
  recipe: string
  profiles: readonly string[]
  set: readonly string[]
  folder: string
  output: string | undefined
  keys: string | undefined
  offline: boolean
}

export const run: Run<SignVerbOptions> = async (options, session) => {
  const { signPrepare, signAttach } = await import('../sign.ts')
  return options.verb === 'sign prepare' ? signPrepare(options, session) : signAttach(options, session)
}
