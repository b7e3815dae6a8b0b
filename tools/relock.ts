// Writes tools/*.lock anew from today's archive: `node tools/relock.ts [CACHE]`.
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Report } from '../src/base/report.ts'
import { relockTools } from '../src/build/tools.ts'
import { packagesIn } from '../src/packages/lock.ts'
import { openStore } from '../src/store/store.ts'

const cache = process.argv[2] ?? join(homedir(), '.cache/bisque')
const report = new Report((event) => {
  if (event.type === 'end') console.log(`${event.failed ? 'failed' : 'done'} in ${event.ms} ms`)
  if (event.type === 'start') console.log(event.name)
})
const env = { cache, store: await openStore(cache), report, now: new Date(), offline: false }
for (const name of ['vm', 'mkfs', 'scripts', 'judge'] as const) console.log(name, packagesIn(await relockTools(name, env), 'tools').length, 'packages')
