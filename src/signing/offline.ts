/**
 * Offline signing: keys that no build ever sees. A build asks its signers for signatures as always; those that are known
 * are given, and for the others a placeholder stands in, so that the build goes on and names everything it will want.
 *
 * A digest that covers another signature is not known before that one is: what is asked for falls into rounds. Which
 * digests may be signed now is decided when the build has ended, by what kind of thing may hold what other (`MAY_HOLD`),
 * and by which image may hold which other.
 */
import { type Sha256, sha256 } from '../base/digest.ts'
import { KEY_ROLES, type KeyRole, type Purpose, placeholderFor, type Signer, type Signers } from './signer.ts'

/** Things that are parts of a system's tree when it is packed. */
const IN_A_TREE = ['IPE policy', 'EFI variable', 'boot loader', 'EFI program', 'addon'] as const satisfies Purpose[]

/**
 * What the signed bytes of each kind may hold signatures of, in the same image. Too much here costs a round at worst; too
 * little would have digests signed that no later round asks for again, which attaching notices and refuses.
 */
export const MAY_HOLD: Readonly<Record<Purpose, readonly Purpose[]>> = {
  certificate: [],
  // Certificates and a time.
  'EFI variable': [],
  // Text of the recipe.
  'IPE policy': [],
  // A program as it came in a package.
  'boot loader': [],
  'EFI program': [],
  // A command line; its initrd may be a tree, but then of an image without boot loader.
  addon: [],
  // Of a tree with its boot loader, for updates to take. The signature of a root hash lies outside of what it covers.
  'root hash': IN_A_TREE,
  // The value of the root hash is in the command line, not its signature; the initrd has the IPE policy.
  'PCR policy': IN_A_TREE,
  UKI: [...IN_A_TREE, 'PCR policy'],
}

/** What takes its bytes out of files of a tree, where artifacts of earlier images may be. */
const PACKED: ReadonlySet<Purpose> = new Set(['addon', 'root hash', 'PCR policy', 'UKI'])

/** A digest that a build wanted to have signed. */
export interface Asked {
  role: KeyRole
  /** Of a role that is changing hands: whether it is the later key that signs. */
  successor?: true
  purpose: Purpose
  digest: Sha256
  /** SHA-256 of the certificate whose key is to sign. */
  certificate: Sha256
  /** For a person to compare: a root hash, the name of a variable. */
  about?: string
  /** Image that it is for; none where it may be for all. */
  image?: string
}

/** What says that two requests want the same signature. */
export type AskedKey = `${Sha256} ${Sha256}`
export const keyOf = ({ certificate, digest }: Pick<Asked, 'certificate' | 'digest'>): AskedKey => `${certificate} ${digest}`

/** Whose signer it is, and for which image. */
export interface SignerPlace {
  role: KeyRole
  successor?: true
  image?: string
}

/** Signers without keys. */
export interface OfflineSigners {
  signer(certificate: Uint8Array, place: SignerPlace): Signer
  /** Certificates of these signers, by their digest. */
  certificates(): Map<Sha256, Uint8Array>
  /** The same signers, which know the image they sign for. Others among them stay as they are. */
  within(signers: Signers, image: string): Signers
  /** Everything asked for until now. */
  asked(): Asked[]
  /** What of it had no signature: as long as there is something, nothing made with these signers may be kept. */
  missing(): Asked[]
}

/** Answers with the signatures there are, each of which `signDigest()` checks once more. */
export function offlineSigners(signatures: ReadonlyMap<AskedKey, Uint8Array>): OfflineSigners {
  const all: Asked[] = []
  const certificates = new Map<Sha256, Uint8Array>()
  // By their function: who gives a signer a successor makes it anew around that.
  const places = new WeakMap<Signer['sign'], SignerPlace>()
  const signer = (certificate: Uint8Array, place: SignerPlace, successor?: Signer): Signer => {
    const made: Signer = {
      certificate,
      ...(successor ? { successor } : {}),
      async sign(digest, purpose, about) {
        const what = { digest: Buffer.from(digest).toString('hex'), certificate: sha256(certificate) }
        const one: Asked = { ...place, purpose, ...what, ...(about === undefined ? {} : { about }) }
        all.push(one)
        return signatures.get(keyOf(one)) ?? placeholderFor(certificate)
      },
    }
    places.set(made.sign, place)
    certificates.set(sha256(certificate), certificate)
    return made
  }
  const inside = (one: Signer, image: string): Signer => {
    const place = places.get(one.sign)
    const successor = one.successor && inside(one.successor, image)
    if (place) return signer(one.certificate, { ...place, image }, successor)
    return successor ? { certificate: one.certificate, sign: (...what) => one.sign(...what), successor } : one
  }
  return {
    signer,
    certificates: () => new Map(certificates),
    within: (signers, image) =>
      Object.fromEntries(KEY_ROLES.map((role) => [role, inside(signers[role], image)])) as unknown as Signers,
    asked: () => [...all],
    missing: () => all.filter((one) => !signatures.has(keyOf(one))),
  }
}

/**
 * Of the digests that lack a signature those that can be signed now, each once: none that may cover one that is missing
 * too. `holds` says whether artifacts of an image may be in another. In the order of roles and purposes, not of the build,
 * which does several things at once.
 */
export function nextRound(missing: readonly Asked[], holds: (image: string, other: string) => boolean): Asked[] {
  const free = missing.filter((one) => !missing.some((other) => mayHold(one, other, holds)))
  const distinct = new Map<AskedKey, Asked>()
  for (const one of free.sort(byRoleAndPurpose)) if (!distinct.has(keyOf(one))) distinct.set(keyOf(one), one)
  return [...distinct.values()]
}

function mayHold(one: Asked, other: Asked, holds: (image: string, other: string) => boolean): boolean {
  const isSameImage = one.image === undefined || other.image === undefined || one.image === other.image
  if (isSameImage) return MAY_HOLD[one.purpose].includes(other.purpose)
  return PACKED.has(one.purpose) && holds(one.image!, other.image!)
}

const PURPOSE_ORDER = Object.keys(MAY_HOLD) as Purpose[]

function byRoleAndPurpose(a: Asked, b: Asked): number {
  const rank = ({ role, successor, purpose }: Asked) =>
    (KEY_ROLES.indexOf(role) * 2 + (successor ? 1 : 0)) * PURPOSE_ORDER.length + PURPOSE_ORDER.indexOf(purpose)
  return rank(a) - rank(b) || compare(a.image ?? '', b.image ?? '') || compare(a.about ?? '', b.about ?? '')
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** Ends a build that lacks signatures and has nothing left to ask for. */
export class SignaturesMissing extends Error {}
