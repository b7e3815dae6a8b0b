/**
 * mkosi's specifiers: `%i` in a value stands for the image id, and so on.
 *
 * Spec: mkosi(1), "Specifiers". `%%` is a percent sign.
 */
import { Fault } from '../base/fault.ts'
import { type Key, mkosiName } from './schema.ts'

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

/**
 * Replaces every specifier in `text`; `get` gives the value of a setting. With `ignored`, specifiers that say nothing (unknown
 * ones, settings without a value) are told to it and left out, as in mkosi's files; without, an unknown one is an error.
 */
export function expandSpecifiers(
  text: string,
  get: (key: Key) => unknown,
  around: Surroundings,
  ignored?: (why: string) => void,
): string {
  return text.replace(/%(.?)/gs, (_, letter: string) => {
    if (letter === '%') return '%'
    const key = SETTING_SPECIFIERS[letter]
    if (key !== undefined) {
      const value = get(key)
      if (value === undefined) ignored?.(`"%${letter}" is left out, because ${mkosiName(key)} is not set yet`)
      return String(value ?? '')
    }
    if (letter === 'C') return around.fileDirectory
    if (letter === 'P') return around.directory
    if (letter === 'D') return around.mainDirectory
    if (letter === 'I') return around.image
    if (letter === 'F') return DEFAULT_FILESYSTEM[String(get('distribution'))] ?? 'ext4'
    if (letter === '' && ignored) return '%'
    const why = `unknown specifier "%${letter}"; write "%%" for a percent sign`
    if (!ignored) throw new Fault('recipe', why)
    ignored(why)
    return ''
  })
}

/** Replaces the specifiers that are filled in when something is made: `&e` in a name for the entry's token. Unknown ones go. */
export function expandDelayedSpecifiers(text: string, values: Readonly<Record<string, string>>): string {
  return text.replace(/&([&a-zA-Z])/g, (_, letter: string) => (letter === '&' ? '&' : (values[letter] ?? '')))
}

/** The root file system that mkosi takes for each distribution. */
const DEFAULT_FILESYSTEM: Readonly<Record<string, string>> = {
  fedora: 'btrfs',
  opensuse: 'btrfs',
  centos: 'xfs',
  alma: 'xfs',
  rocky: 'xfs',
  rhel: 'xfs',
}
