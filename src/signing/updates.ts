/**
 * Updates of Secure Boot's variables for machines that run: folders `updates/N-WHAT/` of signed `.auth` files, oldest first,
 * and a script beside them that enters into a machine's firmware what it has not got yet.
 */
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../base/fault.ts'
import {
  APPEND_WRITE,
  SECURE_BOOT_VARIABLES,
  type SecureBootVariable,
  type SignatureList,
  VARIABLE_ATTRIBUTES,
} from '../formats/esl.ts'
import { replaceFile, writeFolder, writeOnce } from './folder.ts'
import { signVariable, type VariableChange } from './secure-boot.ts'
import type { Signer } from './signer.ts'

export const UPDATES_FOLDER = 'updates'
export const TAKE_SCRIPT = 'take'
const STEP_FILE = 'update.json'

/** One signed change of a variable, and which machines it is for. */
export interface UpdateChange extends Omit<VariableChange, 'time'> {
  /** Who the firmware takes this from. */
  signer: Signer
  /** Only machines are meant whose variable holds this. */
  ifHolds?: Uint8Array
}

/** What the script must know of a change. */
interface Step {
  variable: SecureBootVariable
  append: boolean
  /** Marks in hexadecimal: the end of what the variable must hold, or must not hold yet. */
  ifHolds?: string
  unlessHolds: string
}

/** Writes one folder of updates, and gives back its path; undefined where there is nothing to write, or it is there already. */
export async function writeUpdates(
  directory: string,
  name: string,
  time: number,
  changes: readonly UpdateChange[],
): Promise<string | undefined> {
  const updates = join(directory, UPDATES_FOLDER)
  const target = join(updates, name)
  const isNew = changes.length > 0 && !existsSync(target)
  if (isNew) {
    const refusal = new Fault('usage', `Cannot write updates: ${target} is there already`)
    await writeFolder(target, refusal, async (fresh) => {
      for (const { signer, ...change } of changes)
        await writeOnce(join(fresh, `${change.name}.auth`), (await signVariable({ ...change, time }, signer)).auth)
      await writeOnce(join(fresh, STEP_FILE), `${JSON.stringify(changes.map(stepOf), null, 2)}\n`)
    })
  }
  if (existsSync(updates)) await replaceFile(join(updates, TAKE_SCRIPT), await takeScript(updates), 0o755)
  return isNew ? target : undefined
}

/** Folders of updates, oldest first. */
export async function updateFolders(directory: string): Promise<string[]> {
  const names = await readdir(join(directory, UPDATES_FOLDER)).catch(() => [])
  const order = ({ number, what }: StepName) => number * STEP_KINDS.length + STEP_KINDS.indexOf(what)
  return names
    .flatMap((name) => parseStep(name) ?? [])
    .sort((a, b) => order(a) - order(b))
    .map(({ number, what }) => `${number}-${what}`)
}

/** The number after all that were used. */
export async function nextNumber(directory: string): Promise<number> {
  const folders = await updateFolders(directory)
  return 1 + Math.max(0, ...folders.map((name) => Number.parseInt(name, 10)))
}

const STEP_KINDS = ['open', 'finish', 'revoke'] as const
interface StepName {
  number: number
  what: (typeof STEP_KINDS)[number]
}

function parseStep(name: string): StepName | undefined {
  const [, number, what] = /^([1-9]\d{0,5})-(open|finish|revoke)$/.exec(name) ?? []
  return number === undefined ? undefined : { number: Number(number), what: what as StepName['what'] }
}

function stepOf({ name, append = false, lists, ifHolds }: UpdateChange): Step {
  return {
    variable: name,
    append,
    ...(ifHolds ? { ifHolds: markOf(ifHolds) } : {}),
    unlessHolds: markOf(lastOf(lists)),
  }
}

/** A hash, or the end of a certificate, which is its signature: enough to find it by. */
const markOf = (entry: Uint8Array): string => Buffer.from(entry.subarray(-32)).toString('hex')
const lastOf = (lists: readonly SignatureList[]): Uint8Array => lists.at(-1)!.entries.at(-1)!.data

async function takeScript(updates: string): Promise<string> {
  const lines: string[] = []
  for (const folder of await updateFolders(join(updates, '..'))) {
    const steps = JSON.parse(await readFile(join(updates, folder, STEP_FILE), 'utf8')) as Step[]
    for (const { variable, append, ifHolds, unlessHolds } of steps) {
      const attributes = (VARIABLE_ATTRIBUTES | (append ? APPEND_WRITE : 0)).toString(8).padStart(3, '0')
      lines.push(`take ${folder} ${variable} ${SECURE_BOOT_VARIABLES[variable]} ${attributes} ${ifHolds ?? '-'} ${unlessHolds}`)
    }
  }
  return TAKE.replace('@STEPS@', lines.join('\n'))
}

const TAKE = `#!/bin/sh
# Enters the updates of Secure Boot's variables that lie beside this script into this machine's firmware, oldest first.
# What it has already, or is not for it, is left alone: run it as often as you like, as root.
#
#   take        what machines must trust: db, KEK, PK
#   take dbx    what must never start again; afterwards there is no way back to it
set -u

here=$(cd "$(dirname "$0")" && pwd)
efivars=\${BISQUE_EFIVARS:-/sys/firmware/efi/efivars}
what=\${1:-keys}
failed=0

hex() {
  od -An -v -tx1 "$1" 2>/dev/null | tr -d ' \\n'
}

# Variables that firmware must not lose are immutable files.
unlock() {
  [ -e "$1" ] || return 0
  chattr -i "$1" 2>/dev/null || echo "h $1 - - - - -i" | systemd-tmpfiles --create - 2>/dev/null
}

# take FOLDER VARIABLE VENDOR ATTRIBUTES IF-HOLDS UNLESS-HOLDS
take() {
  case $what:$2 in
    keys:dbx) return ;;
    keys:*|dbx:dbx) ;;
    *) return ;;
  esac
  variable=$efivars/$2-$3
  held=$(hex "$variable")
  case $held in
    *"$6"*) [ "$4" = 147 ] && { echo "$1 $2: taken already"; return; } ;;
  esac
  if [ "$5" != - ]; then
    case $held in
      *"$5"*) ;;
      *) echo "$1 $2: not for this machine, or taken already"; return ;;
    esac
  fi
  update=$(mktemp)
  { printf "\\\\$4\\\\000\\\\000\\\\000"; cat "$here/$1/$2.auth"; } >"$update"
  unlock "$variable"
  # One write, or firmware sees pieces.
  if cat "$update" >"$variable"; then
    case $(hex "$variable") in
      *"$6"*) echo "$1 $2: taken" ;;
      *) echo "$1 $2: written, but the firmware does not hold it" >&2; failed=1 ;;
    esac
  else
    echo "$1 $2: the firmware refused it" >&2
    failed=1
  fi
  rm -f "$update"
}

@STEPS@
exit $failed
`
