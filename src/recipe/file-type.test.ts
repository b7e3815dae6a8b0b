import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { folder, message, reads, refuses, refusesText, takes } from '../../test/setting-types.ts'
import * as file from './file-type.ts'
import * as type from './type.ts'

test('path counts from the recipe', () => {
  reads(file.path, 'a/../b', '/recipe/b')
  takes(file.path, '/b', '/b')
  assert.equal(refuses(file.path, ''), 'expected a path, got ""')
  assert.equal(refuses(file.imagePath, 'usr/bin'), 'expected an absolute path in the image, got "usr/bin"')
})

test('treeSource takes source:target in both syntaxes', () => {
  reads(file.treeSource, 'extra', { source: '/recipe/extra', target: '/' })
  reads(file.treeSource, 'extra:/usr/share', { source: '/recipe/extra', target: '/usr/share' })
  takes(file.treeSource, { source: 'a:b', target: '/x/../y' }, { source: '/recipe/a:b', target: '/y' })
  takes(file.treeSource, { source: 'a' }, { source: '/recipe/a', target: '/' })
  for (const wrong of [5, null, [], {}, { source: 'a', target: 'relative' }, '']) refuses(file.treeSource, wrong)
})

test('path expands ~ and $NAME in text only, and leaves what it does not know', () => {
  reads(file.path, '~/x', '/home/ada/x')
  reads(file.path, '$HOME/a', '/home/ada/a')
  // biome-ignore lint/suspicious/noTemplateCurlyInString: as shells write it
  reads(file.path, '${HOME}s', '/home/adas')
  reads(file.path, 'a/$UNKNOWN', '/recipe/a/$UNKNOWN')
  reads(file.path, '~bob/x', '/recipe/~bob/x')
  takes(file.path, '~/x', '/recipe/~/x')
})

test('pathOr keeps its words and makes everything else absolute', () => {
  reads(type.list(file.pathOr('default')), 'default extra.cpio', ['default', '/recipe/extra.cpio'])
  takes(file.pathOr('default'), 'default', 'default')
  assert.equal(refuses(file.pathOr('default'), ''), 'expected a path, got ""')
})

test('present refuses in text what is not there, and takes it from a recipe.ts, whose scripts may make it', (t) => {
  const directory = folder(t, { 'a/file': '' })
  const present = file.present(file.path)
  assert.equal(present.parse('a', { directory, env: {} }), join(directory, 'a'))
  assert.equal(
    message(() => present.parse('gone', { directory, env: {} })),
    `${directory}/gone does not exist`,
  )
  assert.equal(present.check('gone', { directory, env: {} }), join(directory, 'gone'))
  const tree = file.present(file.sourceTree, 'folder')
  assert.deepEqual(tree.parse('a:src', { directory, env: {} }), { source: join(directory, 'a'), target: 'src' })
  assert.match(
    message(() => tree.parse('a/file', { directory, env: {} })),
    /is not a folder$/,
  )
})

test('treeSource splits text at its first colon and wants the target absolute; sourceTree takes a relative one', () => {
  reads(file.treeSource, 'a:/b:/c', { source: '/recipe/a', target: '/b:/c' })
  refusesText(file.treeSource, 'a:b')
  refusesText(file.treeSource, ':/b')
  reads(file.treeSource, 'a:/../../etc', { source: '/recipe/a', target: '/etc' })
  reads(file.sourceTree, 'a:b/c', { source: '/recipe/a', target: 'b/c' })
  reads(file.sourceTree, 'a', { source: '/recipe/a', target: '' })
  takes(file.sourceTree, { source: 'a', target: 'b' }, { source: '/recipe/a', target: 'b' })
  for (const wrong of [5, null, [], {}, { source: 'a', target: 5 }]) refuses(file.sourceTree, wrong)
})

test('globs finds files in order of names, hidden ones only by name, and drops what is not there', (t) => {
  const directory = folder(t, { 'd/b.sh': '', 'd/a.sh': '', 'd/.hidden.sh': '', 'e/a.sh/x': '', plain: '' })
  const found = (text: string) => file.globs.parse(text, { directory, env: {} }).map((file) => file.slice(directory.length + 1))
  assert.deepEqual(found('d/*.sh'), ['d/a.sh', 'd/b.sh'])
  assert.deepEqual(found('?/a.sh plain gone go*'), ['d/a.sh', 'e/a.sh', 'plain'])
  assert.deepEqual(found('d/.h*'), ['d/.hidden.sh'])
  assert.deepEqual(found('**/x plain/*'), [])
  assert.deepEqual(file.globs.check(['gone'], { directory, env: {} }), [join(directory, 'gone')])
})

test('imageGlob counts from the image’s root, and a regular expression is marked as one', () => {
  reads(file.imageGlob, 'usr/*.a', '/usr/*.a')
  reads(file.imageGlob, '//usr', '/usr')
  refuses(file.imageGlob, '')
  reads(type.list(type.regularExpression), '^a,default', ['re:^a', 'default'])
})

test('credentials come from text, from a file and from a folder; an object is enough in recipe.ts', (t) => {
  const directory = folder(t, { 'creds/b': 'two', 'creds/a.x': 'one', 'creds/sub/c': '', single: '3' })
  const read = (text: string) => file.credentials.parse(text, { directory, env: {} })
  assert.deepEqual(read('a=1 "b=two words" c'), [
    { name: 'a', value: '1' },
    { name: 'b', value: 'two words' },
    { name: 'c', value: '' },
  ])
  assert.deepEqual(read('single'), [{ name: 'single', path: join(directory, 'single') }])
  assert.deepEqual(read('creds'), [
    { name: 'a.x', path: join(directory, 'creds/a.x') },
    { name: 'b', path: join(directory, 'creds/b') },
  ])
  assert.match(
    message(() => read('gone')),
    /expected NAME=VALUE, or a file or folder that is there, got "gone"/,
  )
  takes(file.credentials, { a: '1' }, [{ name: 'a', value: '1' }])
  takes(file.credentials, [{ name: 'a', path: 'p' }], [{ name: 'a', path: '/recipe/p' }])
  for (const wrong of [5, [5], [{ name: 'a' }], { a: 1 }]) refuses(file.credentials, wrong)
})
