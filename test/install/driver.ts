/** Installs packages in a build's namespace, then asks the installed system itself: `node driver.ts QUESTION.json`. */
import { readFileSync } from 'node:fs'
import { Fault } from '../../src/base/fault.ts'
import { Report } from '../../src/base/report.ts'
import { installBuilt } from '../../src/packages/deb/built.ts'
import { installDebian } from '../../src/packages/deb/install.ts'
import type { FetchedPackage } from '../../src/packages/package.ts'
import { runInSandbox } from '../../src/run/sandbox.ts'

export interface Question {
  root: string
  packages: FetchedPackage[]
  /** Packages to take from a folder of built ones afterwards. */
  built?: { folder: string; wanted: string[] }
  /** Shell commands to run in the installed system. */
  commands: string[]
}

export interface Answer {
  fault?: { code: string; message: string }
  setuid?: { path: string; package: string }[]
  /** What each command printed, both streams. */
  said?: string[]
  built?: string[]
}

async function answer({ root, packages, built: from, commands }: Question): Promise<Answer> {
  try {
    const { setuid } = await installDebian({ root, packages, epoch: 1_790_000_000 }, new Report(() => {}))
    const taken = from && (await installBuilt({ root, epoch: 1_790_000_000, withDocs: false, ...from }, new Report(() => {})))
    const built = taken?.map(({ name, version }) => `${name} ${version}`)
    const said: string[] = []
    for (const command of commands) {
      const { stdout, stderr } = await runInSandbox({ root, tmpfs: ['/tmp'] }, ['sh', '-c', command], { allowFailure: true })
      said.push(stdout + stderr)
    }
    return { setuid, said, ...(built ? { built } : {}) }
  } catch (error) {
    if (error instanceof Fault) return { fault: { code: error.code, message: error.message } }
    throw error
  }
}

const [file] = process.argv.slice(2)
if (file !== undefined) console.log(JSON.stringify(await answer(JSON.parse(readFileSync(file, 'utf8')))))
