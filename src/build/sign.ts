/**
 * Offline signing of a recipe's images, in rounds. Every round is the same build from the start: it takes the signatures
 * that there are, asks for those it lacks, and leaves an image only where it lacks none. What it makes is what a build that
 * had the keys would have made.
 */
import { readFileSync } from 'node:fs'
import { digestOf, sha256 } from '../base/digest.ts'
import { Fault } from '../base/fault.ts'
import { formatLock } from '../packages/lock.ts'
import type { ImageRecipe, Recipe } from '../recipe/recipe.ts'
import { type AskedKey, keyOf, nextRound, type OfflineSigners, offlineSigners, SignaturesMissing } from '../signing/offline.ts'
import { loadRequests, readSignatures, type Signatures, type SigningRound, writeRequests } from '../signing/offline-folder.ts'
import {
  describe,
  type ImageInputs,
  isForImage,
  keyName,
  type SigningRequest,
  type SigningRequests,
  signatureName,
} from '../signing/offline-requests.ts'
import { signCommand } from '../signing/offline-script.ts'
import { KEY_ROLES, signersInForce } from '../signing/signer.ts'
import { type Begun, type BuildOptions, type Built, bake, beginBuild, gather } from './build.ts'
import type { Env } from './env.ts'
import { recipeDigest } from './recipe-digest.ts'

export interface SignOptions extends Omit<BuildOptions, 'relock'> {
  /** Folder of requests and signatures. */
  folder: string
  /** What hints say: command lines for this recipe. */
  commands: { prepareElsewhere: string; build: string }
}

/**
 * Writes what is to be signed first. In a folder where that is done, renews what may be lost, and says what is still open.
 * Where nothing is signed by a key that is elsewhere, the image is made at once.
 */
export async function prepareSigning(recipe: Recipe, options: SignOptions, env: Env): Promise<SigningRound | Built> {
  const run = await beginSigning(recipe, options, env)
  const { known, offline } = run
  if (known === undefined) return bakeRound(run, options, env)
  await writeRequests(options.folder, known, offline.certificates())
  const { good } = await signaturesOf(known, run, options, env)
  const round = lastRound(known)
  const requests = known.requests.filter((request) => request.round === round)
  return { folder: options.folder, round, requests, open: known.requests.filter((request) => !good.has(keyOf(request))) }
}

/** Takes the signatures in the folder, all of which must be there and right, and makes the image, or the next round. */
export async function attachSignatures(recipe: Recipe, options: SignOptions, env: Env): Promise<SigningRound | Built> {
  const run = await beginSigning(recipe, options, env)
  const { known } = run
  if (known === undefined)
    throw new Fault('missing', `Cannot attach signatures: there are no requests in ${options.folder}`, {
      hint: options.commands.prepareElsewhere,
    })
  const found = await signaturesOf(known, run, options, env)
  refuseIncomplete(found, known, options)
  for (const [key, signature] of found.good) run.signatures.set(key, signature)
  return bakeRound(run, options, env)
}

interface SigningRun {
  begun: Begun
  inputs: ImageInputs
  /** What the folder asks for already. */
  known: SigningRequests<ImageInputs> | undefined
  offline: OfflineSigners
  /** What the signers answer with. */
  signatures: Map<AskedKey, Uint8Array>
}

async function beginSigning(recipe: Recipe, options: SignOptions, env: Env): Promise<SigningRun> {
  const known = await loadRequests(options.folder)
  if (known !== undefined && !isForImage(known))
    throw new Fault('usage', `Cannot use the requests in ${options.folder}: they are for updates of firmware variables`, {
      hint: options.commands.prepareElsewhere,
    })
  const signatures = new Map<AskedKey, Uint8Array>()
  const offline = offlineSigners(signatures)
  const begun = await beginBuild(recipe, { ...options, relock: false }, env, offline)
  if (offline.certificates().size === 0)
    throw new Fault('usage', 'Cannot sign offline: every key of this recipe is here', { hint: options.commands.build })
  const inputs = inputsOf(begun)
  if (known !== undefined) refuseOtherInputs(known.inputs, inputs, options)
  return { begun, inputs, known, offline, signatures }
}

function inputsOf({ recipe, lock, signing, epoch }: Begun): ImageInputs {
  const certificates = KEY_ROLES.map((role) => signersInForce(signing.signers[role]).map((one) => sha256(one.certificate)))
  return {
    bisque: version,
    recipe: recipeDigest(recipe),
    lock: sha256(formatLock(lock)),
    certificates: digestOf({ owner: signing.owner, certificates, revoked: signing.revoked ?? [] }),
    epoch,
  }
}

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }

const INPUT_NAMES: Readonly<Record<keyof ImageInputs, string>> = {
  bisque: 'the version of Bisque',
  recipe: 'the recipe',
  lock: 'its lock',
  certificates: 'the certificates',
  epoch: "the image's time",
}

