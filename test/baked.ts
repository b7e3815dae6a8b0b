/** The example images that `test/prepare.ts` baked, and where tests keep what they download. */
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Manifest } from '../src/image/manifest.ts'

/** The cache a person's builds use. */
export const CACHE = process.env['BISQUE_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'bisque')

/** Folders of the artifacts of `examples/minimal` and `examples/particle`. */
export const BAKED = fileURLToPath(new URL('../.bisque/test', import.meta.url))
export const BAKED_PARTICLE = fileURLToPath(new URL('../.bisque/particle', import.meta.url))

const NAME = 'Minimal_1_x86-64'

/** Path of an artifact: `baked('.raw')`. */
export const baked = (suffix: string): string => join(BAKED, `${NAME}${suffix}`)

/** Path of an artifact of `examples/particle`. */
export const particle = (suffix: string): string => join(BAKED_PARTICLE, `Crumb_1_x86-64${suffix}`)

/** Why a test over the baked image cannot run, or false. A skip, visibly; REQUIRE_ORACLES=1 makes it run and fail. */
export const notBaked: string | false =
  existsSync(baked('.raw')) || process.env['REQUIRE_ORACLES'] ? false : 'examples/minimal is not baked; npm test bakes it'

export const bakedManifest = (): Required<Manifest> => JSON.parse(readFileSync(baked('.manifest.json'), 'utf8'))
