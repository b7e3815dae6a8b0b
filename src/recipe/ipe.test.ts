import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Fault } from '../base/fault.ts'
import { ipePolicy } from './ipe.ts'
import { loadRecipe } from './recipe.ts'

const directory = mkdtempSync(join(tmpdir(), 'bisque-ipe-'))
after(() => rmSync(directory, { recursive: true, force: true }))
const place = { directory, env: {} }
const DIGEST = `sha256:${'0a'.repeat(32)}`

test('ipePolicy takes rules in the words of recipe.ts', () => {
  const value = ipePolicy.check(
    {
      name: 'acme',
      version: '2.0.1',
      rules: [{ op: ['EXECUTE', 'KMODULE'], fsverityDigest: DIGEST, dmveritySignature: false, action: 'ALLOW' }],
    },
    place,
  )
  const properties = [
    { name: 'fsverity_digest', value: DIGEST },
    { name: 'dmverity_signature', value: false },
  ]
  assert.deepEqual(value, {
    name: 'acme',
    version: '2.0.1',
    rules: [
      { operation: 'EXECUTE', properties, action: 'ALLOW' },
      { operation: 'KMODULE', properties, action: 'ALLOW' },
    ],
  })
  assert.deepEqual(ipePolicy.check(value, place), value) // profiles evaluate it again
})

test('ipePolicy refuses what is no policy', () => {
  const rule = { op: 'EXECUTE', action: 'ALLOW' }
  for (const [input, message] of [
    [[], /expected a path, or an object/],
    [{ nam: 'x' }, /expected name, version or rules, got "nam"/],
    [{ name: 'a b' }, /policy:1:15: expected policy_version=/],
    [{ version: '1.0' }, /such as "1\.0\.0"/],
    [{ version: '1.0.70000' }, /at most 65535/],
    [{ rules: [{ ...rule, op: 'EXEC' }] }, /expected op: one of EXECUTE/],
    [{ rules: [{ ...rule, action: 'allow' }] }, /expected action: ALLOW or DENY, got "allow"/],
    [{ rules: [{ ...rule, fsverity: true }] }, /expected one of bootVerified.*got "fsverity"/],
    [{ rules: [{ ...rule, bootVerified: 'yes' }] }, /expected bootVerified: true or false/],
    [{ rules: [{ ...rule, dmverityRoothash: 'sha256:0' }] }, /expected dmverityRoothash: a digest/],
    [{ rules: [{ ...rule, dmverityRoothash: 'sha256:00 action=ALLOW' }] }, /expected dmverityRoothash: a digest/],
  ] as const) {
    assert.throws(
      () => ipePolicy.check(input, place),
      (error) => error instanceof Fault && message.test(error.message),
      JSON.stringify(input),
    )
  }
})

test('ipePolicy reads a file, and says where in it the kernel would refuse it', () => {
  const text = 'policy_name=own policy_version=0.0.1\nDEFAULT action=DENY\nop=EXECUTE boot_verified=TRUE action=ALLOW\n'
  writeFileSync(join(directory, 'good.pol'), text)
  assert.deepEqual(ipePolicy.parse('good.pol', place), { rules: [], text, source: join(directory, 'good.pol') })
  writeFileSync(join(directory, 'bad.pol'), text.replace('EXECUTE', 'EXECUTES'))
  assert.throws(() => ipePolicy.parse('bad.pol', place), /bad\.pol:3:4: unknown operation "EXECUTES"; did you mean "EXECUTE"\?/)
  assert.throws(() => ipePolicy.parse('none.pol', place), /expected a file that is there/)
})

async function load(settings: string): Promise<{ ipe: string } | string> {
  writeFileSync(join(directory, 'recipe.ts'), `export default { release: 'trixie', ${settings} }\n`)
  return loadRecipe(directory, { set: [`Environment=X=${Math.random()}`] }).then(
    ({ settings }) => ({ ipe: settings.ipe }),
    (error: Error) => error.message,
  )
}

test('Ipe= is enforce where /usr is signed and firmware gets its key, and off elsewhere', async () => {
  for (const [settings, ipe] of [
    ['', 'enforce'],
    ['secureBoot: false', 'off'],
    ["verity: 'hash'", 'off'],
    ['hermeticUsr: false', 'off'],
    ['ipe: false', 'off'],
    ["ipe: 'profile', kernelCommandLine: ['lsm=lockdown,ipe', 'ipe.enforce=0']", 'profile'],
    ["kernelCommandLine: ['ipe.enforce=1']", 'enforce'],
  ] as const)
    assert.deepEqual(await load(settings), { ipe }, settings)
})

test('Ipe= says what would leave it without effect', async () => {
  for (const [settings, message] of [
    ['ipe: true, secureBoot: false', /ipe: the kernel trusts the policy by a key of Secure Boot, which is off/],
    ["ipe: true, verity: 'hash'", /ipe: nothing could be executed but the initrd, as verity is "hash"/],
    ["ipe: true, format: 'tar'", /ipe: it is for disks, and the format is tar/],
    ["kernelCommandLine: ['ipe.enforce=0']", /kernelCommandLine: "ipe\.enforce=0" would undo what ipe: 'enforce' says/],
    ["kernelCommandLine: ['lsm=lockdown,yama']", /"lsm=lockdown,yama" would undo/],
    ["ipe: false, ipePolicy: { name: 'x' }", /ipePolicy: without effect where ipe is "off"/],
  ] as const)
    assert.match(String(await load(settings)), message)
})
