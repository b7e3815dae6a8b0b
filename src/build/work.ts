/** Work folders: where a build puts what it makes on the way. Gone when it ends; swept by the next one when it was killed. */
import { rmSync } from 'node:fs'
import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isAbandoned, ownTag } from '../store/owner.ts'
import { diskFault, makeFolder } from '../store/store.ts'

const PREFIX = '.bisque.'
let made = 0

/** Where a work folder lies, what it is for, and how the user chose the place. */
export interface Place {
  parent: string
  what: string
  option: string
}

/** Runs `body` with an empty folder inside `parent`, so that results can be renamed into `parent`. */
export async function withWorkFolder<T>(place: Place, body: (folder: string) => Promise<T>): Promise<T> {
  const { parent } = place
  const folder = join(parent, `${PREFIX}${++made}.${ownTag()}`)
  await onDisk(place, async () => {
    await makeFolder(parent)
    await sweep(parent)
    await mkdir(folder)
  })
  // Ctrl-C ends the process without coming back here.
  const leave = () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  process.on('exit', leave)
  try {
    return await body(folder)
  } finally {
    process.off('exit', leave)
    await rm(folder, { recursive: true, force: true })
  }
}

/** Runs what writes to a place; a full disk, or one that may not be written to, is a Fault that names it. */
export async function onDisk<T>({ parent, what, option }: Place, body: () => Promise<T>): Promise<T> {
  try {
    return await body()
  } catch (error) {
    throw await diskFault(error, parent, what, option)
  }
}

async function sweep(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (!name.startsWith(PREFIX)) continue
    const folder = join(parent, name)
    const owner = name.slice(name.indexOf('.', PREFIX.length) + 1)
    const { mtimeMs } = await stat(folder).catch(() => ({ mtimeMs: 0 }))
    if (isAbandoned(owner, mtimeMs)) await rm(folder, { recursive: true, force: true })
  }
}
