/** The process that `resolve.ts` measures: opens every index of a folder and resolves. Arguments: folder, recommends, packages. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { openIndex } from '../src/packages/deb/index.ts'
import { resolveDebian } from '../src/packages/deb/resolve.ts'

const [folder, recommends, packages] = process.argv.slice(2) as [string, string, string]
const started = performance.now()
const repositories: { id: string; suite: string; priority: number }[] = JSON.parse(
  readFileSync(join(folder, 'repositories'), 'utf8'),
)
const suites = repositories.map((repository) => ({ repository, index: openIndex(readFileSync(join(folder, repository.id))) }))
const opened = performance.now()
const resolved = resolveDebian(suites, {
  packages: packages.split(' '),
  recommends: recommends === 'true',
  architecture: 'amd64',
})
const openMs = Math.round(opened - started)
const resolveMs = Math.round(performance.now() - opened)
process.stdout.write(JSON.stringify({ openMs, resolveMs, packages: resolved.packages.length }))
