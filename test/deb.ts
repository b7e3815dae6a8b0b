/** Package files made in a test. */
import { encodeAr } from '../src/formats/ar.ts'
import { encodeTar } from '../src/formats/tar.ts'

/** A .deb of architecture `all` with these control fields beside the usual ones, and these files. */
export function debOf(
  name: string,
  version: string,
  fields: Record<string, string> = {},
  files: Record<string, string> = {},
): Buffer {
  const control = {
    Package: name,
    Version: version,
    Architecture: 'all',
    Maintainer: 'A Cook <cook@example.org>',
    ...fields,
    Description: name,
  }
  const text = Object.entries(control)
    .map(([key, value]) => `${key}: ${value}\n`)
    .join('')
  const data = Object.entries(files).map(([path, text]) => ({ path: `./${path}`, bytes: Buffer.from(text), mode: 0o644 }))
  return Buffer.from(
    encodeAr([
      { name: 'debian-binary', data: Buffer.from('2.0\n') },
      { name: 'control.tar', data: encodeTar([{ path: './control', bytes: Buffer.from(text) }]) },
      { name: 'data.tar', data: encodeTar(data) },
    ]),
  )
}
