/** Files and folders beside mkosi.conf that set something by lying there: `mkosi.extra/`, `mkosi.version`, `mkosi.build.d/*`. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Fault } from '../../base/fault.ts'
import { KEYS, type Key, ROWS } from '../schema.ts'
import type { Problem } from '../values.ts'
import { assign, faultOf, readValue } from './assign.ts'
import { isExecutable } from './execute.ts'
import { type FileAt, shownFile } from './place.ts'
import { type Reading, scopeProblem } from './state.ts'

export function applyNeighbours(reading: Reading, at: FileAt): void {
  for (const key of KEYS) {
    const row = ROWS[key]!
    // What Bisque has no use for may lie there all the same: mkosi.key is for other settings, too.
    if (!row.files || row.status.is === 'refused' || scopeProblem(reading, key)) continue
    for (const name of row.files.flatMap((name) => filesNamed(at.directory, `mkosi.${name}`))) {
      const path = join(at.directory, name)
      try {
        const text = row.fileText ? textOf(reading, path) : name
        if (text === undefined) continue
        noteOpenSecret(reading, key, path)
        assign(reading.config, key, text, readValue(reading, key, text, at.directory), shownFile(reading, path))
      } catch (error) {
        const fault = faultOf(error)
        if (!fault) throw error
        reading.folder.problems.push(...problemsOf(fault, path, shownFile(reading, path)))
      }
    }
  }
}

/** Private keys and passwords that every user of the machine can read. */
function noteOpenSecret(reading: Reading, key: Key, path: string): void {
  const secret = ROWS[key]!.secret || key === 'passphrase' || /Key$/.test(key)
  const mode = statSync(path).mode & 0o777
  if (!secret || (mode & 0o007) === 0 || !statSync(path).isFile()) return
  reading.folder.notes.add(`${shownFile(reading, path)}: everyone can read it (mode 0${mode.toString(8)}); chmod 600 ${path}`)
}

/** One problem, or those that a file has at several places: `/path:3:1: …; /path:4:1: …`. */
function problemsOf({ message }: Fault, path: string, shown: string): Problem[] {
  return message.split(`; ${path}:`).map((part) => {
    const [, position = '', rest] = /^(?:.*?:)?(\d+:\d+): ([\s\S]*)$/.exec(part.replace(`${path}:`, '')) ?? [undefined, '', part]
    return { where: position === '' ? shown : `${shown}:${position}`, message: rest! }
  })
}

/** The file of that name, or those that match when its last part has a `*`. */
function filesNamed(directory: string, name: string): string[] {
  if (!name.includes('*')) return existsSync(join(directory, name)) ? [name] : []
  const folder = dirname(name)
  if (!statSync(join(directory, folder), { throwIfNoEntry: false })?.isDirectory()) return []
  const [start, end] = basename(name).split('*') as [string, string]
  const found = readdirSync(join(directory, folder)).filter((file) => file.startsWith(start) && file.endsWith(end))
  return found.sort((a, b) => (a < b ? -1 : 1)).map((file) => join(folder, file))
}

/** What the file says: its content, or what it printed when it was run; nothing when it is still to be run. */
function textOf(reading: Reading, path: string): string | undefined {
  const { printed, asked } = reading.folder
  const stat = statSync(path)
  if (!stat.isFile() || stat.size > MOST_BYTES) throw new Fault('recipe', `expected a file of at most ${MOST_BYTES} bytes`)
  if (isExecutable(path)) {
    const text = printed.get(path)
    if (text === undefined) asked.add(path)
    return text?.replace(/\n+$/, '')
  }
  const text = readFileSync(path, 'utf8')
  if (text.startsWith('#!')) throw new Fault('recipe', `it is a script and not executable; chmod +x ${path}`)
  return text.replace(/\n+$/, '')
}

/** Most bytes of a file that holds one value. */
const MOST_BYTES = 1 << 20
