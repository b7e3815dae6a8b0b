import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
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

const HEADER = 'policy_name=acme policy_version=1.2.3\n'
const DIGEST = `sha256:${'0a'.repeat(32)}`

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

/** Each with what is said of it; the kernel refuses them all (test/boot/minimal.test.ts asks it). */
export const REFUSED: readonly (readonly [text: string, problem: string])[] = [
  ['', 'policy:1:1: no policy; it begins with: policy_name=NAME policy_version=0.0.0'],
  ['# nothing\n', 'policy:1:1: no policy; it begins with: policy_name=NAME policy_version=0.0.0'],
  [
    'policy_name=a\nDEFAULT action=DENY\n',
    'policy:1:14: policy_version= is missing; the first line is: policy_name=NAME policy_version=0.0.0',
  ],
  ['policy_version=1.0.0 policy_name=a\nDEFAULT action=DENY\n', 'policy:1:1: expected policy_name=, got "policy_version=1.0.0"'],
  ['policy_name= policy_version=1.0.0\nDEFAULT action=DENY\n', 'policy:1:13: the policy has no name'],
  ['policy_name=a/b policy_version=1.0.0\nDEFAULT action=DENY\n', 'policy:1:13: "a/b" is no name for a folder'],
  ['policy_name=.. policy_version=1.0.0\nDEFAULT action=DENY\n', 'policy:1:13: ".." is no name for a folder'],
  ['policy_name=a policy_version=1.0\nDEFAULT action=DENY\n', 'policy:1:30: expected three numbers such as 1.0.0, got "1.0"'],
  [
    'policy_name=a policy_version=1.0.65536\nDEFAULT action=DENY\n',
    'policy:1:34: 65536 is too large; each part of a version is at most 65535',
  ],
  ['policy_name=a policy_version=1.x.0\nDEFAULT action=DENY\n', 'policy:1:32: expected a number, got "x"'],
  ['policy_name=a policy_version=1..0\nDEFAULT action=DENY\n', 'policy:1:32: expected a number, got ""'],
  [
    'policy_name=a policy_version=1.0.0 more\nDEFAULT action=DENY\n',
    'policy:1:36: nothing may follow policy_version= on its line, got "more"',
  ],
  [HEADER, 'policy:2:1: no default for any operation; add: DEFAULT action=DENY'],
  [
    `${HEADER}DEFAULT op=EXECUTE action=DENY`,
    'policy:2:31: no default for FIRMWARE, KMODULE, KEXEC_IMAGE, KEXEC_INITRAMFS, POLICY, X509_CERT; add: DEFAULT action=DENY',
  ],
  [`${HEADER}DEFAULT action=DENY\nDEFAULT action=DENY\n`, 'policy:3:1: there is a DEFAULT already, in line 2'],
  [
    `${HEADER}DEFAULT action=DENY\nDEFAULT op=EXECUTE action=DENY\nDEFAULT op=EXECUTE action=ALLOW\n`,
    'policy:4:1: there is a DEFAULT op=EXECUTE already, in line 3',
  ],
  [
    `${HEADER}DEFAULT op=EXECUTE boot_verified=TRUE action=DENY\n`,
    'policy:2:20: a DEFAULT takes no properties, got "boot_verified=TRUE"',
  ],
  [`${HEADER}DEFAULT boot_verified=TRUE action=DENY\n`, 'policy:2:9: expected op= or action=, got "boot_verified=TRUE"'],
  [`${HEADER}DEFAULT\n`, 'policy:2:8: the line must end with action=ALLOW or action=DENY, it ends with "DEFAULT"'],
  [`${HEADER}default action=DENY\n`, 'policy:2:1: expected op= or DEFAULT, got "default"; did you mean "DEFAULT"?'],
  [`${HEADER}DEFAULT action=DENY\naction=ALLOW\n`, 'policy:3:1: a rule names its operation first: op=EXECUTE … action=ALLOW'],
  [
    `${HEADER}DEFAULT action=DENY\nop=EXECUT boot_verified=TRUE action=ALLOW\n`,
    'policy:3:4: unknown operation "EXECUT"; did you mean "EXECUTE"?',
  ],
  [
    `${HEADER}DEFAULT action=DENY\nboot_verified=TRUE op=EXECUTE action=ALLOW\n`,
    'policy:3:1: expected op= or DEFAULT, got "boot_verified=TRUE"',
  ],
  [
    `${HEADER}DEFAULT action=DENY\nop=EXECUTE boot_verify=TRUE action=ALLOW\n`,
    'policy:3:12: unknown property "boot_verify"; did you mean "boot_verified"?',
  ],
  [
    `${HEADER}DEFAULT action=DENY\nop=EXECUTE boot_verified=true action=ALLOW\n`,
    'policy:3:26: boot_verified= is TRUE or FALSE, got "true"',
  ],
  [`${HEADER}DEFAULT action=DENY\nop=EXECUTE op=KMODULE action=ALLOW\n`, 'policy:3:12: a rule has one operation'],
  [`${HEADER}DEFAULT action=DENY\nop=EXECUTE action=ALLOW boot_verified=TRUE\n`, 'policy:3:12: action= ends the line'],
  [
    `${HEADER}DEFAULT action=DENY\nop=EXECUTE boot_verified=TRUE\n`,
    'policy:3:30: the line must end with action=ALLOW or action=DENY, it ends with "boot_verified=TRUE"',
  ],
  [`${HEADER}DEFAULT action=DENY\nop=EXECUTE action=PERMIT\n`, 'policy:3:19: unknown action "PERMIT"; it is ALLOW or DENY'],
  [
    `${HEADER}DEFAULT action=DENY\nop=EXECUTE dmverity_roothash=${DIGEST}0 action=ALLOW\n`,
    `policy:3:37: "${DIGEST.slice(7, 46)}…" is not a row of hexadecimal bytes`,
  ],
  [
    `${HEADER}DEFAULT action=DENY\nop=EXECUTE fsverity_digest=0a0a action=ALLOW\n`,
    'policy:3:28: expected ALGORITHM:HEX such as sha256:…, got "0a0a"',
  ],
]

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

