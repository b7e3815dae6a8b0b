/** Work folders: where a build puts what it makes on the way. Gone when it ends; swept by the next one when it was killed. */
import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isAbandoned, ownTag } from '../store/owner.ts'

const PREFIX = '.bisque.'
let made = 0

/** Runs `body` with an empty folder inside `parent`, so that results can be renamed into `parent`. */
export async function withWorkFolder<T>(parent: string, body: (folder: string) => Promise<T>): Promise<T> {
  await mkdir(parent, { recursive: true })
  await sweep(parent)
  const folder = join(parent, `${PREFIX}${++made}.${ownTag()}`)
  await mkdir(folder)
  try {
    return await body(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
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
