/** Where `verify` and `attack` look at the same thing: a link that does not hold, and the cases that then succeed. */
export interface LinkCases {
  /** Of the link's name. */
  link: RegExp
  /** Cases that are not refused once that link is broken. */
  cases: readonly string[]
}

/** What shows once IPE has no say. */
const EXECUTED = [
  ...['exec-tmpfs', 'exec-root', 'exec-loader', 'exec-script', 'exec-preload', 'exec-memfd', 'exec-memory'],
  ...['exec-bind', 'exec-overlay', 'module-copied'],
]

// biome-ignore format: table
export const LINK_CASES: readonly LinkCases[] = [
  { link: /^EFI program /,           cases: ['loader-unsigned', 'loader-stranger', 'uki-unsigned', 'uki-stranger', 'cmdline-edited'] },
  { link: /^enrolment/,              cases: ['loader-stranger', 'uki-stranger', 'addon-stranger'] },
  { link: /^addon /,                 cases: ['addon-unsigned', 'addon-stranger'] },
  { link: /^hash tree$/,             cases: ['usr-data', 'usr-tree', 'usr-swapped'] },
  { link: /^root hash signature$/,   cases: ['usr-unsigned', 'usr-unverified'] },
  { link: /^IPE policy of /,         cases: [...EXECUTED, 'usr-unverified'] },
  { link: /^IPE off switch$/,        cases: ['ipe-off', 'ipe-policy'] },
  { link: /^kernel and root hash$/,  cases: ['usr-signature', 'usr-unsigned'] },
  { link: /^kernel and IPE$/,        cases: EXECUTED },
  { link: /^kernel modules$/,        cases: ['module-unsigned'] },
  { link: /^kernel lockdown$/,       cases: ['module-unsigned', 'kexec'] },
  { link: /^kexec$/,                 cases: ['kexec'] },
  { link: /^image policies$/,        cases: ['sysext'] },
  { link: /^PCR policies of /,       cases: ['initrd-changed', 'policy-stranger'] },
]

/** The cases that broken links foretell, and the links that cases not refused point at. */
export const foretold = (links: readonly string[]): Set<string> =>
  new Set(LINK_CASES.filter(({ link }) => links.some((name) => link.test(name))).flatMap(({ cases }) => cases))

export const explains = (name: string, links: readonly string[]): string[] =>
  links.filter((link) => LINK_CASES.some((one) => one.link.test(link) && one.cases.includes(name)))
