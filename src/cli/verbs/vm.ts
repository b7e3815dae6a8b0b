import { object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { multiple, withDefault } from '@optique/core/modifiers'
import { argument, command, constant, option } from '@optique/core/primitives'
import { integer, string } from '@optique/core/valueparser'
import { path } from '@optique/run/valueparser'
import { examples, size, toggle, valued } from '../options.ts'
import type { Run } from '../session.ts'

export const parser = command(
  'vm',
  object({
    verb: constant('vm'),
    image: withDefault(
      argument(path({ metavar: 'IMAGE' }), {
        description: message`Disk image, a folder with one, or a recipe that has been baked; ./out by default.`,
      }),
      'out',
    ),
    headless: toggle('--headless', message`No terminal: the console goes to the output, nothing is read.`),
    waitFor: valued('--wait-for', string({ metavar: 'REGEX' }), message`End well once the console has printed this.`),
    commands: multiple(
      option('--run', string({ metavar: 'COMMAND' }), {
        description: message`Run a command on the console after login; its exit code becomes ours. May be given several times.`,
      }),
    ),
    timeoutSeconds: withDefault(
      option('--timeout', integer({ metavar: 'SECONDS', min: 1 }), {
        description: message`Give up after so long when headless; 300 by default.`,
      }),
      300,
    ),
    memoryBytes: valued('--memory', size, message`Memory of the machine: 2G.`),
    cpus: valued('--cpus', integer({ metavar: 'N', min: 1, max: 64 }), message`Processors of the machine; 2 by default.`),
    keep: toggle('--keep', message`Keep what the machine writes to its disk, TPM and firmware variables for the next run.`),
    noSecureBoot: toggle('--no-secure-boot', message`Start with Secure Boot off and no keys to enrol.`),
  }),
  {
    brief: message`Boot an image in a virtual machine`,
    description: message`Boot the image under OVMF with Secure Boot in setup mode and a software TPM. QEMU and all else come from Bisque's own tools tree; the image is not changed.`,
    footer: examples(
      ['bisque vm out/Minimal_1_x86-64.raw', 'boot it, with the console here'],
      ['bisque vm .', 'boot the image of this recipe, as its [Runtime] settings say'],
      ["bisque vm --headless --wait-for 'login:'", 'boot until a login prompt shows'],
      ["bisque vm --headless --run 'systemctl is-system-running --wait'", 'run a command, take its exit code'],
    ),
  },
)

/** What `runVm` is given. */
export interface VmOptions {
  image: string
  headless: boolean
  waitFor: string | undefined
  commands: readonly string[]
  timeoutSeconds: number
  memoryBytes: number | undefined
  cpus: number | undefined
  keep: boolean
  noSecureBoot: boolean
}

export const run: Run<VmOptions> = async (options, session) => {
  const { runVm } = await import('../vm.ts')
  return await runVm(options, session)
}
