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
  EFI_GUID,
  SECURE_BOOT_VARIABLES,
  type SecureBootVariable,
  type SignatureList,
  VARIABLE_ATTRIBUTES,
} from '../formats/esl.ts'
import { readCertificate } from '../formats/x509.ts'
import { makeFolder } from '../store/store.ts'
import { replaceFile, writeFolder, writeOnce } from './folder.ts'
import { signVariable, type VariableChange } from './secure-boot.ts'
import type { Signer } from './signer.ts'

export const UPDATES_FOLDER = 'updates'
export const PREVIOUS_FOLDER = 'previous'
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

/** A signed change, as it lies in a folder of updates. */
export interface SignedUpdate {
  step: Step
  /** A `.auth` file. */
  auth: Uint8Array
}

/** Signs changes of variables for one moment, in seconds since 1970. */
export async function signUpdates(changes: readonly UpdateChange[], time: number): Promise<SignedUpdate[]> {
  const signed: SignedUpdate[] = []
  for (const { signer, ...change } of changes) {
    const { auth } = await signVariable({ ...change, time }, signer, aboutOf(change))
    signed.push({ step: stepOf({ signer, ...change }), auth })
  }
  return signed
}

/** Writes one folder of updates, and gives back its path; undefined where it is there already. */
export async function writeUpdates(
  directory: string,
  name: string,
  signed: readonly SignedUpdate[],
): Promise<string | undefined> {
  const target = join(directory, UPDATES_FOLDER, name)
  if (existsSync(target)) return undefined
  const refusal = new Fault('usage', `Cannot write updates: ${target} is there already`)
  await writeFolder(target, refusal, async (fresh) => {
    for (const { step, auth } of signed) await writeOnce(join(fresh, `${step.variable}.auth`), auth)
    const steps = signed.map(({ step }) => step)
    await writeOnce(join(fresh, STEP_FILE), `${JSON.stringify(steps, null, 2)}\n`)
  })
  return target
}

/** Writes the script that takes all updates there are. */
export async function writeTakeScript(directory: string): Promise<void> {
  const updates = join(directory, UPDATES_FOLDER)
  await makeFolder(updates)
  await replaceFile(join(updates, TAKE_SCRIPT), await takeScript(updates), 0o755)
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

/** The number after all that updates and previous keys have: two sets of keys never share a folder. */
export async function nextNumber(directory: string): Promise<number> {
  const previous = await readdir(join(directory, PREVIOUS_FOLDER)).catch(() => [])
  const numbers = [...(await updateFolders(directory)), ...previous].map((name) => Number.parseInt(name, 10))
  return 1 + Math.max(0, ...numbers.filter(Number.isSafeInteger))
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

/** For a person who signs it: `db gets CN=Acme Secure Boot`. */
function aboutOf({ name, append = false, lists }: Omit<UpdateChange, 'signer'>): string {
  const certificates = lists.flatMap(({ type, entries }) =>
    type === EFI_GUID.certX509 ? entries.map(({ data }) => readCertificate(data).subject.replaceAll('\n', ', ')) : [],
  )
  const hashes = lists.flatMap(({ type, entries }) => (type === EFI_GUID.certX509 ? [] : entries)).length
  const all = [...certificates, ...(hashes > 0 ? [hashes === 1 ? 'one program' : `${hashes} programs`] : [])]
  return `${name} ${append ? 'gets' : 'becomes'} ${all.join(', ')}`.slice(0, 400)
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
#   take        what the machine must trust: db, KEK, PK
#   take dbx    what must never start on it again; there is no way back
#   take seal   after a restart: seal the keys of disks to the machine as it is now
#
# A disk's key that is sealed to Secure Boot's state (PCR 7) would be lost with the change. So it is sealed without it
# before anything is changed; 'take seal' adds it again.
set -u

here=$(cd "$(dirname "$0")" && pwd)
efivars=\${BISQUE_EFIVARS:-/sys/firmware/efi/efivars}
state=\${BISQUE_STATE:-/var/lib/bisque}
boot=$(cat /proc/sys/kernel/random/boot_id)
public_key=/run/systemd/tpm2-pcr-public-key.pem
what=\${1:-keys}
failed=0
ready=

hex() {
  od -An -v -tx1 "$1" 2>/dev/null | tr -d ' \\n'
}

encrypted() {
  echo "\${BISQUE_LUKS-$(blkid -c /dev/null -t TYPE=crypto_LUKS -o device 2>/dev/null)}"
}

# The PCRs whose values a disk's key is sealed to, one a line; 'none' where only signed policies count.
pcrs_of() {
  cryptsetup luksDump --dump-json-metadata "$1" 2>/dev/null | tr -d ' \\n' |
    sed -n 's/.*"tpm2-pcrs":\\[\\([0-9,]*\\)\\].*/\\1/p' | sed 's/^$/none/' | tr , '\\n'
}

# seal DEVICE PCRS
seal() {
  if [ ! -e "$public_key" ]; then
    echo "$1: sealed without signed policies; seal it anew by hand, or enrol a recovery key" >&2
    return 1
  fi
  said=$(systemd-cryptenroll --unlock-tpm2-device=auto --wipe-slot=tpm2 --tpm2-device=auto --tpm2-pcrs="$2" \\
    --tpm2-public-key="$public_key" --tpm2-public-key-pcrs=11 "$1" 2>&1) && return 0
  echo "$said" >&2
  return 1
}

# Before the first change.
prepare() {
  [ -z "$ready" ] || return 0
  for device in $(encrypted); do
    pcrs_of "$device" | grep -qx 7 || continue
    mkdir -p "$state"
    echo "$boot $(blkid -c /dev/null -s UUID -o value "$device")" >>"$state/seal-again"
    if ! seal "$device" "$(pcrs_of "$device" | grep -vx 7 | paste -sd+ -)"; then
      echo "$device: cannot be sealed without PCR 7, so nothing was changed" >&2
      exit 1
    fi
    echo "$device: sealed without PCR 7; restart, then run: $0 seal"
  done
  ready=yes
}

seal_again() {
  pending=$(cat "$state/seal-again" 2>/dev/null)
  case $pending in
    *"$boot "*) echo "the machine has not restarted since its firmware changed" >&2; exit 1 ;;
  esac
  for device in $(encrypted); do
    pcrs=$(pcrs_of "$device")
    [ -n "$pcrs" ] || continue
    case $pending in
      *" $(blkid -c /dev/null -s UUID -o value "$device")"*) pcrs="7
$pcrs" ;;
    esac
    pcrs=$(echo "$pcrs" | grep -vx none | sort -nu | paste -sd+ -)
    if seal "$device" "$pcrs"; then
      echo "$device: sealed to PCRs \${pcrs:-none}, and to what the key of PCR policies signs"
    else
      failed=1
    fi
  done
  [ $failed = 1 ] || rm -f "$state/seal-again"
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
    keys:* | dbx:dbx) ;;
    *) return ;;
  esac
  variable=$efivars/$2-$3
  held=$(hex "$variable")
  case $4:$held in
    147:*"$6"*) echo "$1 $2: taken already"; return ;;
  esac
  if [ "$5" != - ]; then
    case $held in
      *"$5"*) ;;
      *) echo "$1 $2: not for this machine, or taken already"; return ;;
    esac
  fi
  prepare
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

[ "$what" != seal ] || seal_again
@STEPS@
exit $failed
`
