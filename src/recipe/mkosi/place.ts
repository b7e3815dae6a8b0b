/** Where in a folder's files something stands, and what specifiers mean there. */
import { dirname, relative } from 'node:path'
import { Fault } from '../../base/fault.ts'
import type { Key } from '../schema.ts'
import { expandSpecifiers } from '../specifiers.ts'
import { builtinName } from './builtin.ts'
import type { IniEntry } from './ini.ts'
import { current, type Reading } from './state.ts'

/** A file that is being read. */
export interface FileAt {
  /** Absolute path. */
  file: string
  /** The folder that its relative paths count from. */
  directory: string
}

/** The file as it is told: below the recipe's folder, or in one of the built-in ones. */
export function shownFile(reading: Pick<Reading, 'folder'>, file: string): string {
  const builtin = builtinName(file)
  if (builtin !== undefined) return `built-in ${builtin}`
  const path = relative(reading.folder.directory, file)
  return path.startsWith('../') ? file : path
}

export function problemIn(reading: Reading, at: FileAt, position: { line: number; column: number }, message: string): void {
  const where = `${shownFile(reading, at.file)}:${position.line}:${position.column}`
  const image = reading.image === 'main' || shownFile(reading, at.file).includes(`mkosi.images/${reading.image}`)
  reading.folder.problems.push({ where, message: image ? message : `image ${reading.image}: ${message}` })
}

export function noteIn(reading: Reading, at: FileAt, position: { line: number }, message: string): void {
  reading.folder.notes.add(`${shownFile(reading, at.file)}:${position.line}: ${message}`)
}

/** The value with its specifiers replaced by what the settings are by now. */
export function expand(reading: Reading, at: FileAt, entry: IniEntry, text: string): string {
  const around = {
    fileDirectory: dirname(at.file),
    directory: at.directory,
    mainDirectory: reading.folder.directory,
    image: reading.image,
  }
  const get = (key: Key): unknown => current(reading, key).value
  try {
    return expandSpecifiers(text, get, around, (why) => noteIn(reading, at, entry, `${entry.name}: ${why}`))
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    problemIn(reading, at, entry, `${entry.name}: ${error.message}`)
    return ''
  }
}
