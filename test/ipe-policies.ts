/** Policies, and what is wrong with each: what the linter says in words, the kernel says by refusing them. */

export const HEADER = 'policy_name=acme policy_version=1.2.3\n'
export const DIGEST = `sha256:${'0a'.repeat(32)}`
export const body = (...lines: string[]) => `${HEADER}DEFAULT action=DENY\n${lines.join('\n')}\n`
export const INITRD = 'op=EXECUTE boot_verified=TRUE action=ALLOW'

/** Each with what is said of it; the kernel refuses them all (test/boot/ipe.test.ts asks it). */
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

/** What the kernel takes, though it cannot be meant. */
export const DOUBTFUL: readonly (readonly [text: string, problem: string])[] = [
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
