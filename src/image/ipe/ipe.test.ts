import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { type Judge, oracle } from '../../../test/oracle.ts'
import { decideIpe, lintIpePolicy, parseIpePolicy } from '../../formats/ipe-policy.ts'
import type { Tree } from '../../tree/tree.ts'
import { ipeInitrd, policyPath } from './initrd.ts'
import { ipePolicies } from './policy.ts'
import { ipeGuard, sealScript } from './scripts.ts'
import { ipeSystem } from './system.ts'

const made = ipePolicies({ imageId: 'Acme', ipePolicy: undefined })
const sign = (one: { name: string; text: string }) => ({ ...one, signed: Buffer.from(`signed ${one.text}`) })
const initrd = (mode: 'enforce' | 'profile' | 'permissive'): Tree =>
  ipeInitrd({ mode, policy: sign(made.policy), booted: sign(made.booted), epoch: 0 })
const textOf = (tree: Tree, path: string): string => {
  const inode = tree.get(path)
  assert.ok(inode?.type === 'file' && 'bytes' in inode.content, path)
  return Buffer.from(inode.content.bytes).toString()
}

test('the policy allows what came with the initrd or lies on a signed volume, and nothing else', () => {
  const policy = parseIpePolicy(made.policy.text)
  assert.deepEqual(lintIpePolicy(made.policy.text), [])
  for (const operation of ['EXECUTE', 'KMODULE', 'FIRMWARE', 'KEXEC_IMAGE', 'KEXEC_INITRAMFS', 'POLICY', 'X509_CERT'] as const) {
    assert.equal(decideIpe(policy, operation, { boot_verified: true }).action, 'ALLOW')
    assert.equal(decideIpe(policy, operation, { dmverity_signature: true }).action, 'ALLOW')
    assert.equal(decideIpe(policy, operation, { fsverity_signature: true }).action, 'DENY')
    assert.equal(decideIpe(policy, operation, {}).action, 'DENY')
  }
})

test('the policy of the booted system allows the initrd nothing', () => {
  const policy = parseIpePolicy(made.booted.text)
  assert.deepEqual(lintIpePolicy(made.booted.text), [])
  assert.equal(policy.name, 'Acme-booted')
  assert.equal(decideIpe(policy, 'EXECUTE', { boot_verified: true }).action, 'DENY')
  assert.equal(decideIpe(policy, 'EXECUTE', { dmverity_signature: true }).action, 'ALLOW')
})

test("a recipe's rules come before those that are made, in both policies", () => {
  const rule = { operation: 'EXECUTE', properties: [{ name: 'fsverity_signature', value: true }], action: 'ALLOW' } as const
  const { policy, booted } = ipePolicies({ imageId: 'Acme', ipePolicy: { name: 'own', version: '3.0.0', rules: [rule] } })
  for (const { text } of [policy, booted]) {
    assert.match(
      text,
      /^policy_name=own(-booted)? policy_version=3\.0\.0\nDEFAULT action=DENY\nop=EXECUTE fsverity_signature=TRUE action=ALLOW\n/,
    )
  }
})

test('a policy of the recipe is taken to the byte', () => {
  const text = '# ours\npolicy_name=own policy_version=0.1.0\r\nDEFAULT action=ALLOW\n'
  const { policy, booted } = ipePolicies({ imageId: 'Acme', ipePolicy: { rules: [], text } })
  assert.deepEqual(policy, { name: 'own', text })
  assert.equal(booted.name, 'own-booted')
})

test('the initrd has the policy where PID 1 looks for it, and only there what it is to load', () => {
  const tree = initrd('enforce')
  assert.deepEqual(
    [...tree.keys()].filter((path) => path.endsWith('.p7b')),
    ['usr/lib/bisque/ipe-booted.p7b', policyPath('Acme')],
  )
  assert.equal(textOf(tree, 'usr/lib/bisque/ipe-policy'), made.policy.text)
  assert.deepEqual(
    [...initrd('permissive')].flatMap(([path, { type }]) => (type === 'file' ? [path] : [])),
    [policyPath('Acme')],
  )
  assert.ok(!initrd('profile').has('etc/systemd/system/emergency.service'))
})

test('the same policy gives the same trees', () => {
  assert.deepEqual(initrd('enforce'), initrd('enforce'))
  const options = { mode: 'enforce', booted: made.booted, epoch: 5 } as const
  assert.deepEqual(ipeSystem(options), ipeSystem(options))
})

/** The files that the kernel has for policies, as plain ones. */
function securityfs(judge: Judge, files: Readonly<Record<string, string>>): string {
  for (const [path, text] of Object.entries(files)) {
    const file = join(judge.dir, 'ipe', path)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text)
  }
  return join(judge.dir, 'ipe')
}

const LOADED = { enforce: '1', 'policies/Acme/active': '1', 'policies/Acme/policy': made.policy.text }

async function guard(
  judge: Judge,
  files: Readonly<Record<string, string>>,
  mode: 'enforce' | 'profile' = 'enforce',
  cmdline = 'quiet',
) {
  const ipe = securityfs(judge, files)
  const at = (name: string, text: string) => {
    writeFileSync(join(judge.dir, name), text)
    return join(judge.dir, name)
  }
  const script = at('guard', ipeGuard({ name: 'Acme', mode }))
  const env = {
    BISQUE_IPE: ipe,
    BISQUE_CMDLINE: at('cmdline', `${cmdline}\n`),
    BISQUE_POLICY: at('expected', made.policy.text),
    BISQUE_CONSOLE: at('console', ''),
    BISQUE_DELAY: '0',
  }
  const assignments = Object.entries(env).map(([name, value]) => `${name}=${value}`)
  const { exitCode, stderr } = await judge.run(['env', ...assignments, 'sh', script], { allowFailure: true })
  return { exitCode, stderr, console: readFileSync(env.BISQUE_CONSOLE, 'utf8') }
}

