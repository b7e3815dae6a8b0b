/** The next version of a folder's image, for `mkosi.version`. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '../../base/fault.ts'
import { execute, isExecutable } from './execute.ts'

export interface Bump {
  /** The file that holds the version. */
  file: string
  previous: string | undefined
  version: string
}

/**
 * What follows the version in `mkosi.version`: what `mkosi.bump` prints, else the last number plus one, else 1. Nothing is
 * written: bake with `ImageVersion=` set to it, and `writeVersion()` when that went well.
 */
export async function bumpVersion(configDirectory: string): Promise<Bump> {
  const file = join(configDirectory, 'mkosi.version')
  if (isExecutable(file)) {
    throw new Fault('recipe', `Cannot bump the version: ${file} is a program, so there is no version to change`)
  }
  const previous = existsSync(file) ? readFileSync(file, 'utf8').trim() : undefined
  const script = join(configDirectory, 'mkosi.bump')
  if (existsSync(script) && !isExecutable(script)) {
    throw new Fault('recipe', `Cannot bump the version: ${script} is not executable`, { hint: `chmod +x ${script}` })
  }
  const version = existsSync(script)
    ? (await execute({ file: script, workdir: configDirectory, directory: configDirectory })).trim()
    : following(previous)
  if (/^[A-Za-z0-9][A-Za-z0-9.+~^_-]*$/.test(version)) return { file, previous, version }
  throw new Fault(
    'recipe',
    `Cannot bump the version: expected a version such as "1.2", got ${JSON.stringify(version.slice(0, 60))}`,
  )
}

export const writeVersion = ({ file, version }: Bump): void => writeFileSync(file, `${version}\n`)

function following(previous: string | undefined): string {
  if (previous === undefined) return '1'
  const parts = previous.split('.')
  const last = parts.at(-1)!
  return /^\d{1,15}$/.test(last) ? [...parts.slice(0, -1), String(Number(last) + 1)].join('.') : `${previous}.2`
}
