/** The few calls of libc that Node does not offer. Loaded on first use: that takes 50 ms. */
import koffi from 'koffi'
import { Fault } from '../base/fault.ts'

export interface Libc {
  pipe2(fds: Int32Array, flags: number): number
  close_range(first: number, last: number, flags: number): number
  llistxattr(path: string, list: Uint8Array | null, size: number): number
  lgetxattr(path: string, name: string, value: Uint8Array | null, size: number): number
  lsetxattr(path: string, name: string, value: Uint8Array, size: number, flags: number): number
  mkfifo(path: string, mode: number): number
  errno(): number
}

/** Makes a named pipe; its mode is the caller's to set. */
export function makeFifo(path: string): void {
  if (libc().mkfifo(path, 0o600) !== 0) throw new Fault('host', `Cannot make the named pipe ${path}: error ${libc().errno()}`)
}

let loaded: Libc | undefined

export function libc(): Libc {
  if (loaded) return loaded
  const lib = open()
  loaded = {
    pipe2: lib.func('int pipe2(_Inout_ int32_t *fds, int flags)'),
    close_range: optional(() => lib.func('int close_range(unsigned int first, unsigned int last, int flags)')),
    llistxattr: lib.func('long llistxattr(const char *path, _Out_ uint8_t *list, size_t size)'),
    lgetxattr: lib.func('long lgetxattr(const char *path, const char *name, _Out_ uint8_t *value, size_t size)'),
    lsetxattr: lib.func('int lsetxattr(const char *path, const char *name, const uint8_t *value, size_t size, int flags)'),
    mkfifo: lib.func('int mkfifo(const char *path, unsigned int mode)'),
    errno: () => koffi.errno(),
  } as Libc
  return loaded
}

/** glibc of Debian and its kin, or musl. */
function open() {
  for (const name of ['libc.so.6', 'libc.so']) {
    try {
      return koffi.load(name)
    } catch {
      // the next one
    }
  }
  throw new Fault('host', 'Cannot load the C library: neither libc.so.6 nor libc.so is there')
}

/** close_range came with glibc 2.34; without it, inherited descriptors stay. */
function optional<F>(load: () => F): F | (() => number) {
  try {
    return load()
  } catch {
    return () => 0
  }
}
