/** The configurations that ship with Bisque, which `Include=` names without a path. */
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const FOLDER = fileURLToPath(new URL('../builtin/', import.meta.url))

export const BUILTIN_CONFIGS: readonly string[] = ['mkosi-initrd', 'mkosi-vm', 'mkosi-addon']
/** Names that mkosi has and Bisque has not. */
export const OTHER_CONFIGS: readonly string[] = ['mkosi-tools', 'mkosi-obs']

export const builtinFolder = (name: string): string => join(FOLDER, name)

/** The path below the built-in configurations, if it lies there. */
export function builtinName(file: string): string | undefined {
  const path = relative(FOLDER, file)
  return path.startsWith('..') ? undefined : path
}
