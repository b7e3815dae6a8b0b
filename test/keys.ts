import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateKeys } from '../src/signing/keys.ts'
import { loadSigners } from '../src/signing/load.ts'
import type { Signers } from '../src/signing/signer.ts'

/** 2026-11-23, the time of everything tests sign. */
export const EPOCH = 1_795_392_000

export interface TestKeys {
  /** Folder with the PEM files. */
  directory: string
  signers: Signers
}

let made: Promise<TestKeys> | undefined

/** Fresh keys, made once per test file: private keys are not kept in a repository, not even for tests. */
export function testKeys(): Promise<TestKeys> {
  made ??= make()
  return made
}

async function make(): Promise<TestKeys> {
  const parent = await mkdtemp(join(tmpdir(), 'bisque-keys-'))
  process.on('exit', () => rmSync(parent, { recursive: true, force: true }))
  const directory = join(parent, 'keys')
  await generateKeys(directory, { commonName: 'Test', now: EPOCH - 86_400, years: 10 })
  return { directory, signers: await loadSigners(directory, { epoch: EPOCH }) }
}
