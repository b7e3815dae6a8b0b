/** Signatures that are wanted from keys elsewhere, told to people and to programs. */
import type { SigningRound } from '../signing/offline-folder.ts'
import { describe, digestName, keyName, type SigningRequest, signatureName } from '../signing/offline-requests.ts'
import { opensslCommand, signCommand } from '../signing/offline-script.ts'

export function roundResult({ folder, round, requests, open }: SigningRound): Record<string, unknown> {
  const isOpen = new Set(open)
  const shown = requests.map((request) => ({
    ...request,
    file: `${folder}/${digestName(request)}`,
    signature: `${folder}/${signatureName(request)}`,
    signed: !isOpen.has(request),
    command: opensslCommand(request, `${folder}/`),
  }))
  return { folder, round, requests: shown }
}

/** What is to be signed, by which key, and how; `then` is the command that takes the signatures. */
export function roundLines({ folder, round, open }: SigningRound, then: string, color: boolean): string[] {
  const dim = (text: string) => (color ? `\x1b[2m${text}\x1b[0m` : text)
  if (open.length === 0) return [`Round ${round} in ${folder}/ is signed.`, '', `Next:  ${then}`]
  const keys = [...Map.groupBy(open, keyName)]
  const width = Math.max(...keys.map(([name]) => name.length))
  const rows = keys.flatMap(([name, requests]) =>
    requests.map((request, i) => `  ${(i === 0 ? name : '').padEnd(width)}  ${line(request, dim)}`),
  )
  const scripts = keys.map(([name]) => `  ${signCommand(folder, name)}`)
  return [
    `Round ${round}: ${open.length === 1 ? 'one digest' : `${open.length} digests`} to sign, in ${folder}/`,
    '',
    ...rows,
    '',
    'Sign them here or anywhere, each with the key on its left:',
    '',
    ...scripts,
    '',
    'or one by one, such as',
    '',
    `  ${opensslCommand(open[0]!, `${folder}/`)}`,
    '',
    `Then:  ${then}`,
  ]
}

/** A line of all columns fits into 80. */
const ABOUT_WIDTH = 46

function line(request: SigningRequest, dim: (text: string) => string): string {
  const about = describe(request)
  const cut = about.length > ABOUT_WIDTH ? `${about.slice(0, ABOUT_WIDTH - 1)}…` : about
  return `${cut.padEnd(ABOUT_WIDTH)}  ${dim(`${request.digest.slice(0, 16)}…`)}`
}
