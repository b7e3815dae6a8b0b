/** `requests.json`: what is to be signed offline, under which file names, and what it was made from. */
import { isSha256, type Sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { type Asked, keyOf } from './offline.ts'
import { KEY_ROLES, PURPOSES } from './signer.ts'

/** What an image's digests follow from. Where any of it is another, all requests are void. */
export interface ImageInputs {
  /** Version of Bisque. */
  bisque: string
  /** Digests of the recipe's settings, of its lock, and of all certificates with their owner. */
  recipe: Sha256
  lock: Sha256
  certificates: Sha256
  /** Seconds since 1970: the image's time. */
  epoch: number
}

/** What the digests of firmware updates follow from, besides certificates. */
export interface UpdateInputs {
  /** Folder of updates they are for: `2-open`. */
  updates: string
  /** Seconds since 1970: the time in the updates. */
  epoch: number
}

export type SigningInputs = ImageInputs | UpdateInputs

export interface SigningRequest extends Asked {
  /** Counted from 1. What a later round asks for covers signatures of earlier ones. */
  round: number
}

export interface SigningRequests<Inputs extends SigningInputs = SigningInputs> {
  inputs: Inputs
  requests: SigningRequest[]
}

export const isForImage = (all: SigningRequests): all is SigningRequests<ImageInputs> => 'recipe' in all.inputs
export const isForUpdates = (all: SigningRequests): all is SigningRequests<UpdateInputs> => 'updates' in all.inputs

export const REQUESTS_FILE = 'requests.json'
const VERSION = 1
const ALGORITHM = 'RSASSA-PKCS1-v1_5 with SHA-256'

/** The name of a key, of its certificate and in names of requests: `db`, `db-next`. */
export const keyName = ({ role, successor }: Pick<Asked, 'role' | 'successor'>): string => (successor ? `${role}-next` : role)

const stem = (request: SigningRequest): string =>
  `${request.round}-${keyName(request)}-${request.purpose.toLowerCase().replaceAll(' ', '-')}.${request.digest.slice(0, 16)}`
export const digestName = (request: SigningRequest): string => `${stem(request)}.digest`
export const signatureName = (request: SigningRequest): string => `${stem(request)}.sig`

/** `boot loader of main: Authenticode sha256:3f2a…` */
export const describe = ({ purpose, image, about }: Asked): string =>
  `${purpose}${image === undefined || image === 'main' ? '' : ` of ${image}`}${about === undefined ? '' : `: ${about}`}`

export function formatRequests({ inputs, requests }: SigningRequests): string {
  const shown = requests.map((request) => ({
    round: request.round,
    role: request.role,
    ...(request.successor ? { successor: true } : {}),
    purpose: request.purpose,
    ...(request.image === undefined ? {} : { image: request.image }),
    ...(request.about === undefined ? {} : { about: request.about }),
    algorithm: ALGORITHM,
    digest: request.digest,
    certificate: request.certificate,
    file: digestName(request),
    signature: signatureName(request),
  }))
  return `${JSON.stringify({ requestsVersion: VERSION, inputs, requests: shown }, null, 2)}\n`
}

/** Reads requests back. Names of files follow from the rest, so that nobody else chooses them. */
export function parseRequests(text: string): SigningRequests {
  const wrong = (why: string): never => {
    throw new Fault('format', `Cannot read ${REQUESTS_FILE}: ${why}`, { hint: 'Remove its folder, and ask for signatures again' })
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    wrong((cause as Error).message)
  }
  const { requestsVersion, inputs, requests } = isObject(value) ? value : wrong('it is not an object')
  if (requestsVersion !== VERSION) wrong(`it has version ${JSON.stringify(requestsVersion)}, expected ${VERSION}`)
  if (!isInputs(inputs)) return wrong('"inputs" is not what Bisque writes')
  if (!Array.isArray(requests)) return wrong('"requests" is not a list')
  const parsed = requests.map((one: unknown, i) => parseRequest(one) ?? wrong(`request ${i + 1} is not what Bisque writes`))
  if (new Set(parsed.map(keyOf)).size !== parsed.length) wrong('it asks for the same signature twice')
  return { inputs, requests: parsed }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isDigest = (value: unknown): value is Sha256 => typeof value === 'string' && isSha256(value)
const isText = (value: unknown): value is string | undefined =>
  value === undefined || (typeof value === 'string' && value.length <= 1000 && !/\p{Cc}/u.test(value))

function isInputs(value: unknown): value is SigningInputs {
  if (!isObject(value) || !Number.isSafeInteger(value['epoch'])) return false
  const { bisque, recipe, lock, certificates, updates } = value
  if (updates !== undefined) return recipe === undefined && typeof updates === 'string' && /^\d{1,6}-[a-z]{1,16}$/.test(updates)
  return typeof bisque === 'string' && [recipe, lock, certificates].every(isDigest)
}

function parseRequest(value: unknown): SigningRequest | undefined {
  if (!isObject(value)) return undefined
  const { round, successor, digest, certificate, image, about, algorithm, file, signature } = value
  const role = KEY_ROLES.find((known) => known === value['role'])
  const purpose = PURPOSES.find((known) => known === value['purpose'])
  if (role === undefined || purpose === undefined || !isDigest(digest) || !isDigest(certificate)) return undefined
  if (!Number.isSafeInteger(round) || (round as number) < 1 || (round as number) > 1000) return undefined
  if ((successor !== undefined && successor !== true) || !isText(image) || !isText(about) || algorithm !== ALGORITHM)
    return undefined
  const request: SigningRequest = {
    ...{ round: round as number, role, purpose, digest, certificate },
    ...(successor === undefined ? {} : { successor }),
    ...(image === undefined ? {} : { image }),
    ...(about === undefined ? {} : { about }),
  }
  return file === digestName(request) && signature === signatureName(request) ? request : undefined
}
