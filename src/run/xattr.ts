/** Extended attributes of a path itself, never of what a symbolic link points at. */
import { getSystemErrorMap } from 'node:util'
import { Fault } from '../base/fault.ts'
import { libc } from './libc.ts'

/** All attributes, sorted by name; empty where the file system knows none. `security.selinux` is the host's, and left out. */
export function readXattrs(path: string): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>()
  for (const name of listXattrs(path)) {
    if (name === 'security.selinux') continue
    const value = getXattr(path, name)
    if (value) found.set(name, value)
  }
  return found
}

export function listXattrs(path: string): string[] {
  const c = libc()
  const size = c.llistxattr(path, scratch, scratch.length)
  if (size === 0) return []
  if (size < 0) {
    if (c.errno() === ENOTSUP) return []
    throw unable('read the attributes of', path)
  }
  return Buffer.from(scratch.subarray(0, size - 1))
    .toString()
    .split('\0')
    .sort()
}

/** The value of an attribute, or nothing where it is not set. */
export function getXattr(path: string, name: string): Uint8Array | undefined {
  const c = libc()
  const size = c.lgetxattr(path, name, scratch, scratch.length)
  if (size >= 0) return scratch.slice(0, size)
  if (c.errno() === ENODATA || c.errno() === ENOTSUP) return undefined
  throw unable(`read attribute ${name} of`, path)
}

export function setXattr(path: string, name: string, value: Uint8Array): void {
  if (libc().lsetxattr(path, name, value, value.length, 0) < 0) throw unable(`set attribute ${name} of`, path)
}

// errno values of Linux on every architecture this runs on
const ENODATA = 61
const ENOTSUP = 95

/** The kernel's largest value and list of names. */
const scratch = new Uint8Array(65536)

function unable(what: string, path: string): Fault {
  const errno = libc().errno()
  const why = getSystemErrorMap().get(-errno)?.[1] ?? `error ${errno}`
  return new Fault('host', `Cannot ${what} ${path}: ${why}`)
}
