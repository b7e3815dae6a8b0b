/**
 * IPE on the baked example: the kernel judges policies as the linter does, and a boot that is not enforced stops.
 *
 * None of these machines gets further than its initrd. The first executes a script in place of PID 1: whoever may add words
 * to the command line can have that, before any policy, and with the capability that the booted system lacks.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { formatIpeProblem, lintIpePolicy } from '../../src/formats/ipe-policy.ts'
import { editedCopy } from '../../src/image/edit.ts'
import { signIpePolicy } from '../../src/signing/ipe.ts'
import { loadSigners } from '../../src/signing/load.ts'
import { startVm } from '../../src/vm/vm.ts'
import { baked, notBaked } from '../baked.ts'
import { body, DOUBTFUL, INITRD, REFUSED } from '../ipe-policies.ts'
import { EPOCH } from '../keys.ts'
import { MACHINES } from '../oracle.ts'

const toolsTree = MACHINES ?? ''
const found = existsSync(join(toolsTree, 'usr/bin/qemu-system-x86_64'))
const skip = !found && !process.env['REQUIRE_ORACLES'] ? 'qemu-system-x86_64 is not installed' : notBaked

/** Plenty: QEMU translates every instruction, and other tests run at the same time. */
const BOOT_MS = 600_000
const KEYS = 'examples/minimal/keys'

describe('[qemu-system-x86_64] IPE of examples/minimal', { skip }, () => {
  const image = process.env['BISQUE_BOOT_IMAGE'] ?? baked('.raw')
  const scratch = mkdtempSync(join(tmpdir(), 'bisque-ipe-'))
  const keep = join(scratch, 'first')
  after(() => rmSync(scratch, { recursive: true, force: true }))
  const enrolled = () => readFileSync(join(keep, 'variables.fd'))

  test('the kernel takes and refuses the same policies as the linter', async () => {
    // Each under a name of its own: the kernel takes no name twice.
    const taken = [body(INITRD), body(INITRD).replaceAll('\n', '\r\n'), ...DOUBTFUL.map(([text]) => text)]
    const policies = [
      ...taken.map((text, i) => text.replace(/^policy_name=\w+/, `policy_name=p${i}`)),
      ...REFUSED.map(([text]) => text),
    ]
    const edited = join(scratch, 'policies.raw')
    const script = await policyScript(policies)
    await editedCopy(image, edited, (disk) => disk.changeEsp({ 'loader/credentials/ipe.cred': Buffer.from(script) }))
    const words = 'rdinit=/usr/bin/bash -- /.extra/global_credentials/ipe.cred'
    await using vm = await startVm({ image: edited, toolsTree, keep, kernelCommandLine: words })
    await vm.console.waitFor(/^ipe end\r?$/m, BOOT_MS)
    const verdicts = new Map(
      [...vm.console.text.matchAll(/^ipe (\d+) (taken|refused)/gm)].map(([, i, verdict]) => [Number(i), verdict]),
    )
    for (const [i, text] of policies.entries()) {
      const problems = lintIpePolicy(text)
      const verdict = problems.some(({ severity }) => severity === 'error') ? 'refused' : 'taken'
      assert.equal(verdicts.get(i), verdict, `${text}\n${problems.map((problem) => formatIpeProblem(problem)).join('\n')}`)
    }
    assert.deepEqual(new Set(verdicts.values()), new Set(['taken', 'refused']))
  })

  test('a boot stops whose command line was told not to enforce', async () => {
    await using vm = await startVm({ image, toolsTree, variables: enrolled(), kernelCommandLine: 'ipe.enforce=0' })
    const restarted = new Promise<void>((resolve) => vm.qmp.onEvent(({ event }) => void (event === 'RESET' && resolve())))
    await vm.console.waitFor(/Cannot boot: IPE does not enforce its policy; .*; restarting in 10 s/, BOOT_MS)
    await restarted
    assert.doesNotMatch(vm.console.text, /switch.root|login:|# $/i)
  })

  test('a boot stops whose policy the kernel refuses: here its firmware has no key that it knows', async () => {
    await using vm = await startVm({ image, toolsTree, secureBoot: false })
    await vm.console.waitFor(/Failed to load IPE policy|Failed to copy the IPE policy/, BOOT_MS)
    await vm.console.waitFor(/Freezing execution/, BOOT_MS)
  })
})

/** Loads every policy, and prints what the kernel said. */
async function policyScript(policies: readonly string[]): Promise<string> {
  const { verity } = await loadSigners(KEYS, { epoch: EPOCH })
  const loads: string[] = []
  for (const [i, text] of policies.entries()) {
    const signed = Buffer.from(await signIpePolicy(text, verity)).toString('base64')
    loads.push(`load ${i} ${signed}\n`)
  }
  return `PATH=/usr/bin
mkdir -p /proc /sys
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security
load() {
  echo "$2" | base64 -d >/policy
  if cat /policy 2>/dev/null >/sys/kernel/security/ipe/new_policy; then echo "ipe $1 taken"; else echo "ipe $1 refused"; fi
}
${loads.join('')}echo ipe end
while :; do sleep 60; done
`
}