const body = (...lines: string[]) => `${HEADER}DEFAULT action=DENY\n${lines.join('\n')}\n`
const INITRD = 'op=EXECUTE boot_verified=TRUE action=ALLOW'

/** What the kernel takes, though it cannot be meant. */
const DOUBTFUL: readonly (readonly [text: string, problem: string])[] = [
  [
    body(INITRD, 'op=EXECUTE boot_verified=TRUE dmverity_signature=TRUE action=DENY'),
    'policy:4:1: warning: never reached: line 3 matches first',
  ],
  [body(INITRD, INITRD), 'policy:4:1: warning: never reached: line 3 matches first'],
  [
    body('op=EXECUTE action=ALLOW', 'op=EXECUTE boot_verified=FALSE action=DENY'),
    'policy:4:1: warning: never reached: line 3 matches first',
  ],
  [
    body('op=EXECUTE boot_verified=TRUE boot_verified=FALSE action=ALLOW', INITRD),
    'policy:3:31: warning: never matches: boot_verified=FALSE contradicts what the rule asked before',
  ],
  [
    body(INITRD, 'op=KMODULE boot_verified=TRUE action=DENY'),
    'policy:4:1: warning: without effect: line 2 would deny it all the same',
  ],
  [
    body('op=EXECUTE boot_verified=TRUE fsverity_signature=TRUE action=ALLOW', INITRD),
    'policy:3:1: warning: without effect: line 4 would allow it all the same',
  ],
  [body('DEFAULT op=POLICY action=DENY', INITRD), 'policy:3:1: warning: without effect: DENY is the default of all operations'],
  [body('op=KMODULE boot_verified=TRUE action=ALLOW'), 'policy:2:1: warning: nothing may be executed: no rule allows op=EXECUTE'],
  [`${HEADER}DEFAULT action=ALLOW\n`, 'policy:2:1: warning: everything may be executed: no rule denies op=EXECUTE'],
  [
    body(INITRD, 'op=EXECUTE fsverity_digest=sha265:0a action=ALLOW'),
    'policy:4:28: warning: no file has a digest "sha265"; did you mean "sha256"?',
  ],
  [
    body(INITRD, 'op=EXECUTE fsverity_digest=sha256:0a action=ALLOW'),
    'policy:4:35: warning: a sha256 digest has 32 bytes, this has 1',
  ],
  [`policy_name=a policy_version=1.+2.03\nDEFAULT action=DENY\n${INITRD}\n`, 'policy:1:32: warning: "+2" is read as 2'],
  [`${body(INITRD)}\0op=nonsense`, 'policy:4:1: warning: the kernel reads no further than this zero byte'],
]

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
  const started = performance.now()
  lintIpePolicy(
    `${HEADER}DEFAULT action=DENY\n${'op=EXECUTE boot_verified=TRUE dmverity_signature=FALSE action=ALLOW\n'.repeat(16_000)}`,
  )
  lintIpePolicy(`${HEADER}op=${'EXECUTE '.repeat(130_000)}`)
  assert.ok(performance.now() - started < 5000)
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
