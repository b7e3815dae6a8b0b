/** Kernels of an installed root: Debian keeps the file in /boot, an image beside its modules. */
import { constants, lstatSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { copyFile, utimes } from 'node:fs/promises'
import { join } from 'node:path'

const VERSION = /\d+\.\d+[\w\-.~^+]*/

/** Copies /boot/vmlinuz-VERSION to /usr/lib/modules/VERSION/vmlinuz where that has none yet. */
export async function placeKernels(root: string): Promise<void> {
  const modules = join(root, 'usr/lib/modules')
  for (const type of ['vmlinuz', 'vmlinux']) {
    for (const name of namesIn(join(root, 'boot'))) {
      const from = join(root, 'boot', name)
      if (!name.startsWith(`${type}-`) || !lstatSync(from).isFile()) continue
      const version = VERSION.exec(name.slice(type.length + 1))?.[0] ?? onlyKernel(modules)
      if (version === undefined || !isFolder(join(modules, version))) continue
      const to = join(modules, version, type)
      const there = lstatSync(to, { throwIfNoEntry: false })
      if (there?.isSymbolicLink() && /^(?:\.\.\/)*\/?boot\//.test(readlinkSync(to))) rmSync(to)
      else if (there) continue
      await copyFile(from, to, constants.COPYFILE_FICLONE)
      const { atime, mtime } = lstatSync(from)
      await utimes(to, atime, mtime)
    }
  }
}

/** Versions below /usr/lib/modules that hold more than what updates left there. */
export function installedKernels(root: string): string[] {
  const modules = join(root, 'usr/lib/modules')
  return namesIn(modules).filter((version) => {
    const names = isFolder(join(modules, version)) ? namesIn(join(modules, version)) : []
    return names.some((name) => name !== 'updates')
  })
}

function onlyKernel(modules: string): string | undefined {
  const versions = namesIn(modules).filter((name) => VERSION.test(name))
  return versions.length === 1 ? versions[0] : undefined
}

const isFolder = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true
const namesIn = (path: string): string[] => (isFolder(path) ? readdirSync(path).sort() : [])