oracle('sh', 'the guard lets a boot go on whose policy is in force', async (_t, judge) => {
  assert.deepEqual(await guard(judge, LOADED), { exitCode: 0, stderr: '', console: '' })
})

for (const [what, change, message] of [
  ['a policy that is not active', { 'policies/Acme/active': '0' }, 'the IPE policy Acme is not the active one'],
  [
    'a policy of the same name',
    { 'policies/Acme/policy': made.policy.text.replace('DENY', 'ALLOW') },
    'the IPE policy Acme is not the one of this image',
  ],
  [
    'a kernel that does not enforce',
    { enforce: '0' },
    'IPE does not enforce its policy; ipe.enforce= on the kernel command line must be 1',
  ],
] as const) {
  oracle('sh', `the guard stops at ${what}, and says so on the console`, async (_t, judge) => {
    const { exitCode, console } = await guard(judge, { ...LOADED, ...change })
    assert.deepEqual({ exitCode, console }, { exitCode: 1, console: `Cannot boot: ${message}; restarting in 10 s\n` })
  })
}

oracle('sh', 'the guard stops where no policy is loaded, and where there is no IPE', async (_t, judge) => {
  assert.match((await guard(judge, {})).console, /this kernel has no IPE, or it was left out of lsm=/)
  assert.match((await guard(judge, { enforce: '1' })).console, /the IPE policy Acme is not loaded/)
})

oracle('sh', 'where the choice is left to a profile, the guard asks only where the command line says so', async (_t, judge) => {
  assert.equal((await guard(judge, { enforce: '0' }, 'profile', 'ipe.enforce=0 quiet')).exitCode, 0)
  assert.equal((await guard(judge, { enforce: '0' }, 'profile', 'ipe.enforce=0 quiet ipe.enforce=1')).exitCode, 1)
  // The word that the profile signed is still there when another one came behind it.
  assert.equal((await guard(judge, { enforce: '0' }, 'profile', 'ipe.enforce=1 ipe.enforce=0')).exitCode, 1)
})

oracle(
  'bash',
  'the seal loads the policy of the booted system at once, and activates it when the initrd has been left, not when it ends otherwise',
  async (_t, judge) => {
    const ipe = securityfs(judge, { ...LOADED, new_policy: '', 'policies/Acme-booted/active': '1' })
    const proc = join(judge.dir, 'proc')
    mkdirSync(join(proc, '1'), { recursive: true })
    for (const name of ['there', 'initrd', 'host', 'sysrq-trigger', 'kmsg']) writeFileSync(join(judge.dir, name), '')
    writeFileSync(join(judge.dir, 'signed'), 'signed policy')
    writeFileSync(join(judge.dir, 'seal'), sealScript({ name: 'Acme', booted: 'Acme-booted' }))
    const script = `
ln -s ../../initrd ${proc}/1/exe
env BISQUE_IPE=${ipe} BISQUE_POLICY=${judge.dir}/signed BISQUE_PROC=${proc} BISQUE_IDLE=${judge.dir}/idle BISQUE_KMSG=${judge.dir}/kmsg BISQUE_INITRD=${judge.dir}/there \\
  bash -c 'mkdir ${proc}/$$; ln -s /proc/$$/fd ${proc}/$$/fd; exec bash -p ${judge.dir}/seal' &
sleep 1
echo "before: $(cat ${ipe}/new_policy) $(cat ${ipe}/policies/Acme-booted/active)"
ln -sfn ../../host ${proc}/1/exe
sleep 0.5; echo "shutdown: $(cat ${ipe}/policies/Acme-booted/active)"
rm ${judge.dir}/there
wait $!; echo "after: $? $(cat ${ipe}/policies/Acme-booted/active)"
cat ${judge.dir}/kmsg ${proc}/sysrq-trigger`
    writeFileSync(join(judge.dir, 'test'), script)
    chmodSync(join(judge.dir, 'test'), 0o755)
    const { stdout } = await judge.run(['bash', join(judge.dir, 'test')])
    assert.equal(stdout, 'before: signed policy \nshutdown: \nafter: 0 1\n')
  },
)

oracle('systemd-analyze', 'systemd-analyze finds nothing wrong with the units', async (_t, judge) => {
  const trees = [initrd('enforce'), ipeSystem({ mode: 'enforce', booted: made.booted, epoch: 0 })]
  for (const [i, tree] of trees.entries()) {
    const names: string[] = []
    for (const [path, inode] of tree) {
      if (inode.type !== 'file' || !path.endsWith('.service')) continue
      const name = path
        .split('/')
        .at(-1)!
        .replace(/^(emergency|rescue)/, 'bisque-$1')
      const text = textOf(tree, path).replace(/\/usr\/lib\/bisque\/\S+/g, '/bin/true')
      writeFileSync(join(judge.dir, `${i}-${name}`), text)
      names.push(`./${i}-${name}`)
    }
    const { exitCode, stderr } = await judge.run(['systemd-analyze', 'verify', '--man=no', ...names], { allowFailure: true })
    assert.doesNotMatch(stderr, /bisque/)
    assert.equal(exitCode, 0, stderr)
  }
})
