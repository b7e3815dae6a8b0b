/** A real token for tests: SoftHSM in the tools tree of judges, with the module's process beside it. */
import { randomInt } from 'node:crypto'
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Running } from '../src/run/process.ts'
import { startInSandbox } from '../src/run/sandbox.ts'
import { openTokens, type Tokens } from '../src/signing/pkcs11.ts'
import { KEY_ROLES } from '../src/signing/signer.ts'
import { JUDGES, type Judge } from './oracle.ts'

export const SOFTHSM = '/usr/lib/softhsm/libsofthsm2.so'
/** Another one for each file of tests: it is looked for among all processes. */
export const PIN = `${randomInt(10_000_000, 100_000_000)}`

export interface Token {
  /** Where SoftHSM keeps it. */
  store: string
  /** Runs a tool with this token's configuration. */
  run(...argv: string[]): Promise<void>
  /** Opens modules in the tree; `started` has their processes. Memory that nothing refers to is taken back all the time. */
  open(env?: Readonly<Record<string, string>>, options?: { timeoutMs?: number }): Tokens & { started: Running[] }
}

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '')
const INSIDE = '/tmp/bisque'

/** Initialises an empty token `Test`. */
export async function makeToken(judge: Judge, settings: readonly string[] = []): Promise<Token> {
  const [store, conf] = [join(judge.dir, 'tokens'), join(judge.dir, 'softhsm2.conf')]
  mkdirSync(store, { recursive: true })
  writeFileSync(conf, [`directories.tokendir = ${store}`, 'log.level = ERROR', ...settings, ''].join('\n'))
  const run = async (...argv: string[]) => void (await judge.run(['env', `SOFTHSM2_CONF=${conf}`, ...argv]))
  await run('softhsm2-util', '--init-token', '--free', '--label', 'Test', '--pin', PIN, '--so-pin', '5678')
  return {
    store,
    run,
    open(env = {}, options = {}) {
      const started: Running[] = []
      const launch = (argv: readonly string[], given: Readonly<Record<string, string>>) => {
        const binds = [
          { source: REPOSITORY, target: INSIDE },
          { source: judge.dir, target: judge.dir, writable: true },
        ]
        const sandbox = { root: JUDGES!, tmpfs: ['/tmp', '/run'], binds, env: given }
        const running = startInSandbox(
          sandbox,
          collecting(argv).map((word) => word.replaceAll(REPOSITORY, INSIDE)),
        )
        started.push(running)
        return running
      }
      return Object.assign(openTokens({ SOFTHSM2_CONF: conf, ...env }, { launch, ...options }), { started })
    },
  }
}

/** What a module still needs must not go with the garbage. */
const collecting = (argv: readonly string[]): string[] =>
  argv.flatMap((word) =>
    word === '--eval' ? ['--expose-gc', word] : [word.replace(/^import\(/, 'setInterval(gc, 20).unref(); $&')],
  )

/** Imports the key of a PEM file. */
export async function importKey(token: Token, path: string, label: string, id: string): Promise<void> {
  await token.run('softhsm2-util', '--import', path, '--token', 'Test', '--label', label, '--id', id, '--pin', PIN)
}

/** A folder of keys whose private keys are in the token: certificates, the owner, and where the keys are. */
export async function moveToToken(judge: Judge, token: Token, keys: string, module = SOFTHSM): Promise<string> {
  const [folder, from] = [join(judge.dir, 'keys'), join(judge.dir, 'from')]
  cpSync(keys, from, { recursive: true })
  mkdirSync(folder, { mode: 0o700 })
  for (const [i, role] of KEY_ROLES.entries()) {
    await importKey(token, join(from, `${role}.key`), role, `0${i + 1}`)
    cpSync(join(from, `${role}.crt`), join(folder, `${role}.crt`))
    writeFileSync(join(folder, `${role}.signer`), `pkcs11:token=Test;object=${role}?module-path=${module}\n`)
  }
  cpSync(join(from, 'owner.guid'), join(folder, 'owner.guid'))
  writeFileSync(join(folder, 'signer.pin'), `${PIN}\n`, { mode: 0o600 })
  rmSync(from, { recursive: true })
  return folder
}
