/**
 * Running commands as root inside a guest, whatever its image allows: no login, no password, no network.
 *
 * systemd (256 or later) takes units from credentials, and credentials from the SMBIOS strings of a virtual machine. So the
 * machine is started with a unit that belongs to no image: a loop of `sh` that reads commands from the second serial port
 * and answers there. The image needs `sh`, `stty` and `base64`, and in its kernel or initrd the module `dmi-sysfs`.
 *
 * Each line begins with a word nobody else knows, so nothing else that is printed there can be mistaken for an answer:
 *
 *   guest: WORD ready BOOT-ID            after every start, once multi-user.target is being reached
 *   host:  WORD 1 COMMAND-IN-BASE64
 *   guest: WORD 1 begin · the output (both streams) in base64 · WORD 1 end EXIT-CODE
 */
import type { Duplex } from 'node:stream'
import { Fault } from '../base/fault.ts'

export interface GuestOutcome {
  exitCode: number
  /** Standard output and standard error, in the order they were written. */
  output: string
}

export interface GuestShell {
  /** Fulfilled with the boot's identifier each time the guest has come up after `since` earlier ones. */
  ready(timeoutMs: number, since?: number): Promise<string>
  /** How many times the guest has come up. */
  readonly boots: number
  /** Runs a command with `sh -c`, its input empty, once the guest has come up. Commands run one after another. */
  run(command: string, timeoutMs: number): Promise<GuestOutcome>
}

const PORT = '/dev/ttyS1'
const MOST_COMMAND_BYTES = 64 << 10
const MOST_OUTPUT_BYTES = 64 << 20

/** The credentials that bring the shell into a guest: name to value. */
export function shellCredentials(word: string): Record<string, string> {
  const script = Buffer.from(guestScript(word)).toString('base64')
  return {
    'systemd.extra-unit.bisque-shell.service': `[Unit]
Description=Shell for bisque vm on ${PORT}
ConditionPathExists=!/etc/initrd-release
[Service]
ExecStart=:/bin/sh -c 'eval "$(echo ${script} | base64 -d)"'
Restart=always
TimeoutStopSec=5s
Environment=HOME=/root LANG=C.UTF-8 TERM=dumb
`,
    'systemd.unit-dropin.multi-user.target~bisque-shell': '[Unit]\nWants=bisque-shell.service\n',
  }
}

/** Reads line by line: in raw mode the terminal neither echoes nor changes anything. */
const guestScript = (word: string) => `
stty -F ${PORT} raw -echo clocal
exec <>${PORT} >&0
printf '\\n%s ready %s\\n' ${word} "$(cat /proc/sys/kernel/random/boot_id)"
while read -r word id command; do
  [ "$word" = ${word} ] || continue
  printf '%s %s begin\\n' ${word} "$id"
  code=$({ { sh -c "$(printf %s "$command" | base64 -d)" </dev/null 2>&1 3>&- 4>&-; echo $? >&3; } | base64 >&4; } 3>&1 4>${PORT})
  printf '%s %s end %s\\n' ${word} "$id" "$code"
done
`

interface Asked {
  id: string
  resolve: (outcome: GuestOutcome) => void
  reject: (fault: Fault) => void
  /** The output so far, in base64; undefined before it has begun. */
  output?: string[]
  bytes: number
}

/** The host's end of the second serial port. */
export function openShell(stream: Duplex, word: string): GuestShell {
  const boots: string[] = []
  const watchers = new Set<() => void>()
  let asked: Asked | undefined
  let queue: Promise<unknown> = Promise.resolve()
  let nextId = 1
  let ended = false

  const fail = (why: string) => {
    asked?.reject(new Fault('tool', `Cannot finish the command in the guest: ${why}`))
    asked = undefined
  }
  const wake = () => {
    for (const look of [...watchers]) look()
  }
  readLines(stream, (line) => {
    const [first, id, what, code] = line.split(' ')
    if (first === word && id === 'ready') {
      fail('the machine has restarted')
      boots.push(what ?? '')
      wake()
    } else if (asked && first === word && id === asked.id) {
      if (what === 'begin') asked.output = []
      else if (what === 'end' && asked.output) {
        asked.resolve({ exitCode: Number(code), output: Buffer.from(asked.output.join(''), 'base64').toString() })
        asked = undefined
      }
    } else if (asked?.output) {
      asked.bytes += line.length
      if (asked.bytes > MOST_OUTPUT_BYTES) fail(`it printed more than ${MOST_OUTPUT_BYTES} bytes`)
      else asked.output.push(line)
    }
  })
  const end = () => {
    ended = true
    fail('the machine has stopped')
    wake()
  }
  stream.on('end', end)
  stream.on('close', end)

  const ask = (command: string, timeoutMs: number) =>
    new Promise<GuestOutcome>((resolve, reject) => {
      if (ended) return reject(new Fault('tool', 'Cannot run a command in the guest: the machine has stopped'))
      const id = `${nextId++}`
      const timer = setTimeout(() => asked?.id === id && fail(`it took more than ${timeoutMs / 1000} s`), timeoutMs)
      const done = () => clearTimeout(timer)
      asked = {
        id,
        bytes: 0,
        resolve: (outcome) => {
          done()
          resolve(outcome)
        },
        reject: (fault) => {
          done()
          reject(fault)
        },
      }
      stream.write(`${word} ${id} ${Buffer.from(command).toString('base64')}\n`)
    })

  const ready = (timeoutMs: number, since = 0) =>
    new Promise<string>((resolve, reject) => {
      const finish = () => {
        clearTimeout(timer)
        watchers.delete(look)
      }
      const refuse = (why: string) => {
        finish()
        reject(new Fault('tool', `Cannot reach the guest: ${why}`))
      }
      const look = () => {
        if (boots.length > since) {
          finish()
          resolve(boots.at(-1)!)
        } else if (ended) refuse('the machine has stopped')
      }
      const timer = setTimeout(() => refuse(`it did not come up within ${timeoutMs / 1000} s`), timeoutMs)
      watchers.add(look)
      look()
    })

  return {
    get boots() {
      return boots.length
    },
    ready,
    run(command, timeoutMs) {
      if (Buffer.byteLength(command) > MOST_COMMAND_BYTES || command.includes('\0'))
        throw new Fault(
          'usage',
          `Cannot run a command in the guest: longer than ${MOST_COMMAND_BYTES} bytes, or with a NUL in it`,
        )
      const outcome = queue.then(() => ready(timeoutMs)).then(() => ask(command, timeoutMs))
      queue = outcome.catch(() => {})
      return outcome
    },
  }
}

/** Lines of base64 are short: one that grows beyond this is none of ours, and is dropped. */
const MOST_BYTES_A_LINE = 8192

function readLines(stream: Duplex, take: (line: string) => void): void {
  let pending = ''
  stream.on('error', () => {}) // its end is told by 'close'
  stream.on('data', (chunk: Buffer) => {
    const lines = (pending + chunk.toString('latin1')).split('\n')
    pending = lines.pop()!.slice(-MOST_BYTES_A_LINE)
    for (const line of lines) take(line.trimEnd())
  })
}
