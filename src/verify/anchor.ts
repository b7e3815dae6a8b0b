/** What the chain ends in: the certificates a user gives, or those that the image enrols itself, or none. */
import type { DiskPartition } from './disk.ts'
import { digestsEnteredBy, type Enrolments, enteredBy } from './enrolment.ts'
import type { Program } from './esp.ts'
import type { Anchor } from './facts.ts'
import { checkLink, type Link } from './link.ts'
import { type Chain, FULL_CHAIN, fingerprintOf, isReadable, judgeValidity, nameOf, type Trust } from './trust.ts'

export function anchorOf(
  trust: Trust | undefined,
  partitions: readonly DiskPartition[],
  enrolments: Enrolments,
  programs: readonly Program[],
): Anchor {
  // Firmware enters `auto` by itself; another set is chosen in the menu.
  const auto = enrolments.sets.find(({ name }) => name === 'auto') ?? enrolments.sets[0]
  const entered = (name: 'db' | 'dbx') => (auto ? enteredBy(auto, name).filter(isReadable) : [])
  const revoked = { digests: new Set(auto ? digestsEnteredBy(auto, 'dbx') : []), certificates: entered('dbx') }
  const chain = trust?.chain ?? chainFor(partitions)
  const total = trust?.chain === undefined
  if (trust) return { ...trust, from: 'given', chain, total, revoked }
  const db = entered('db')
  // What is in db is in the kernel's .platform keyring, which root hashes and IPE policies are checked against.
  if (db.length > 0) return { from: 'image', db, verity: db, pcr: [], chain, total, revoked }
  const signers = programs.flatMap(({ read }) => read?.signatures ?? [])
  const held = signers.flatMap(({ certificate, problems }) => (certificate && problems.length === 0 ? [certificate] : []))
  const unique = [...new Map(held.map((one) => [fingerprintOf(one), one])).values()]
  return { from: 'signatures', db: unique, verity: unique, pcr: [], chain, total, revoked }
}

/** All of the chain, over the root where that is what has a hash tree. */
function chainFor(partitions: readonly DiskPartition[]): Chain {
  const has = (wanted: string) => partitions.some(({ designator }) => designator === wanted)
  return { ...FULL_CHAIN, verity: has('root-verity') && !has('usr-verity') ? 'root' : 'usr' }
}

/** Says whom the image is judged by. Where nobody vouches for the keys, that is a problem; their fingerprints are to be compared. */
export async function checkAnchor(anchor: Anchor, now: number, links: Link[]): Promise<void> {
  await checkLink(links, 'firmware', 'trust anchor', (finding) => {
    const { evidence, wrong } = finding
    const keys = anchor.db.map((one) => `${nameOf(one)} sha256:${fingerprintOf(one)}`).join(' and ')
    if (anchor.from === 'given') evidence(`the certificates given: db is ${keys}`)
    else if (anchor.from === 'image')
      evidence(`the certificates that the image enrols itself: db is ${keys}; not known: whether they are the ones you mean`)
    else
      wrong(
        anchor.db.length === 0
          ? 'the image enrols no keys and nothing on it is signed: nothing anchors it'
          : `the image enrols no keys: nothing anchors it but the certificates its own signatures are by, ${keys}`,
        'give the certificates you trust: --trust DIR',
      )
    if (anchor.from === 'given') for (const one of [...anchor.db, ...anchor.verity]) judgeValidity(one, now, finding)
  })
}
