/** ext2, ext3 and ext4 by mke2fs, which takes the tree as a tar stream. */
import { writeFile } from 'node:fs/promises'
import { Fault } from '../../base/fault.ts'
import { alignUp } from '../../base/size.ts'
import type { Inode, Tree } from '../../tree/tree.ts'
import { tarOf } from '../output/tar.ts'
import type { FileSystemRequest } from '../repart/file-system.ts'
import { checkPlain, cutLabel, makeSparse, type Place, refuse, rootOf, runTool, tooSmall } from './tool.ts'

const EXT_LABEL_BYTES = 16
const EXT_LEAST_BYTES = 32 << 20

export async function makeExt(request: FileSystemRequest, place: Place): Promise<void> {
  checkPlain(request)
  if (request.minimize === 'best') throw refuse(request, 'its least size is not known: take Minimize=guess')
  const { tree, sizeBytes } = request
  if (sizeBytes !== undefined) {
    const outcome = await populateExt(request, place, sizeBytes)
    if (outcome !== undefined) throw tooSmall(request, outcome)
    return setExtAttributes(request, place)
  }
  let guess = Math.max(EXT_LEAST_BYTES, alignUp(Math.ceil(extBytes(tree) * 1.5), 1 << 20))
  for (let attempt = 0; ; attempt++) {
    const outcome = await populateExt(request, place, guess)
    if (outcome === undefined) return setExtAttributes(request, place)
    if (attempt === MOST_ATTEMPTS) throw refuse(request, outcome)
    guess = alignUp(Math.ceil(guess * 1.25), 1 << 20)
  }
}

const MOST_ATTEMPTS = 4

/**
 * What a tree takes in ext4 apart from its journal: blocks of files, of folders, of long links and attributes, and inodes.
 * systemd-repart measures this in a file of 1 TiB, where the journal alone takes 1 GiB.
 */
function extBytes(tree: Tree): number {
  const counted = new Set<Inode>()
  let bytes = 1 << 20
  for (const [path, inode] of tree) {
    bytes += 2 * alignUp(8 + Buffer.byteLength(path.slice(path.lastIndexOf('/') + 1)), 4)
    if (counted.has(inode)) continue
    counted.add(inode)
    bytes += 256
    if (inode.type === 'file') bytes += alignUp(inode.sizeBytes, 4096)
    if (inode.type === 'directory' || (inode.type === 'symlink' && Buffer.byteLength(inode.target) > 59)) bytes += 4096
    if (inode.xattrs) bytes += 4096
  }
  return bytes
}

/** Makes and fills the file system; undefined when it worked, else what the program said about room it lacks. */
async function populateExt(request: FileSystemRequest, place: Place, sizeBytes: number): Promise<string | undefined> {
  const { format, tree, uuid, label, sectorSize, epoch } = request
  await makeSparse(place.image, sizeBytes)
  const root = rootOf(tree)
  const extended = [
    'nodiscard',
    'lazy_itable_init=1',
    `hash_seed=${uuid}`,
    `root_owner=${root.uid}:${root.gid}`,
    `root_perms=${root.mode.toString(8)}`,
  ]
  const inodes = Math.ceil(new Set(tree.values()).size * 1.1) + 64
  const argv = [
    ...[`mkfs.${format}`, '-q', '-F', '-L', cutLabel(label, EXT_LABEL_BYTES), '-U', uuid, '-I', '256', '-m', '0'],
    ...['-b', '4096', '-T', 'default', '-E', extended.join(',')],
    ...(inodes > sizeBytes / EXT_BYTES_PER_INODE ? ['-N', `${inodes}`] : []),
    ...(tree.size > 1 ? ['-d', '-'] : []),
    place.image,
  ]
  const env = { E2FSPROGS_FAKE_TIME: `${epoch}`, SOURCE_DATE_EPOCH: `${epoch}`, MKE2FS_DEVICE_SECTSIZE: `${sectorSize}` }
  const input = tree.size > 1 ? tarOf(tree, { epoch }) : undefined
  const outcome = await runTool(place, argv, { env, ...(input ? { input } : {}), allowFailure: true })
  const said = outcome.stderr.trim()
  if (outcome.exitCode === 0) return undefined
  if (/Could not allocate|No space left|no room|not enough space|too small/i.test(said)) return said.split('\n').at(-1)
  throw new Fault('tool', `Cannot make ${format} file system ${label}: ${said || `exit code ${outcome.exitCode}`}`)
}

/** As the distribution's mke2fs.conf has it for `default`. */
const EXT_BYTES_PER_INODE = 16384

/** mke2fs takes no attributes but capabilities from a tar stream: debugfs sets the others. */
async function setExtAttributes(request: FileSystemRequest, place: Place): Promise<void> {
  const { tree, label, epoch } = request
  const commands: string[] = []
  const done = new Set<Inode>()
  for (const [path, inode] of tree) {
    if (inode.type === 'socket' || done.has(inode)) continue
    done.add(inode)
    for (const [name, value] of inode.xattrs ?? []) {
      if (name === 'security.capability' && inode.type === 'file') continue
      const file = `${place.work}/xattr-${commands.length}`
      await writeFile(file, value)
      commands.push(`ea_set -f ${quoted(file, request)} ${quoted(`/${path}`, request)} ${quoted(name, request)}\n`)
    }
  }
  if (commands.length === 0) return
  const env = { E2FSPROGS_FAKE_TIME: `${epoch}`, SOURCE_DATE_EPOCH: `${epoch}`, DEBUGFS_PAGER: 'cat' }
  const { stderr } = await runTool(place, ['debugfs', '-w', '-f', '-', place.image], { env, input: commands.join('') })
  const wrong = stderr.split('\n').filter((line) => line !== '' && !/^debugfs \d/.test(line))
  if (wrong.length > 0) throw new Fault('tool', `Cannot set attributes in file system ${label}: ${wrong[0]}`)
}

/** A word of debugfs's command lines. */
function quoted(word: string, request: FileSystemRequest): string {
  if (word.includes('\n')) throw refuse(request, `the name ${JSON.stringify(word)} has a line break and attributes`)
  return `"${word.replaceAll('"', '""')}"`
}
