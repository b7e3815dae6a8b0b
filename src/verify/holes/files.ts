/** The files of a system as the checks of its holes read them: /usr, a whole root, or an initrd; in memory only where asked for. */
import type { Erofs } from '../../formats/erofs-decode.ts'
import { nameOf, parentOf } from '../../tree/tree.ts'

export interface FileEntry {
  readonly type: 'file' | 'directory' | 'symlink' | 'character' | 'block' | 'fifo' | 'socket'
  /** Permission bits, `0o7777` at most. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly sizeBytes: number
  readonly target?: string
  readonly xattrs?: ReadonlyMap<string, Uint8Array>
}

export interface Files {
  /** What a person knows them by where there are several: `` or `initrd`. */
  readonly name: string
  /** Paths as the running system has them, without a leading slash. */
  readonly entries: ReadonlyMap<string, FileEntry>
  /** A file's bytes; undefined where it is none, larger than that, or cannot be read. Links are followed. */
  bytes(path: string, limitBytes?: number): Uint8Array | undefined
  /** Names in a folder, in byte order. */
  names(folder: string): readonly string[]
}

const TEXT_LIMIT = 1 << 20
const MAX_LINKS = 40

/** A file system whose root is at `at` of the running system: `usr`, or `` for a whole root. */
export function filesOfErofs(erofs: Erofs, at: string): Files {
  const entries = new Map<string, FileEntry>()
  const own = new Map<string, string>()
  for (const [path, inode] of erofs.inodes) {
    const place = path === '' ? at : at === '' ? path : `${at}/${path}`
    entries.set(place, inode)
    own.set(place, path)
  }
  return filesOf('', entries, (path) => {
    const inode = erofs.inodes.get(own.get(path) ?? '')
    return inode?.type === 'file' ? Buffer.concat([...erofs.contents(inode)]) : undefined
  })
}

/** Files of anything: what they are, and how to get at the bytes of one that is no link. */
export function filesOf(
  name: string,
  entries: ReadonlyMap<string, FileEntry>,
  contents: (path: string) => Uint8Array | undefined,
): Files {
  let folders: Map<string, string[]> | undefined
  return {
    name,
    entries,
    bytes(path, limitBytes = TEXT_LIMIT) {
      const real = resolved(entries, path)
      const entry = real === undefined ? undefined : entries.get(real)
      if (entry?.type !== 'file' || entry.sizeBytes > limitBytes) return undefined
      try {
        return contents(real!)
      } catch {
        // That it cannot be decoded is the file system's link to tell.
        return undefined
      }
    },
    names(folder) {
      folders ??= foldersOf(entries)
      return folders.get(resolved(entries, folder) ?? folder) ?? []
    },
  }
}

function foldersOf(entries: ReadonlyMap<string, FileEntry>): Map<string, string[]> {
  const folders = new Map<string, string[]>()
  for (const path of entries.keys()) {
    if (path === '') continue
    const names = folders.get(parentOf(path))
    if (names) names.push(nameOf(path))
    else folders.set(parentOf(path), [nameOf(path)])
  }
  for (const names of folders.values()) names.sort()
  return folders
}

/** Where a path leads when links are followed; undefined where it leads nowhere, or in a circle. */
export function resolved(entries: ReadonlyMap<string, FileEntry>, path: string): string | undefined {
  let rest = path.split('/').filter((part) => part !== '')
  let at: string[] = []
  for (let links = 0; rest.length > 0; ) {
    const [part, ...others] = rest
    rest = others
    if (part === '.') continue
    if (part === '..') {
      at = at.slice(0, -1)
      continue
    }
    const here = [...at, part!]
    const entry = entries.get(here.join('/'))
    if (entry?.type === 'symlink') {
      if (++links > MAX_LINKS) return undefined
      const target = entry.target ?? ''
      if (target.startsWith('/')) at = []
      rest = [...target.split('/').filter((one) => one !== ''), ...rest]
      if (rest.length > 4096) return undefined
    } else at = here
  }
  return at.join('/')
}

export function textOf(files: Files, path: string, limitBytes = TEXT_LIMIT): string | undefined {
  const bytes = files.bytes(path, limitBytes)
  return bytes === undefined ? undefined : Buffer.from(bytes).toString('utf8')
}

/** What is in /etc when a machine runs: of the image, or copied from its factory on first boot. */
const ETC = ['etc', 'usr/share/factory/etc']

/** A configuration file by its path below /etc, wherever the image keeps it. */
export function etcFile(files: Files, path: string): { path: string; text: string } | undefined {
  for (const folder of ETC) {
    const text = textOf(files, `${folder}/${path}`)
    if (text !== undefined) return { path: `${folder}/${path}`, text }
  }
  return undefined
}

/** Folders of a kind of configuration (`systemd/system`, `sysctl.d`), the ones that win first. */
export const configFolders = (folder: string): string[] => [
  ...ETC.map((etc) => `${etc}/${folder}`),
  ...['usr/local/lib', 'usr/lib', 'lib'].map((lib) => `${lib}/${folder}`),
]

/** Files `*SUFFIX` of such folders: of several with one name the first is in force, and one that leads nowhere masks it. */
export function configFiles(files: Files, folders: readonly string[], suffix: string): { path: string; text: string }[] {
  const inForce = new Map<string, string>()
  for (const folder of folders) {
    for (const name of files.names(folder))
      if (name.endsWith(suffix) && !inForce.has(name)) inForce.set(name, `${folder}/${name}`)
  }
  return [...inForce]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, path]) => {
      const text = textOf(files, path)
      return text === undefined ? [] : [{ path, text }]
    })
}

export interface Assignment {
  section: string
  key: string
  value: string
}

/** The lines of a unit file or one like it, in order; continued lines are one. */
export function parseUnit(text: string): Assignment[] {
  const found: Assignment[] = []
  let section = ''
  for (const line of text.replaceAll(/\\\n[ \t]*/g, ' ').split('\n')) {
    if (/^\s*(?:[#;]|$)/.test(line)) continue
    const header = /^\s*\[([^\]]+)\]\s*$/.exec(line)
    if (header) section = header[1]!
    const match = header ? null : /^\s*([^=\s]+)\s*=\s*(.*?)\s*$/.exec(line)
    if (match) found.push({ section, key: match[1]!, value: match[2]! })
  }
  return found
}

/** A few of many, for people. */
export function some(names: readonly string[], most = 5): string {
  if (names.length <= most) return names.join(', ')
  return `${names.slice(0, most).join(', ')} and ${names.length - most} more`
}

/** `/usr/bin/x`, or `/usr/bin/x of the initrd`. */
export const shown = (files: Files, path: string): string => `/${path}${files.name === '' ? '' : ` of the ${files.name}`}`
