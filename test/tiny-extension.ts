/** Extension images of a few pages, made as a build makes them, and signed by whom a test says. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Report } from '../src/base/report.ts'
import { encodeVeritySignature, verityPartitionUuids } from '../src/formats/verity.ts'
import { type PartitionSource, planDisk, writeDisk } from '../src/image/disk.ts'
import { writeErofs } from '../src/image/erofs.ts'
import { type ExtensionInput, makeExtension } from '../src/image/output/extension.ts'
import { writeVerity } from '../src/image/verity.ts'
import { signRootHash } from '../src/signing/root-hash.ts'
import type { Signer } from '../src/signing/signer.ts'
import { madeDirectory, madeFile } from '../src/tree/content.ts'
import { type Inode, treeOf } from '../src/tree/tree.ts'
import { EPOCH } from './keys.ts'

export interface TinyExtension extends Partial<Omit<ExtensionInput, 'signRootHash'>> {
  /** Without one the place of the signature stays empty. */
  signer?: Signer | undefined
}

const SEED = '4f0c2b7e-9d3a-4a51-8b1e-2f6d7c8a9b10'
const RELEASE = 'ID=_any\nARCHITECTURE=x86-64\n'

/** The whole disk of an extension called `soup`, or by its `output`. */
export async function tinyExtension({ signer, ...change }: TinyExtension): Promise<Uint8Array> {
  const { kind = 'sysext', output = 'soup' } = change
  const folder = mkdtempSync(join(tmpdir(), 'bisque-extension-'))
  try {
    const files = [
      [`usr/lib/extension-release.d/extension-release.${output}`, madeFile(RELEASE, EPOCH)],
      [`etc/extension-release.d/extension-release.${output}`, madeFile(RELEASE, EPOCH)],
      ['usr/bin/soup', madeFile(Buffer.alloc(100_000, 'a spoon of soup'), EPOCH, 0o755)],
      ['etc/soup.conf', madeFile(Buffer.alloc(100_000, 'hot '), EPOCH)],
    ] as const
    const input: ExtensionInput = {
      ...{ kind, output, architecture: 'x86-64', verity: 'signed', epoch: EPOCH, work: folder, workers: 1 },
      seed: SEED,
      signRootHash: signer && (async (rootHash) => encodeVeritySignature(await signRootHash(rootHash, signer))),
      ...change,
    }
    const disk = await makeExtension(treeOf(files, madeDirectory(EPOCH)), input, new Report(() => {}))
    await writeDisk(join(folder, 'disk.raw'), disk.plan, disk.sources)
    return readFileSync(join(folder, 'disk.raw'))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** An extension of any file system, or of several: each with hashes and a signature. */
export async function tinyDisk(
  contents: readonly { type: 'root' | 'usr'; data: Uint8Array }[],
  signer: Signer,
): Promise<Uint8Array> {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-extension-'))
  try {
    const partitions: Parameters<typeof planDisk>[0][number][] = []
    const sources: PartitionSource[] = []
    for (const { type, data } of contents) {
      const [path, hash] = [join(folder, type), join(folder, `${type}-verity`)]
      writeFileSync(path, data)
      const { rootHash, sizeBytes } = await writeVerity(path, hash, { salt: Buffer.alloc(32, 7), uuid: SEED, workers: 1 })
      const guids = verityPartitionUuids(rootHash)
      const signature = encodeVeritySignature(await signRootHash(rootHash, signer))
      partitions.push(
        { type, guid: guids.data, sizeBytes: data.length },
        { type: `${type}-verity`, guid: guids.hash, sizeBytes },
        { type: `${type}-verity-sig`, sizeBytes: signature.length },
      )
      sources.push({ path }, { path: hash }, { bytes: signature })
    }
    await writeDisk(join(folder, 'disk.raw'), planDisk(partitions, { seed: SEED, architecture: 'x86-64' }), sources)
    return readFileSync(join(folder, 'disk.raw'))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A file system of EROFS with these files. */
export async function tinyErofs(files: Readonly<Record<string, Inode>>): Promise<Uint8Array> {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-extension-'))
  try {
    const path = join(folder, 'erofs')
    const tree = treeOf(Object.entries(files), madeDirectory(EPOCH))
    await writeErofs(tree, path, { uuid: SEED, compression: 'none', workers: 1 }, new Report(() => {}))
    return readFileSync(path)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
