import { merge, object, or } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { multiple, withDefault } from '@optique/core/modifiers'
import { argument, command, constant, option } from '@optique/core/primitives'
import { choice, integer, string } from '@optique/core/valueparser'
import { path } from '@optique/run/valueparser'
import { FAULTS } from '../../base/fault.ts'
import { shellWords } from '../../base/shell-words.ts'
import type { MicrosoftChoice } from '../../signing/microsoft.ts'
import { KEY_ROLES } from '../../signing/signer.ts'
import type { KeysEnrollOptions } from '../enroll.ts'
import type { KeysRotateOptions, RevokeResult, RotateResult } from '../keys.ts'
import { examples, folder, toggle, valued } from '../options.ts'
import { roundResult } from '../round.ts'
import type { Outcome, Run } from '../session.ts'
import { program, shownPath } from '../shown.ts'

const MICROSOFT = ['uefi-ca', 'windows', 'kek'] as const satisfies MicrosoftChoice[]

const years = () =>
  withDefault(
    option('--years', integer({ metavar: 'N', min: 1, max: 100 }), {
      description: message`How long the certificates are valid; 10 by default.`,
    }),
    10,
  )

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
          years: years(),
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
      description: message`Show each role's certificate: its name, how long it lasts, where its key is; and a rotation that is open, previous keys, what is revoked.`,
      footer: examples(['bisque keys show --keys my-os/keys', 'what is in that folder']),
    }),
    command(
      'enroll',
      merge(
        object({ verb: constant('keys enroll') }),
        where,
        object({
          to: valued('--to', folder(), message`Folder for files that firmware and its tools take.`),
          ovmf: valued(
            '--ovmf',
            path({ metavar: 'FILE', mustExist: true }),
            message`Variables of a virtual machine's OVMF (such as a copy of OVMF_VARS_4M.fd) to enter the keys into.`,
          ),
          microsoft: multiple(
            option('--microsoft-certificates', choice(MICROSOFT, { metavar: 'WHICH' }), {
              description: message`Which of Microsoft's certificates to enter as well; may be given several times.`,
            }),
          ),
        }),
      ),
      {
        brief: message`Write the keys for firmware to enrol`,
        description: message`Write PK, KEK and db for firmware that does not enrol them by itself. An image enrols its own keys where firmware is in setup mode; this is for all others.`,
        footer: examples(
          ['bisque keys enroll --to /media/stick/keys', 'for the menu of a firmware'],
          ['bisque keys enroll --ovmf OVMF_VARS_4M.fd', 'for a virtual machine'],
        ),
      },
    ),
    command(
      'rotate',
      merge(
        object({ verb: constant('keys rotate') }),
        where,
        object({
          roles: multiple(
            argument(choice(KEY_ROLES, { metavar: 'ROLE' }), {
              description: message`Key to change; db and verity by default. A rotation of pcr needs work on every machine.`,
            }),
          ),
          finish: toggle('--finish', message`End the rotation that is open: images are signed with the new keys alone.`),
          from: valued(
            '--from',
            folder(),
            message`Folder with the new certificates, with keys or signers, instead of making keys.`,
          ),
          years: years(),
          commonName: valued(
            '--common-name',
            string({ metavar: 'NAME' }),
            message`Name in the new certificates; as in the old ones by default.`,
          ),
          microsoft: multiple(
            option('--microsoft-certificates', choice(MICROSOFT, { metavar: 'WHICH' }), {
              description: message`With --finish: which of Microsoft's certificates machines keep, as MicrosoftCertificates= of their recipe says; may be given several times.`,
            }),
          ),
        }),
      ),
      {
        brief: message`Change keys while machines run on them`,
        description: message`Make new keys beside the old, and the signed updates that make machines trust both. Where a key that signs them is not here, what it must sign is written to KEYS/sign: sign it, and run the same again. Until the rotation is finished, images are signed so that machines with either take them. Then --finish puts the new keys in the old ones' place, and writes the updates that take the trust in those back.`,
        footer: examples(
          ['bisque keys rotate --keys my-os/keys', 'new keys for db and verity'],
          ['bisque keys rotate kek --keys my-os/keys', 'for KEK'],
          ['bisque keys rotate --finish --keys my-os/keys', 'when all machines have taken the updates'],
        ),
      },
    ),
    command(
      'revoke',
      merge(
        object({ verb: constant('keys revoke') }),
        where,
        object({
          files: multiple(
            argument(path({ metavar: 'FILE' }), {
              description: message`UKI or other EFI program, disk image (for its UKIs) or certificate that machines must refuse.`,
            }),
            { min: 1 },
          ),
        }),
      ),
      {
        brief: message`Withdraw images: firmware refuses them`,
        description: message`Revoke images for good: later images enter them into dbx of new machines, and a signed update enters them into that of machines that run.`,
        footer: examples(['bisque keys revoke out/MyOs_1_x86-64.efi --keys my-os/keys', 'never start version 1 again']),
      },
    ),
  ),
  {
    brief: message`Make, show and change signing keys`,
    description: message`Make, show and change the keys that sign images. Private keys are PEM files that only their owner can read, or kept elsewhere.`,
    footer: examples(['bisque keys generate', 'make ./keys'], ['bisque keys show', 'show what is in ./keys']),
  },
)

