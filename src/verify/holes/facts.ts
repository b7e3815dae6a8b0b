/** What the checks of a system's holes are given. */
import type { Files } from './files.ts'
import type { Kernel } from './kernel.ts'

export interface SystemFacts {
  /** /usr, or the whole root; undefined where it cannot be read. */
  files: Files | undefined
  /** Of the UKIs. */
  initrds: readonly Files[]
  /** What may be booted. */
  profiles: readonly BootProfile[]
  /** Kernels of the UKIs. */
  kernels: readonly Kernel[]
  /** DER of the certificates the chain ends in: db and verity. */
  trusted: readonly Uint8Array[]
  /** Root hashes are signed. */
  signed: boolean
  /** Firmware starts nothing unsigned. */
  secureBoot: boolean
  /** There is an IPE policy for the kernel to enforce. */
  ipe: boolean
}

export interface BootProfile {
  /** `EFI/Linux/a.efi`, with `profile ID` behind it where there are several. */
  name: string
  commandLine: string
  /** What boots where nobody chooses. */
  isDefault?: boolean
}

/** Words of a command line as the kernel takes them apart: quotes keep spaces. */
export const wordsOf = (commandLine: string): string[] =>
  (commandLine.match(/(?:[^\s"]|"[^"]*")+/g) ?? []).map((word) => word.replaceAll('"', ''))

/** The value of `KEY=`: the last counts. Where the word stands alone, it is ``. */
export const argumentOf = (words: readonly string[], key: string): string | undefined => argumentsOf(words, key).at(-1)

/** All values of `KEY=`. Dashes and underscores of a key are the same; what is said to the initrd alone (`rd.`) counts as well. */
export function argumentsOf(words: readonly string[], key: string): string[] {
  const wanted = plainKey(key)
  return words.flatMap((word) => {
    const [name] = word.split('=', 1) as [string]
    const own = plainKey(name)
    return own === wanted || own === `rd.${wanted}` ? [word.slice(name.length + 1)] : []
  })
}

const plainKey = (key: string): string => key.replaceAll('-', '_')

/** All files of an image: of the system first. */
export const allFiles = ({ files, initrds }: SystemFacts): Files[] => [...(files ? [files] : []), ...initrds]

/** What systemd and the kernel take for a no. */
export const isNo = (value: string): boolean => /^(?:0|n|no|f|false|off)$/i.test(value)
/** What systemd takes for a yes; a word without a value is one. */
export const isYes = (value: string | undefined): boolean => value !== undefined && /^(?:|1|y|yes|t|true|on)$/i.test(value)
