import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatMkosiManifest, type InstalledPackage } from './mkosi-manifest.ts'

const packageOf = (name: string, changes: Partial<InstalledPackage> = {}): InstalledPackage => ({
  ...{ name, version: '1.0', architecture: 'amd64', source: name, sizeBytes: 2048 },
  ...changes,
})

const image = { name: 'Soup', distribution: 'debian', architecture: 'x86-64', format: 'disk', release: 'trixie' }

test('formatMkosiManifest() writes the text that mkosi writes', () => {
  const packages = [packageOf('libsoup'), packageOf('libsoup', { architecture: 'i386' }), packageOf('bread', { sizeBytes: 0 })]
  const text = formatMkosiManifest({ ...image, version: '1.2', packages, extension: new Map() })
  assert.equal(
    text,
    `{
  "manifest_version": 1,
  "config": {
    "name": "Soup",
    "distribution": "debian",
    "architecture": "x86-64",
    "output_format": "disk",
    "version": "1.2",
    "release": "trixie"
  },
  "packages": [
    {
      "type": "deb",
      "name": "bread",
      "version": "1.0",
      "architecture": "amd64",
      "size": 0
    },
    {
      "type": "deb",
      "name": "libsoup",
      "version": "1.0",
      "architecture": "amd64",
      "size": 2048
    },
    {
      "type": "deb",
      "name": "libsoup",
      "version": "1.0",
      "architecture": "i386",
      "size": 2048
    }
  ],
  "extension": {}
}`,
  )
  assert.equal(formatMkosiManifest({ ...image, version: '1.2', packages: packages.toReversed(), extension: new Map() }), text)
})

test('formatMkosiManifest() tells what an extension says of itself, in ASCII as Python does', () => {
  const extension = new Map([
    ['ID', 'debian'],
    ['SYSEXT_ID', 'Möhre 🥕'],
  ])
  const text = formatMkosiManifest({ ...image, packages: [], extension })
  assert.match(
    text,
    /"packages": \[\],\n {2}"extension": \{\n {4}"ID": "debian",\n {4}"SYSEXT_ID": "M\\u00f6hre \\ud83e\\udd55"\n/,
  )
  assert.deepEqual(JSON.parse(text).extension, Object.fromEntries(extension))
  assert.ok(!('version' in JSON.parse(text).config))
})
