/**
 * A tree as an OCI image: a folder with one layer, its configuration and manifest, addressed by digest.
 *
 * Spec: https://github.com/opencontainers/image-spec (image-layout, config, manifest, layer)
 */
import { createHash } from 'node:crypto'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { sha256 } from '../../base/digest.ts'
import { Fault } from '../../base/fault.ts'
import type { Architecture } from '../../formats/dps.ts'
import type { Workers } from '../../run/workers.ts'
import type { Tree } from '../../tree/tree.ts'
import { type Compression, compressed } from './compress.ts'
import { atRest, tarOf } from './tar.ts'

export interface OciOptions {
  architecture: Architecture
  epoch: number
  /** Named in the index: `podman run oci:FOLDER:ID`. */
  imageId?: string | undefined
  imageVersion?: string | undefined
  /** What /sbin/init is started with. */
  kernelCommandLine: readonly string[]
  labels: Readonly<Record<string, string>>
  annotations: Readonly<Record<string, string>>
  compression: Compression
  level: number
  workers?: Workers | number | undefined
}

const LAYER_SUFFIX: Partial<Record<Compression, string>> = { none: '', gz: '+gzip', zstd: '+zstd' }
const ARCHITECTURES: Record<Architecture, string> = { 'x86-64': 'amd64', arm64: 'arm64' }
const MEDIA = 'application/vnd.oci.image'

interface Blob {
  digest: string
  size: number
}

/** Writes the image into a new folder. On failure there is none. */
export async function writeOci(tree: Tree, path: string, options: OciOptions): Promise<void> {
  const suffix = LAYER_SUFFIX[options.compression]
  if (suffix === undefined)
    throw new Fault('recipe', `Cannot compress a layer with ${options.compression}: OCI knows gz, zstd and none`)
  const blobs = `${path}/blobs/sha256`
  await mkdir(path)
  try {
    await mkdir(blobs, { recursive: true })
    const layer = await writeLayer(atRest(tree), blobs, options)
    const config = await writeBlob(blobs, configOf(layer.diffId, options))
    const manifest = await writeBlob(blobs, {
      schemaVersion: 2,
      mediaType: `${MEDIA}.manifest.v1+json`,
      config: { mediaType: `${MEDIA}.config.v1+json`, ...config },
      layers: [{ mediaType: `${MEDIA}.layer.v1.tar${suffix}`, digest: layer.digest, size: layer.size }],
      annotations: {
        ...(options.imageVersion === undefined ? {} : { 'org.opencontainers.image.version': options.imageVersion }),
        ...options.annotations,
      },
    })
    const named = options.imageId === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': options.imageId } }
    const index = { schemaVersion: 2, mediaType: `${MEDIA}.index.v1+json` }
    const manifests = [{ mediaType: `${MEDIA}.manifest.v1+json`, ...manifest, ...named }]
    await writeFile(`${path}/index.json`, JSON.stringify({ ...index, manifests }))
    await writeFile(`${path}/oci-layout`, JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  } catch (error) {
    await rm(path, { recursive: true, force: true })
    throw error
  }
}

function configOf(diffId: string, { architecture, epoch, kernelCommandLine, labels }: OciOptions) {
  const created = new Date(epoch * 1000).toISOString().replace('.000Z', 'Z')
  return {
    created,
    architecture: ARCHITECTURES[architecture],
    os: 'linux',
    config: {
      Cmd: ['/sbin/init', ...kernelCommandLine],
      ...(Object.keys(labels).length > 0 ? { Labels: labels } : {}),
    },
    rootfs: { type: 'layers', diff_ids: [diffId] },
    history: [{ created, comment: 'Baked by Bisque' }],
  }
}

/** The layer streams through: its digest before and after compression is taken on the way. */
async function writeLayer(tree: Tree, blobs: string, options: OciOptions): Promise<Blob & { diffId: string }> {
  const [plain, packed] = [createHash('sha256'), createHash('sha256')]
  const fresh = `${blobs}/layer`
  const input = counted(tarOf(tree, { epoch: options.epoch }), (bytes) => plain.update(bytes))
  let size = 0
  const output = counted(compressed(input, options), (bytes) => {
    packed.update(bytes)
    size += bytes.length
  })
  await writeFile(fresh, output)
  const digest = packed.digest('hex')
  await rename(fresh, `${blobs}/${digest}`)
  return { diffId: `sha256:${plain.digest('hex')}`, digest: `sha256:${digest}`, size }
}

async function writeBlob(blobs: string, value: unknown): Promise<Blob> {
  const bytes = Buffer.from(JSON.stringify(value))
  const digest = sha256(bytes)
  await writeFile(`${blobs}/${digest}`, bytes)
  return { digest: `sha256:${digest}`, size: bytes.length }
}

async function* counted(input: AsyncIterable<Uint8Array>, see: (bytes: Uint8Array) => void): AsyncGenerator<Uint8Array> {
  for await (const bytes of input) {
    see(bytes)
    yield bytes
  }
}