export type KeysOptions =
  | { verb: 'keys generate'; keys: string; commonName: string; years: number }
  | { verb: 'keys show'; keys: string }
  | ({ verb: 'keys enroll' } & KeysEnrollOptions)
  | ({ verb: 'keys rotate' } & Omit<KeysRotateOptions, 'now' | 'environment'>)
  | { verb: 'keys revoke'; keys: string; files: readonly string[] }

export const run: Run<KeysOptions> = async (options, { environment, color }) => {
  const keys = await import('../keys.ts')
  const now = Math.floor(Date.now() / 1000)
  const { verb } = options
  if (verb === 'keys enroll') {
    const { keysEnroll, enrollLines } = await import('../enroll.ts')
    const enrolled = await keysEnroll({ ...options, now, environment })
    return { result: { verb, ...enrolled }, text: enrollLines(enrolled).join('\n') }
  }
  if (verb === 'keys rotate') {
    const rotated = await keys.keysRotate({ ...options, now, environment })
    const again = { command: commandOf(options), color }
    return outcomeOf(verb, rotated, keys.rotateLines(rotated, again, options.finish))
  }
  if (verb === 'keys revoke') {
    const revoked = await keys.keysRevoke({ ...options, now, environment })
    return outcomeOf(verb, revoked, keys.revokeLines(revoked, { command: commandOf(options), color }))
  }
  const result =
    verb === 'keys generate' ? await keys.keysGenerate({ ...options, now }) : await keys.keysShow({ ...options, now })
  return { result: { verb, ...result }, text: keys.keysLines(result).join('\n') }
}

/** Where signatures are wanted first, the command has more to do: it ends as `sign attach` does. */
function outcomeOf(verb: string, { wanted, ...result }: RotateResult | RevokeResult, lines: readonly string[]): Outcome {
  return {
    result: { verb, ...result, ...(wanted ? { wanted: roundResult(wanted) } : {}) },
    text: lines.join('\n'),
    ...(wanted ? { exitCode: FAULTS.missing.exit } : {}),
  }
}

/** The command line to run again, as it would be typed. What a rotation is opened with it remembers. */
function commandOf(options: Extract<KeysOptions, { verb: 'keys rotate' | 'keys revoke' }>): string {
  const folder = options.keys === 'keys' ? [] : ['--keys', shownPath(options.keys)]
  const words =
    options.verb === 'keys revoke'
      ? ['revoke', ...options.files]
      : [
          ...['rotate', ...(options.finish ? ['--finish'] : [])],
          ...options.microsoft.flatMap((which) => ['--microsoft-certificates', which]),
        ]
  return shellWords([program(), 'keys', ...words, ...folder])
}
