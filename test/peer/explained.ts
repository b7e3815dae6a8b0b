/**
 * Why a bake of ours and one of mkosi's differ where they do. A difference that no row explains is a fault of ours, and
 * fails the test. docs/peers.md has the same table.
 */
import type { Difference, Part } from './compare.ts'

export interface Reason {
  part: Part
  path: RegExp
  /** What may differ; everything of the path without it. */
  what?: RegExp
  why: string
}

const SIGNING_TIME = 'mkosi’s signature tells when it was made; ours does not, so that it is the same again'
const ONE_MACHINE = 'belongs to one machine, which makes its own when it starts: a secret or an id that all have is none'
const NUMBERS =
  'the same accounts with other numbers: those that packages ask for while they are configured are given in that order'
const DAY = 'mkosi writes the day of the build as that of the last password change, ours the date of the archive’s snapshot'
const DOCUMENTS =
  'left out by WithDocs=no: ours also leaves out what documents are registered and checked with, and folders that held examples'
const OWN_INITRD = 'our initrd’s recipe says the same in files and words of its own'

export const EXPLAINED: readonly Reason[] = [
  { part: 'artifacts', path: /\.manifest(\.json)?$/, what: /^presence$/, why: 'ours has a format, and so a name, of its own' },
  { part: 'artifacts', path: /^initrd(\.cpio\.zst)?$/, why: 'the default initrd is part of the UKI; ours leaves no copy beside' },
  { part: 'artifacts', path: /^[^./]+_\d+_[^./]+$/, why: 'mkosi links the name without its suffix to the disk' },
  {
    part: 'partitions',
    path: /^(esp|.*_verity_sig)$/,
    what: /^guid$/,
    why: 'follows from the seed, which mkosi draws at random; ours follows from the image’s id',
  },
  { part: 'partitions', path: /_\d+(_verity)?$/, what: /^guid$/, why: 'is half of the root hash' },
  {
    part: 'partitions',
    path: /^[^_]+_\d+$/,
    what: /^sectors$/,
    why: 'ours compresses with zstd level 3 in clusters of 128 KiB; systemd-repart leaves mkfs.erofs its defaults, less and 4 KiB',
  },
  {
    part: '/usr',
    path: /\.pyc$/,
    what: /^header$/,
    why: 'says to check the source by its hash (PEP 552), as Python does where SOURCE_DATE_EPOCH is set; mkosi’s by its time',
  },
  {
    part: '/usr',
    path: /^share\/factory\/etc\/g?shadow-?$/,
    what: /^numbers$/,
    why: `${DAY}; the order of lines is that of packages`,
  },
  { part: '/usr', path: /^share\/factory\/etc\/(passwd|group)-?$/, what: /^numbers$/, why: NUMBERS },
  {
    part: '/usr',
    path: /^share\/factory\/etc\/systemd\/system\/[^/]+\.wants\/[^/]+$/,
    what: /^target$/,
    why: 'enabled by deb-systemd-helper, which writes /lib before the package systemd is unpacked and lets systemctl write /usr/lib after it',
  },
  {
    part: '/usr',
    path: /^share\/factory\/etc\/runit\/runsvdir\/default\//,
    what: /^presence$/,
    why: 'runit-helper asks policy-rc.d, which denies every service here while packages are configured',
  },
  { part: '/usr', path: /^share\/factory\/etc\/(ssh\/ssh_host_.*|nvme\/host(id|nqn))$/, what: /^presence$/, why: ONE_MACHINE },
  { part: '/usr', path: /\.efi\.signed$/, what: /^size$/, why: SIGNING_TIME },
  { part: 'ESP', path: /^EFI\/(BOOT|systemd)\/.*\.efi$/i, what: /^size$/, why: SIGNING_TIME },
  { part: 'ESP', path: /^EFI\/Linux\//, why: 'is the UKI; its sections are compared one by one' },
  {
    part: 'ESP',
    path: /^loader\/keys\/auto\/.*\.auth$/,
    what: /^content$/,
    why: 'is signed together with a time: mkosi’s is the clock’s, ours that of the archive’s snapshot',
  },
  {
    part: 'ESP',
    path: /^$/,
    what: /^sectorSize$/,
    why: 'without SectorSize= systemd-repart takes 4096 for file systems, ours the 512 of the disk',
  },
  { part: 'UKI', path: / \.cmdline$/, what: /^end$/, why: 'mkosi ends the text with a zero, which systemd-stub does not need' },
  { part: 'UKI', path: / \.linux$/, what: /^size$/, why: SIGNING_TIME },
  {
    part: 'UKI',
    path: / \.initrd$/,
    what: /^size$/,
    why: 'zstd, by another program at another level; its files are compared below',
  },
  { part: 'UKI', path: / \.pcrsig$/, what: /^size$/, why: 'ukify writes JSON with a space after every comma and colon' },
  { part: 'initrd', path: /^\.$/, what: /^presence$/, why: 'ours names the root as well' },
  { part: 'initrd', path: /^etc\/g?shadow-?$/, what: /^numbers$/, why: DAY },
  { part: 'initrd', path: /^etc\/(passwd|group)-?$/, what: /^numbers$/, why: NUMBERS },
  { part: 'initrd', path: /^var\/lib\/dbus\/machine-id$/, why: ONE_MACHINE },
  { part: 'initrd', path: /\/credential\.conf$/, what: /^(size|content)$/, why: OWN_INITRD },
  { part: 'initrd', path: /\/(99-(initrd|mkosi)\.preset|10-(initrd-device-mapper|mkosi-initrd-dm)\.rules)$/, why: OWN_INITRD },
  { part: 'initrd', path: /^usr\/share\/(doc|doc-base|lintian)(\/|$)/, what: /^presence$/, why: DOCUMENTS },
  {
    part: 'initrd',
    path: /^usr\/lib\/modules\/[^/]+\/modules\.(alias|builtin|dep|symbols)$/,
    what: /^presence$/,
    why: 'libkmod reads the .bin beside it, which both have',
  },
]

export interface Judged {
  /** In the table's order, with how many differences each explains; rows that explain none are left out. */
  explained: { reason: Reason; differences: Difference[] }[]
  unexplained: Difference[]
}

export function judge(differences: readonly Difference[]): Judged {
  const byReason = new Map<Reason, Difference[]>(EXPLAINED.map((reason) => [reason, []]))
  const unexplained: Difference[] = []
  for (const difference of differences) {
    const reason = EXPLAINED.find((row) => explains(row, difference))
    ;(reason === undefined ? unexplained : byReason.get(reason)!).push(difference)
  }
  const explained = [...byReason].filter(([, list]) => list.length > 0).map(([reason, list]) => ({ reason, differences: list }))
  return { explained, unexplained }
}

const explains = ({ part, path, what }: Reason, difference: Difference): boolean =>
  part === difference.part && path.test(difference.path) && (what === undefined || what.test(difference.what))

export const sayDifference = ({ part, path, what, ours, theirs }: Difference): string =>
  `${part} ${path || '/'}: ${what}: ours ${short(ours)}, mkosi’s ${short(theirs)}`

const short = (text: string): string => (text.length > 160 ? `${text.slice(0, 160)}…` : text)
