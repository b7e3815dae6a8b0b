/** What files may do to others by their mode: who can write them, and whose rights they run with. */
import type { Finding } from '../link.ts'
import { allFiles, type SystemFacts } from './facts.ts'
import { type FileEntry, type Files, shown, some } from './files.ts'
import { isPrivileged } from './privileged.ts'

/** In a system that nobody can change, nothing is for everyone to write, and devices are made by the kernel. */
export function checkModes(facts: SystemFacts, { evidence, wrong }: Finding): void {
  const writable: string[] = []
  const devices: string[] = []
  let count = 0
  for (const files of allFiles(facts)) {
    for (const [path, entry] of files.entries) {
      count++
      if (isWritableByAll(entry)) writable.push(shown(files, path))
      if (isDevice(entry) && !isExpectedDevice(files, path)) devices.push(shown(files, path))
    }
  }
  evidence(`${count} paths, ${writable.length === 0 ? 'none' : writable.length} writable by everyone`)
  if (writable.length > 0) wrong(`everyone may write ${some(writable)}`, `chmod o-w ${writable[0]}`)
  if (devices.length > 0)
    wrong(
      `device nodes, sockets or pipes where nothing needs them: ${some(devices)}`,
      `remove ${devices[0]!.replace(/ of .*/, '')}`,
    )
}

/** A folder for all, such as /tmp, keeps its files apart by the sticky bit. */
const isWritableByAll = ({ type, mode }: FileEntry): boolean =>
  (mode & 0o002) !== 0 && type !== 'symlink' && type !== 'character' && !(type === 'directory' && (mode & 0o1000) !== 0)

const isDevice = ({ type }: FileEntry): boolean => !['file', 'directory', 'symlink'].includes(type)

/** An initrd, and a root that is mounted before /dev is, brings the few devices that PID 1 needs. A white-out is a device, too. */
const isExpectedDevice = (files: Files, path: string): boolean =>
  /^dev\/(?:null|zero|full|random|urandom|tty|console|kmsg|ptmx)$/.test(path) || (files.name !== '' && path.startsWith('dev/'))

/** Programs that run with others' rights: those that distributions ship so, as they ship them, and no others. */
export function checkPrivileged(facts: SystemFacts, { evidence, wrong }: Finding): void {
  const known: string[] = []
  const strange: string[] = []
  for (const files of allFiles(facts)) {
    const owners = files.name === '' ? packagesOf(files) : undefined
    for (const [path, entry] of files.entries) {
      const rights = rightsOf(entry)
      if (rights === undefined) continue
      const owner = owners?.get(path)
      const unowned = owners !== undefined && owner === undefined
      if (isPrivileged(path, entry, rights) && !unowned) known.push(path.slice(path.lastIndexOf('/') + 1))
      else strange.push(`${shown(files, path)} (${rights}${unowned ? ', of no package' : owner ? `, of ${owner}` : ''})`)
    }
  }
  evidence(known.length === 0 ? 'none' : `${known.length} as distributions ship them: ${some([...new Set(known)].sort(), 16)}`)
  if (strange.length > 0)
    wrong(
      `programs that run with the rights of others, which no distribution is known to ship so: ${some(strange)}`,
      `chmod ug-s ${strange[0]!.split(' ')[0]}, or setcap -r where it says capabilities`,
    )
}

/** `setuid root`, `setgid 42`, `cap_net_raw=ep`; undefined for what runs with its caller's rights. */
function rightsOf({ type, mode, uid, gid, xattrs }: FileEntry): string | undefined {
  if (type !== 'file') return undefined
  const capability = xattrs?.get('security.capability')
  const rights = [
    ...(mode & 0o4000 ? [`setuid ${uid === 0 ? 'root' : uid}`] : []),
    // Without execution for the group the bit means mandatory locks.
    ...(mode & 0o2000 && mode & 0o010 ? [`setgid ${gid === 0 ? 'root' : gid}`] : []),
    ...(capability ? [formatCapability(capability)] : []),
  ]
  return rights.length === 0 ? undefined : rights.join(', ')
}

// biome-ignore format: table
const CAPABILITIES = [
  'chown', 'dac_override', 'dac_read_search', 'fowner', 'fsetid', 'kill', 'setgid', 'setuid', 'setpcap', 'linux_immutable',
  'net_bind_service', 'net_broadcast', 'net_admin', 'net_raw', 'ipc_lock', 'ipc_owner', 'sys_module', 'sys_rawio', 'sys_chroot',
  'sys_ptrace', 'sys_pacct', 'sys_admin', 'sys_boot', 'sys_nice', 'sys_resource', 'sys_time', 'sys_tty_config', 'mknod', 'lease',
  'audit_write', 'audit_control', 'setfcap', 'mac_override', 'mac_admin', 'syslog', 'wake_alarm', 'block_suspend', 'audit_read',
  'perfmon', 'bpf', 'checkpoint_restore',
]

/** A `security.capability` attribute (`struct vfs_ns_cap_data`) as getcap(8) shows it. */
export function formatCapability(bytes: Uint8Array): string {
  if (bytes.length < 12) return 'capabilities that cannot be read'
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const permitted = BigInt(view.getUint32(4, true)) | (bytes.length >= 20 ? BigInt(view.getUint32(12, true)) << 32n : 0n)
  const names = Array.from({ length: 64 }, (_, bit) => bit)
    .filter((bit) => (permitted >> BigInt(bit)) & 1n)
    .map((bit) => `cap_${CAPABILITIES[bit] ?? bit}`)
  return `${names.join(',')}=${view.getUint32(0, true) & 1 ? 'ep' : 'p'}`
}

const DATABASES = ['usr/lib/sysimage/dpkg/info', 'var/lib/dpkg/info']
const MAX_LIST_BYTES = 16 << 20

/** Which package ships a path, by dpkg's lists; undefined where the image has none. */
function packagesOf(files: Files): ReadonlyMap<string, string> | undefined {
  const folder = DATABASES.find((one) => files.names(one).length > 0)
  if (folder === undefined) return undefined
  const owners = new Map<string, string>()
  for (const name of files.names(folder)) {
    if (!name.endsWith('.list')) continue
    const list = files.bytes(`${folder}/${name}`, MAX_LIST_BYTES)
    if (!list) continue
    const owner = name.replace(/(?::\w+)?\.list$/, '')
    for (const line of Buffer.from(list).toString('utf8').split('\n')) {
      // What was packed for / lies in /usr now.
      const path = line.slice(1).replace(/^(?=(?:bin|sbin|lib\w*)\/)/, 'usr/')
      if (path !== '') owners.set(path, owner)
    }
  }
  return owners.size === 0 ? undefined : owners
}
