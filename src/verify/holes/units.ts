/** Units of systemd in an image: with their drop-ins, and what is started of them. */
import { type Assignment, configFolders, type FileEntry, type Files, parseUnit, resolved, textOf } from './files.ts'

export interface Unit {
  name: string
  path: string
  assignments: Assignment[]
  /** Something wants it: a link in a `.wants` or `.requires` folder, an alias, or a preset enables it. */
  started: boolean
}

const MAX_UNITS = 20_000

/** Every unit whose name matches, those masked left out. */
export function unitsOf(files: Files, wanted: RegExp): Unit[] {
  const folders = configFolders('systemd/system')
  const links = startedUnits(files, folders)
  const found = new Map<string, Unit>()
  for (const folder of folders) {
    for (const name of files.names(folder)) {
      if (!wanted.test(name) || found.has(name) || found.size >= MAX_UNITS) continue
      const path = `${folder}/${name}`
      if (isMask(files.entries.get(path))) {
        found.set(name, { name, path, assignments: [], started: false })
        continue
      }
      const text = textOf(files, path)
      if (text === undefined) continue
      const assignments = [parseUnit(text), ...dropIns(files, folders, name)].flat()
      found.set(name, { name, path, assignments, started: links.has(name) })
    }
  }
  return [...found.values()].filter(({ assignments }) => assignments.length > 0)
}

const isMask = (entry: FileEntry | undefined): boolean => entry?.type === 'symlink' && entry.target === '/dev/null'

function dropIns(files: Files, folders: readonly string[], name: string): Assignment[][] {
  const template = name.replace(/@.*(\.\w+)$/, '@$1')
  const kind = /\.\w+$/.exec(name)?.[0]?.slice(1) ?? 'service'
  const places = [...new Set([`${kind}.d`, `${template}.d`, `${name}.d`])].flatMap((place) =>
    folders.map((folder) => `${folder}/${place}`),
  )
  return places.flatMap((place) =>
    files
      .names(place)
      .filter((file) => file.endsWith('.conf'))
      .map((file) => parseUnit(textOf(files, `${place}/${file}`) ?? '')),
  )
}

/** Names under which something in `.wants` and `.requires` folders asks for units, and of instances their templates. */
function startedUnits(files: Files, folders: readonly string[]): ReadonlySet<string> {
  const started = new Set<string>()
  for (const folder of folders) {
    for (const name of files.names(folder)) {
      const path = `${folder}/${name}`
      if (/\.(?:wants|requires|upholds)$/.test(name)) {
        for (const unit of files.names(path)) {
          if (isMask(files.entries.get(`${path}/${unit}`))) continue
          started.add(unit)
          started.add(unit.replace(/@.*(\.\w+)$/, '@$1'))
        }
      }
      // An alias such as default.target or dbus.service.
      const entry = files.entries.get(path)
      const target = entry?.type === 'symlink' && !isMask(entry) ? resolved(files.entries, path) : undefined
      if (target !== undefined) started.add(target.slice(target.lastIndexOf('/') + 1))
    }
  }
  return started
}

/** The last value of a setting; undefined where there is none. */
export const settingOf = ({ assignments }: Unit, key: string): string | undefined =>
  assignments.findLast((one) => one.key === key)?.value

/** All values of a setting that lists, since it was emptied last. */
export function settingsOf({ assignments }: Unit, key: string): string[] {
  const values = assignments.filter((one) => one.key === key).map(({ value }) => value)
  return values.slice(values.lastIndexOf('') + 1)
}
