/** Makes the systems a test asks for, in the namespace: `node driver.ts QUESTION ANSWER`, both JSON files. */
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../../src/base/fault.ts'
import { type Event, Report } from '../../src/base/report.ts'
import { runOutside } from '../../src/build/scripts.ts'
import { makeSystem } from '../../src/build/system.ts'
import type { FetchedPackage } from '../../src/packages/package.ts'
import { loadRecipe } from '../../src/recipe/recipe.ts'
import { readContent } from '../../src/tree/content.ts'

export interface Question {
  recipe: string
  /** Scripts to run outside of an image, before it is made. */
  outside?: readonly ('sync' | 'postoutput' | 'clean')[]
  /** The main one unless given. */
  image?: string
  set: readonly string[]
  packages: readonly FetchedPackage[]
  buildPackages?: readonly FetchedPackage[]
  tools: string
  work: string
  epoch: number
}

export interface Answer {
  /** `type mode uid:gid`, and what links point at, by path. */
  paths: Record<string, string>
  /** Texts of the files below /etc, /usr/lib and /seen, those that are small. */
  texts: Record<string, string>
  /** Of every path, what it is, and all contents. */
  digest: string
  boot: string[]
  notes: string[]
  fault?: { code: string; message: string; hint: string | undefined }
}

const [question, answer] = process.argv.slice(2)
const asked: Question = JSON.parse(readFileSync(question!, 'utf8'))
const notes: string[] = []
const report = new Report((event: Event) => {
  if (event.type === 'note') notes.push(event.message)
})
writeFileSync(answer!, JSON.stringify(await made(asked)))

async function made({ recipe: path, image: name, set, outside = [], ...rest }: Question): Promise<Answer> {
  try {
    const recipe = await loadRecipe(path, { set })
    const image = recipe.subimages.find((image) => image.name === name) ?? recipe
    const { tools, work, epoch } = rest
    const output = join(work, 'output')
    for (const phase of outside) {
      await mkdir(output, { recursive: true })
      await runOutside(phase, { recipe, image, tools, work: join(work, phase), output, epoch, secrets: [] }, report)
    }
    const { tree, boot } = await makeSystem({ recipe, image, secrets: [], ...rest }, report)
    const paths: Record<string, string> = {}
    const texts: Record<string, string> = {}
    const hash = createHash('sha256')
    for (const [name, inode] of tree) {
      const target = inode.type === 'symlink' ? ` ${inode.target}` : ''
      paths[name] = `${inode.type} ${inode.mode.toString(8)} ${inode.uid}:${inode.gid}${target}`
      hash.update(`${name} ${paths[name]} ${inode.mtime}\n`)
      if (inode.type === 'file') hash.update(await readContent(inode.content))
      if (inode.type === 'file' && inode.sizeBytes < 20_000 && /^(?:etc|seen|opt|usr\/lib\/(?!modules|udev))/.test(name))
        texts[name] = Buffer.from(await readContent(inode.content)).toString()
    }
    return { paths, texts, digest: hash.digest('hex'), boot: [...boot.keys()], notes }
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    return {
      paths: {},
      texts: {},
      digest: '',
      boot: [],
      notes,
      fault: { code: error.code, message: error.message, hint: error.hint },
    }
  }
}
