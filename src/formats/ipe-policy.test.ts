import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { body, DIGEST, DOUBTFUL, HEADER, INITRD, REFUSED } from '../../test/ipe-policies.ts'
import { Fault } from '../base/fault.ts'
import {
  decideIpe,
  formatIpePolicy,
  formatIpeProblem,
  IPE_ACTIONS,
  IPE_DIGESTS,
  IPE_OPERATIONS,
  IPE_SWITCHES,
  type IpePolicy,
  lintIpePolicy,
  parseIpePolicy,
} from './ipe-policy.ts'

/** Problems as a person reads them. */
const lint = (text: string): string[] => lintIpePolicy(text).map((problem) => formatIpeProblem(problem))
const errors = (text: string): string[] => lint(text).filter((line) => !line.includes('warning: '))

test('parseIpePolicy() reads a policy with comments, blank lines and any line ends', () => {
  const text = `\r\n# made by hand\n policy_name=acme \t policy_version=1.02.65535 # the header\r
DEFAULT action=DENY\r\rDEFAULT op=FIRMWARE action=ALLOW
op=EXECUTE\tboot_verified=TRUE  dmverity_roothash=${DIGEST} action=ALLOW   #why not
op=EXECUTE action=DENY`
  assert.deepEqual(parseIpePolicy(text), {
    name: 'acme',
    version: [1, 2, 65535],
    defaultAction: 'DENY',
    defaults: { FIRMWARE: 'ALLOW' },
    rules: [
      {
        operation: 'EXECUTE',
        properties: [
          { name: 'boot_verified', value: true },
          { name: 'dmverity_roothash', value: DIGEST },
        ],
        action: 'ALLOW',
      },
      { operation: 'EXECUTE', properties: [], action: 'DENY' },
    ],
  } satisfies IpePolicy)
})

for (const [text, problem] of REFUSED) {
  test(`lintIpePolicy() says ${problem.slice(0, 90)}`, () => {
    assert.ok(errors(text).includes(problem), lint(text).join('\n'))
    assert.throws(
      () => parseIpePolicy(text, 'policy'),
      (error) => error instanceof Fault && error.message.includes(problem),
    )
  })
}

test('lintIpePolicy() tells every error of a policy, in its order', () => {
  const text =
    'policy_name=a policy_version=1.0.0\nop=X action=ALLOW\nDEFAULT op=POLICY action=NO\nop=EXECUTE q=1 r=2 action=DENY\n'
  assert.deepEqual(
    errors(text).map((line) => line.split(': ')[0]),
    ['policy:2:4', 'policy:3:26', 'policy:4:12', 'policy:4:16', 'policy:5:1'],
  )
})

for (const [text, problem] of DOUBTFUL) {
  test(`lintIpePolicy() warns: ${problem.slice(problem.indexOf('warning') + 9, 100)}`, () => {
    assert.deepEqual(errors(text), [])
    assert.ok(lint(text).includes(problem), lint(text).join('\n'))
  })
}

test('lintIpePolicy() has nothing to say of an exception before a rule', () => {
  assert.deepEqual(lint(body('op=EXECUTE boot_verified=TRUE fsverity_signature=FALSE action=DENY', INITRD)), [])
})

const digest = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => `sha256:${Buffer.from(bytes).toString('hex')}`)
const property = fc.oneof(
  fc.record({ name: fc.constantFrom(...IPE_SWITCHES), value: fc.boolean() }),
  fc.record({ name: fc.constantFrom(...IPE_DIGESTS), value: digest }),
)
/** Without the prototypes that fast-check gives its objects. */
const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value))
const action = fc.constantFrom(...IPE_ACTIONS)
const component = fc.integer({ min: 0, max: 65535 })
const policies: fc.Arbitrary<IpePolicy> = fc.record({
  name: fc.stringMatching(/^[A-Za-z0-9_-][\w.-]{0,30}$/),
  version: fc.tuple(component, component, component),
  defaultAction: action,
  defaults: fc.dictionary(fc.constantFrom(...IPE_OPERATIONS), action, { noNullPrototype: true }),
  rules: fc.array(
    fc.record({ operation: fc.constantFrom(...IPE_OPERATIONS), properties: fc.array(property, { maxLength: 4 }), action }),
  ),
})

test('formatIpePolicy() writes what parseIpePolicy() reads, and the same each time', () => {
  fc.assert(
    fc.property(policies, (policy) => {
      const text = formatIpePolicy(policy)
      assert.deepEqual(parseIpePolicy(text), plain(policy))
      assert.equal(formatIpePolicy(parseIpePolicy(text)), text)
    }),
  )
})