function refuseOtherInputs(before: ImageInputs, now: ImageInputs, { folder, commands }: SignOptions): void {
  const short = (value: string | number) => (String(value).length === 64 ? `${String(value).slice(0, 12)}…` : `${value}`)
  const changed = (Object.keys(INPUT_NAMES) as (keyof ImageInputs)[])
    .filter((name) => before[name] !== now[name])
    .map((name) => `  ${INPUT_NAMES[name]}: was ${short(before[name])}, is ${short(now[name])}`)
  if (changed.length === 0) return
  const what = `Cannot use the requests in ${folder}: they were made from something else`
  throw new Fault('usage', `${what}\n${changed.join('\n')}`, { hint: commands.prepareElsewhere })
}

async function signaturesOf(
  known: SigningRequests,
  { offline }: SigningRun,
  { folder }: SignOptions,
  { report }: Env,
): Promise<Signatures> {
  const found = await readSignatures(folder, known.requests, offline.certificates())
  for (const name of found.extra)
    report.tell({ type: 'note', level: 'warning', message: `${name} belongs to no request: left alone` })
  return found
}

/** Before any work: a build that lacks signatures it asked for could only ask for them again. */
function refuseIncomplete({ good, wrong, absent }: Signatures, known: SigningRequests, options: SignOptions): void {
  if (wrong.length + absent.length === 0) return
  const lines = [
    ...wrong.map(({ request, why }) => `  ${signatureName(request)} ${why}`),
    ...absent.map((request) => `  ${signatureName(request)} is not there`),
  ]
  const counts = [
    ...(wrong.length > 0 ? [`${wrong.length} ${wrong.length === 1 ? 'is' : 'are'} wrong`] : []),
    ...(absent.length > 0 ? [`${absent.length} ${absent.length === 1 ? 'is' : 'are'} missing`] : []),
  ]
  const rest = good.size > 0 ? `, ${good.size} ${good.size === 1 ? 'is' : 'are'} right` : ''
  const what = `Cannot attach signatures: of ${known.requests.length}, ${counts.join(', ')}${rest}`
  const keys = [...new Set([...wrong.map(({ request }) => request), ...absent].map(keyName))]
  throw new Fault(wrong.length > 0 ? 'integrity' : 'missing', [what, ...lines].join('\n'), {
    hint: keys.map((name) => signCommand(options.folder, name)).join('\n'),
  })
}

/** Builds with the signatures there are. What they do not suffice for is asked for in the folder. */
async function bakeRound(run: SigningRun, options: SignOptions, env: Env): Promise<SigningRound | Built> {
  const { begun, inputs, known, offline } = run
  const build = { ...options, relock: false }
  try {
    return await bake(await gather(begun, build, env), build, env)
  } catch (error) {
    if (!(error instanceof SignaturesMissing)) throw error
  }
  const before = known?.requests ?? []
  refuseOther(before, offline, options)
  const round = before.length === 0 ? 1 : lastRound({ requests: before }) + 1
  const requests = nextRound(offline.missing(), mayHold(begun.recipe)).map((one): SigningRequest => ({ round, ...one }))
  await writeRequests(options.folder, { inputs, requests: [...before, ...requests] }, offline.certificates())
  return { folder: options.folder, round, requests, open: requests }
}

const lastRound = ({ requests }: Pick<SigningRequests, 'requests'>): number => Math.max(0, ...requests.map(({ round }) => round))

/** What was signed before must be what this build comes to as well. */
function refuseOther(before: readonly SigningRequest[], offline: OfflineSigners, { folder, commands }: SignOptions): void {
  const asked = new Set(offline.asked().map(keyOf))
  const gone = before.filter((request) => !asked.has(keyOf(request)))
  if (gone.length === 0) return
  const why = 'files of the recipe changed since then, or a script of it does not make the same twice'
  const lines = gone.map((request) => `  ${describe(request)} (round ${request.round})`)
  throw new Fault(
    'integrity',
    `Cannot go on with ${folder}: this build does not come to what was signed before: ${why}\n${lines.join('\n')}`,
    { hint: commands.prepareElsewhere },
  )
}

/** Whether artifacts of an earlier image may be in a later one: a setting names them, or scripts may have put them there. */
export function mayHold(recipe: Recipe): (image: string, other: string) => boolean {
  const images = [...recipe.subimages, recipe]
  const place = (name: string) => images.findIndex((image) => image.name === name)
  return (name, other) => {
    const [at, before] = [place(name), place(other)]
    if (before >= at) return false
    return namesOutput(images[at]!, images[before]!) || images.slice(0, at + 1).some(hasScripts)
  }
}

const hasScripts = ({ settings }: ImageRecipe): boolean =>
  [
    ...[settings.prepareScripts, settings.buildScripts, settings.postInstallationScripts],
    ...[settings.finalizeScripts, settings.postOutputScripts],
  ].some((scripts) => scripts.length > 0)

/** Whether a setting is the path of another image's output, or of the folder with all of them. */
function namesOutput({ settings: { outputDirectory, ...settings } }: ImageRecipe, other: ImageRecipe): boolean {
  const prefix = `${outputDirectory}/${other.settings.output}`
  const isOutput = (value: unknown): boolean => {
    if (typeof value === 'string') return value === outputDirectory || value.startsWith(prefix)
    return typeof value === 'object' && value !== null && Object.values(value).some(isOutput)
  }
  return isOutput(settings)
}
