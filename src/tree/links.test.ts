import assert from 'node:assert/strict'
import { test } from 'node:test'
import { followLinks, type Linked, placeOf } from './links.ts'

const directory: Linked = { type: 'directory' }
const file: Linked = { type: 'file' }
const link = (target: string): Linked => ({ type: 'symlink', target })
const tree = new Map<string, Linked>([
  ...(['', 'a', 'a/b'] as const).map((path) => [path, directory] as const),
  ['a/b/c', file],
  ['up', link('../../../a')],
  ['far', link('/up/b')],
  ['loop', link('loop')],
  ['wide', link('one/../a')],
  ['gone', link('a/not-here')],
])

test('placeOf() stays inside the tree, and gives up on loops', () => {
  assert.equal(placeOf(tree, '/far/c'), 'a/b/c')
  assert.equal(placeOf(tree, 'far/./../b//c'), 'a/b/c')
  assert.equal(placeOf(tree, '/up'), 'a')
  assert.equal(placeOf(tree, '/'), '')
  for (const path of ['/loop', '/a/b/c/d', '/a/b/c/..', '/nothing', '/gone', '/wide', '/gone/..'])
    assert.equal(placeOf(tree, path), undefined, path)
})

test('followLinks() tells every link it passed, and where a path ends that is not all there', () => {
  assert.deepEqual(followLinks(tree, 'far/c'), { path: 'a/b/c', links: ['far', 'up'], exists: true })
  assert.deepEqual(followLinks(tree, 'gone/x'), { path: 'a/not-here/x', links: ['gone'], exists: false })
})

test('followLinks() takes forty links and not one more, as the kernel does', () => {
  const chain = (length: number) =>
    new Map<string, Linked>([
      ...Array.from({ length }, (_, i) => [`l${i}`, link(i === length - 1 ? 'end' : `l${i + 1}`)] as const),
      ['end', file],
    ])
  assert.equal(placeOf(chain(40), 'l0'), 'end')
  assert.equal(placeOf(chain(41), 'l0'), undefined)
})