test('a rule that lintIpePolicy() calls without effect can be left out', () => {
  const facts = fc.record({
    boot_verified: fc.boolean(),
    dmverity_signature: fc.boolean(),
    fsverity_signature: fc.boolean(),
    dmverity_roothash: fc.constantFrom(DIGEST, `sha256:${'11'.repeat(32)}`),
  })
  const few = fc.oneof(
    fc.record({ name: fc.constantFrom(...IPE_SWITCHES), value: fc.boolean() }),
    fc.constant({ name: 'dmverity_roothash' as const, value: DIGEST.toUpperCase().replace('SHA', 'sha') }),
  )
  const rules = fc.array(
    fc.record({ operation: fc.constant('EXECUTE' as const), properties: fc.array(few, { maxLength: 3 }), action }),
    { maxLength: 5 },
  )
  fc.assert(
    fc.property(rules, action, facts, (rules, defaultAction, facts) => {
      const policy: IpePolicy = { name: 'a', version: [0, 0, 0], defaultAction, defaults: {}, rules }
      const vain = lintIpePolicy(formatIpePolicy(policy)).find(
        ({ line, message }) => line > 2 && /^(never|without)/.test(message),
      )
      if (vain === undefined) return
      const less = { ...policy, rules: rules.filter((_, i) => i !== vain.line - 3) }
      assert.equal(decideIpe(less, 'EXECUTE', facts).action, decideIpe(policy, 'EXECUTE', facts).action)
    }),
    { numRuns: 2000 },
  )
})

test('lintIpePolicy() never throws, and has places inside the text', () => {
  const word = fc.constantFrom(
    ...[
      'op=EXECUTE',
      'op=',
      'op=KMODULE',
      'action=ALLOW',
      'action=DENY',
      'action=',
      'DEFAULT',
      'policy_name=a',
      'policy_version=1.2.3',
    ],
    ...[
      'boot_verified=TRUE',
      'dmverity_roothash=',
      'dmverity_roothash=a:b',
      `fsverity_digest=${DIGEST}`,
      '#',
      '=',
      '\0',
      '\v',
      '\ud800',
    ],
    ...[' ', '\t', '\n', '\r', '\r\n', 'policy_version=+1.999999999999999999999.'],
  )
  const text = fc.oneof(
    fc.array(word, { maxLength: 40 }).map((words) => words.join(' ')),
    fc.string({ unit: 'binary', maxLength: 200 }),
    fc.array(word).map((words) => HEADER + words.join('')),
  )
  fc.assert(
    fc.property(text, (text) => {
      const lines = text.split(/\r\n|\n|\r/)
      for (const { line, column } of lintIpePolicy(text)) {
        assert.ok(line >= 1 && line <= lines.length, `line ${line} of ${lines.length}`)
        assert.ok(column >= 1 && column <= lines[line - 1]!.length + 1, `column ${column} of ${lines[line - 1]!.length}`)
      }
      if (errors(text).length === 0) assert.deepEqual(parseIpePolicy(formatIpePolicy(parseIpePolicy(text))), parseIpePolicy(text))
      else assert.throws(() => parseIpePolicy(text), Fault)
    }),
    { numRuns: 3000 },
  )
})

test('lintIpePolicy() is done with a megabyte of rules in seconds', () => {
  const started = process.cpuUsage() // other tests run beside this one
  lintIpePolicy(
    `${HEADER}DEFAULT action=DENY\n${'op=EXECUTE boot_verified=TRUE dmverity_signature=FALSE action=ALLOW\n'.repeat(16_000)}`,
  )
  lintIpePolicy(`${HEADER}op=${'EXECUTE '.repeat(130_000)}`)
  assert.ok(process.cpuUsage(started).user < 5e6)
})

test('decideIpe() takes the first rule that matches, then the default of the operation, then that of all', () => {
  const policy = parseIpePolicy(
    body(
      INITRD,
      `op=EXECUTE dmverity_roothash=${DIGEST.toUpperCase().replace('SHA', 'sha')} action=ALLOW`,
      'DEFAULT op=POLICY action=ALLOW',
    ),
  )
  const decide = (...args: [IpeOperation: 'EXECUTE' | 'POLICY', facts: object]) => decideIpe(policy, ...args).action
  assert.equal(decide('EXECUTE', { boot_verified: true }), 'ALLOW')
  assert.equal(decide('EXECUTE', { dmverity_roothash: DIGEST }), 'ALLOW')
  assert.equal(decide('EXECUTE', {}), 'DENY')
  assert.equal(decide('POLICY', {}), 'ALLOW')
})

test('formatIpePolicy() refuses what the kernel would', () => {
  const policy: IpePolicy = { name: 'a', version: [0, 0, 0], defaultAction: 'DENY', defaults: {}, rules: [] }
  for (const wrong of [
    { name: 'a b' },
    { name: '' },
    { name: 'x#' },
    { name: '../x' },
    { version: [0, 0, 65536] as const },
    { version: [0, 0.5, 1] as const },
  ])
    assert.throws(() => formatIpePolicy({ ...policy, ...wrong }), Fault)
})
