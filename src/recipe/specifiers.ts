/**
 * mkosi's specifiers: `%i` in a value stands for the image id, and so on.
 *
 * Spec: mkosi(1), "Specifiers". `%%` is a percent sign.
 */
import { Fault } from '../base/fault.ts'
import type { Key } from './schema.ts'

/** Specifiers that stand for the value of a setting. */
export const SETTING_SPECIFIERS: Readonly<Record<string, Key>> = {
  a: 'architecture',
  d: 'distribution',
  r: 'release',
  t: 'format',
  o: 'output',
  O: 'outputDirectory',
  i: 'imageId',
  v: 'imageVersion',
}

/** Specifiers that do not depend on a setting, and what they stand for. */
export interface Surroundings {
  /** `%C`: folder of the file that is read. */
  fileDirectory: string
  /** `%P`: folder of the recipe that is read. */
  directory: string
  /** `%D`: folder of the main recipe. */
  mainDirectory: string
  /** `%I`: name of the sub-image; `main` for the image itself. */
  image: string
}

/** Replaces every specifier in `text`; `get` gives the value of a setting. */
export function expandSpecifiers(text: string, get: (key: Key) => unknown, around: Surroundings): string {
  return text.replace(/%(.?)/gs, (_, letter: string) => {
    if (letter === '%') return '%'
    const key = SETTING_SPECIFIERS[letter]
    if (key !== undefined) return String(get(key) ?? '')
    if (letter === 'C') return around.fileDirectory
    if (letter === 'P') return around.directory
    if (letter === 'D') return around.mainDirectory
    if (letter === 'I') return around.image
    if (letter === 'F') return DEFAULT_FILESYSTEM[String(get('distribution'))] ?? 'ext4'
    throw new Fault('recipe', `unknown specifier "%${letter}"; write "%%" for a percent sign`)
  })
}

/** The root file system that mkosi takes for each distribution. */
const DEFAULT_FILESYSTEM: Readonly<Record<string, string>> = { debian: 'ext4', fedora: 'btrfs', opensuse: 'btrfs', arch: 'ext4' }
