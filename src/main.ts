/** Where the process begins. What is imported here is imported before Node's compile cache is on, so it is next to nothing. */
import { enableCompileCache } from 'node:module'
import { homedir } from 'node:os'
import { join } from 'node:path'

// Halves the time to the first line of output. Where the folder cannot be written, Node does without.
enableCompileCache(join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'bisque', 'compile'))
const { main } = await import('./cli/main.ts')
process.exitCode = await main(process.argv.slice(2))
