import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { decodeSignatureLists, decodeVariableUpdate } from '../formats/esl.ts'
import { openRotation } from '../signing/rotate.ts'
import { enrollLines, keysEnroll } from './enroll.ts'
import { keysGenerate } from './keys.ts'

const { directory: keys, signers } = await testKeys()
const options = { keys, microsoft: [], now: EPOCH }

function temporary(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-enroll-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

test('keys enroll writes each variable as lists and signed, and each certificate by itself', async (t) => {
  const to = join(temporary(t), 'stick')
  const result = await keysEnroll({ ...options, to, microsoft: ['uefi-ca'] })
  const names = ['KEK.auth', 'KEK.esl', 'PK.auth', 'PK.esl', 'db.auth', 'db.cer', 'db.esl', 'kek.cer', 'pk.cer', 'verity.cer']
  assert.deepEqual(readdirSync(to).sort(), names)
  const read = (name: string) => readFileSync(join(to, name))
  for (const role of ['pk', 'kek', 'db', 'verity'] as const)
    assert.deepEqual(read(`${role}.cer`), Buffer.from(signers[role].certificate))
  for (const name of ['PK', 'KEK', 'db']) {
    const { payload, time } = decodeVariableUpdate(read(`${name}.auth`))
    assert.deepEqual([Buffer.from(payload), time], [read(`${name}.esl`), EPOCH])
  }
  const entered = decodeSignatureLists(read('db.esl')).flatMap(({ entries }) => entries.map(({ data }) => Buffer.from(data)))
  assert.deepEqual(entered.slice(0, 2), [read('db.cer'), read('verity.cer')])
  assert.equal(entered.length, 4)
  assert.match(enrollLines(result).join('\n'), /: db\.cer, verity\.cer into db; kek\.cer into KEK; last pk\.cer into PK$/)
})

test('keys enroll needs no private keys but for signed updates, and has both certificates while a rotation is open', async (t) => {
  const folder = temporary(t)
  const own = join(folder, 'keys')
  await keysGenerate({ keys: own, commonName: 'Acme', years: 2, now: EPOCH })
  await openRotation(own, { roles: ['db'], now: EPOCH, years: 2 })
  rmSync(join(own, 'pk.key'))
  const result = await keysEnroll({ ...options, keys: own, to: join(folder, 'to') })
  assert.deepEqual(
    readdirSync(join(folder, 'to'))
      .filter((name) => /\.auth$|^db/.test(name))
      .sort(),
    ['db-next.cer', 'db.cer', 'db.esl'],
  )
  assert.match(enrollLines(result)[1]!, /no \.auth files, .* are not here: pk$/)
})

test('keys enroll refuses what it cannot write, and leaves it as it was', async (t) => {
  const file = join(temporary(t), 'vars.fd')
  await assert.rejects(keysEnroll(options), (e) => e instanceof Fault && e.code === 'usage' && /--ovmf FILE/.test(e.hint ?? ''))
  await assert.rejects(keysEnroll({ ...options, ovmf: file }), (e) => e instanceof Fault && e.code === 'missing')
  writeFileSync(file, 'no firmware')
  const to = join(file, '..', 'to')
  await assert.rejects(keysEnroll({ ...options, ovmf: file, to }), (e) => e instanceof Fault && e.code === 'format')
  assert.equal(readFileSync(file, 'utf8'), 'no firmware')
  assert.ok(!existsSync(to))
})

oracle(
  'virt-fw-vars',
  'reads the keys that keys enroll enters into variables of OVMF, twice with the same end',
  async (_t, judge) => {
    const file = join(judge.dir, 'vars.fd')
    const { stdout } = await judge.run(['find', '/usr/share/OVMF', '-name', 'OVMF_VARS_4M.fd'])
    await judge.run(['cp', stdout.trim().split('\n')[0]!, file])
    assert.match(enrollLines(await keysEnroll({ ...options, ovmf: file })).join('\n'), /enforces Secure Boot/)
    copyFileSync(file, join(judge.dir, 'once.fd'))
    await keysEnroll({ ...options, ovmf: file })
    assert.deepEqual(readFileSync(file), readFileSync(join(judge.dir, 'once.fd')))
    const printed = (await judge.run(['virt-fw-vars', '--input', file, '--print', '--verbose'])).stdout
    for (const name of ['Test Platform Key', 'Test Key Exchange Key', 'Test Secure Boot', 'Test dm-verity'])
      assert.ok(printed.includes(name), name)
    assert.match(printed, /^name=SecureBootEnable .*\n {2}bool: ON$/m)
  },
)
