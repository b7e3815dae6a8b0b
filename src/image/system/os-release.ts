/** os-release and its kin: what a system and an extension say about themselves. Source: os-release(5), systemd-sysext(8). */

/** Variables to set, quoted as os-release wants them; absent ones are left as they are. */
export type ReleaseFields = Readonly<Record<string, string | undefined>>

/** The text with every field set: in its place where it is there already, appended where not. */
export function withFields(text: string, fields: ReleaseFields): string {
  let result = text === '' || text.endsWith('\n') ? text : `${text}\n`
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined || value === '') continue
    const line = `${key}="${value}"`
    const present = new RegExp(`^${key}=.*$`, 'm')
    result = present.test(result) ? result.replace(present, () => line) : `${result}${line}\n`
  }
  return result
}

/** The variables of an environment file, quotes taken off. */
export function parseFields(text: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [, key, value] = /^\s*([A-Za-z_][A-Za-z0-9_]*)=(.*?)\s*$/.exec(line) ?? []
    if (key !== undefined)
      found.set(
        key,
        value!.replace(/^"(.*)"$|^'(.*)'$/, (_, a, b) => a ?? b),
      )
  }
  return found
}

export interface Extension {
  kind: 'sysext' | 'confext'
  imageId?: string | undefined
  imageVersion?: string | undefined
  architecture: string
  /** Where the extension may be used; mkosi takes it from `SYSEXT_SCOPE` in `Environment=`. */
  scope?: string | undefined
}

/** The release file of an extension: what it says already, then what it must say, after the system it was made upon. */
export function extensionRelease(own: string, system: string, extension: Extension): string {
  const prefix = extension.kind.toUpperCase()
  const [there, base] = [parseFields(own), parseFields(system)]
  const wanted: ReleaseFields = {
    ID: base.get('ID') ?? '_any',
    [`${prefix}_LEVEL`]: base.get(`${prefix}_LEVEL`),
    VERSION_ID: base.get('VERSION_ID'),
    [`${prefix}_ID`]: extension.imageId,
    [`${prefix}_VERSION_ID`]: extension.imageVersion,
    [`${prefix}_SCOPE`]: extension.scope ?? 'initrd system portable',
    ARCHITECTURE: extension.architecture,
  }
  const lines = [...there].map(([key, value]) => `${key}=${value}`)
  for (const [key, value] of Object.entries(wanted)) if (!there.has(key) && value) lines.push(`${key}=${value}`)
  return `${lines.join('\n')}\n`
}
