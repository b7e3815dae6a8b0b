/** Whole folders of nonsense and near-sense: each is a recipe or a Fault, at once. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fault } from '../../base/fault.ts'
import { loadRecipe } from '../recipe.ts'
import { KEYS, mkosiName, ROWS } from '../schema.ts'

const value = fc.oneof(
  fc.constantFrom(
    '',
    'yes',
    'no',
    'auto',
    '!sid',
    '|sid',
    '|!x',
    '>=2',
    'a b,c',
    '/',
    '.',
    '..',
    'default',
    '%i',
    '%%',
    '%',
    '%C/%P',
    '4G',
    '-1',
    '0644',
    'a:/b',
  ),
  fc.constantFrom(
    'mkosi.conf',
    'mkosi.conf.d',
    'mkosi-initrd',
    'mkosi-vm',
    '~/x',
    '$HOME',
    '"',
    "'",
    'A=1 B',
    '*',
    '[',
    '**',
    'hashed:$6$',
  ),
  fc.string({ maxLength: 20 }),
)
const setting = fc.constantFrom(...KEYS.map(mkosiName), 'Image', 'PathExists', 'SystemdVersion', 'HostArchitecture', 'Nonsense')
const section = fc.constantFrom(
  ...new Set(KEYS.map((key) => ROWS[key]!.section)),
  'Match',
  'TriggerMatch',
  'Assert',
  'TriggerAssert',
  'UKIProfile',
  'X',
)
const content = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .array(fc.tuple(section, setting, value), { maxLength: 8 })
      .map((all) => all.map(([s, k, v]) => `[${s}]\n${k}=${v}\n`).join('')),
  },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 60 }) },
)
const file = fc.constantFrom(
  'mkosi.conf',
  'mkosi.local.conf',
  'mkosi.initrd.conf',
  'mkosi.conf.d/a.conf',
  'mkosi.conf.d/b/mkosi.conf',
  'mkosi.profiles/a.conf',
  'mkosi.profiles/b/mkosi.conf',
  'mkosi.images/a.conf',
  'mkosi.images/b/mkosi.conf',
  'mkosi.uki-profiles/a.conf',
  'mkosi.version',
  'mkosi.seed',
  'mkosi.rootpw',
  'mkosi.extra/a',
  'mkosi.credentials',
  'mkosi.build.d/x',
)

test('any folder is a recipe or a Fault', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-fuzz-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  let n = 0
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(file, content), { maxLength: 6 }),
      fc.array(fc.tuple(setting, value), { maxLength: 2 }),
      async (files, set) => {
        const folder = join(directory, String(n++))
        for (const [name, text] of [['mkosi.conf', ''] as const, ...files]) {
          mkdirSync(dirname(join(folder, name)), { recursive: true })
          writeFileSync(join(folder, name), text)
        }
        const options = { profiles: n % 3 === 0 ? ['a', 'b'] : [], set: set.map(([k, v]) => `${k}=${v}`), env: { HOME: '/root' } }
        try {
          await loadRecipe(folder, options)
        } catch (error) {
          if (!(error instanceof Fault)) throw error
        }
      },
    ),
    { numRuns: 300, interruptAfterTimeLimit: 20_000 },
  )
})
