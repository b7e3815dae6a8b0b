/**
 * Writing an EROFS image with zstd, against mkfs.erofs at the same level and chunk size.
 * BENCH_TREE names a folder to pack; without it, a generated one of 64 MiB is.
 */
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Report } from '../src/base/report.ts'
import { formatSize } from '../src/base/size.ts'
import { writeErofs } from '../src/image/erofs.ts'
import { type Inode, type Tree, treeOf } from '../src/tree/tree.ts'
import { best, timePeer } from './peer.ts'

export const name = 'erofs'

export async function run(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-bench-'))
  try {
    const folder = process.env['BENCH_TREE'] ?? generate(join(dir, 'tree'))
    const tree = scan(folder)
    const input = [...tree.values()].reduce((sum, inode) => sum + (inode.type === 'file' ? inode.sizeBytes : 0), 0)
    console.log(`erofs: ${folder === join(dir, 'tree') ? 'generated tree' : folder}, ${tree.size} paths, ${formatSize(input)}`)
    for (const level of [3, 9]) {
      const options = { uuid: '11111111-2222-3333-4444-555566667777', compression: 'zstd', level } as const
      const ms = await best(() => writeErofs(tree, join(dir, 'ours'), options, new Report(() => {})))
      const size = statSync(join(dir, 'ours')).size
      console.log(`  level ${level}: ${Math.round(ms)} ms, ${Math.round(input / 1e3 / ms)} MB/s, ${formatSize(size)}`)
      const peer = timePeer('mkfs.erofs', ['--quiet', `-zzstd,${level}`, '-C131072', join(dir, 'theirs'), folder])
      if (peer === undefined) continue
      const theirs = statSync(join(dir, 'theirs')).size
      console.log(
        `  mkfs.erofs: ${Math.round(peer)} ms, ${formatSize(theirs)}; time ×${(ms / peer).toFixed(2)}, size ×${(size / theirs).toFixed(3)}`,
      )
    }
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** 1024 files of text-like and program-like bytes, the same on every machine. */
function generate(root: string): string {
  const words = Array.from({ length: 4096 }, (_, i) => (i * 2654435761).toString(36))
  let seed = 1
  const next = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  for (let i = 0; i < 1024; i++) {
    const dir = join(root, `d${i % 32}`)
    mkdirSync(dir, { recursive: true })
    const lines: string[] = []
    for (let bytes = next(128 << 10); bytes > 0; bytes -= 8) lines.push(words[next(words.length)]!)
    writeFileSync(join(dir, `f${i}`), lines.join(' '))
  }
  return root
}

function scan(root: string): Tree {
  const entries: [string, Inode][] = []
  for (const path of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
    const full = join(root, path)
    const s = lstatSync(full)
    const common = { mode: s.mode & 0o7777, uid: s.uid, gid: s.gid, mtime: Math.floor(s.mtimeMs / 1000) }
    if (s.isFile()) entries.push([path, { ...common, type: 'file', sizeBytes: s.size, content: { path: full } }])
    else if (s.isDirectory()) entries.push([path, { ...common, type: 'directory' }])
    else if (s.isSymbolicLink()) entries.push([path, { ...common, type: 'symlink', target: readlinkSync(full) }])
  }
  return treeOf(entries, { type: 'directory', mode: 0o755, uid: 0, gid: 0, mtime: 0 })
}
