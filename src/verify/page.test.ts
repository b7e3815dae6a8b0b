import assert from 'node:assert/strict'
import { test } from 'node:test'
import { testKeys } from '../../test/keys.ts'
import { escapeHtml, html } from '../base/page.ts'
import type { ImageFacts } from './facts.ts'
import type { Link } from './link.ts'
import { formatVerifyPage } from './page.ts'

const HOSTILE = `<script src="https://x.test/a.js">alert('1')</script>" onload='x' & ]]> \u202egnp.exe \0 \ud800`

/** The elements of a page; throws where a tag is not closed, an attribute not quoted, or text is not escaped. */
function elementsOf(page: string): { name: string; attributes: Record<string, string>; text: string }[] {
  const body = page.replace('<!DOCTYPE html>\n', '')
  const open: string[] = []
  const found: { name: string; attributes: Record<string, string>; text: string }[] = []
  let at = 0
  for (const match of body.matchAll(/<(\/?)([a-z][a-z0-9]*)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/gi)) {
    const text = body.slice(at, match.index)
    assert.doesNotMatch(text, /[<]|&(?!(?:amp|lt|gt|quot|#39);)/, text)
    if (found.length > 0) found.at(-1)!.text += text
    at = match.index + match[0].length
    const [, closing, name = '', attributes = '', selfClosing] = match
    if (closing) assert.equal(open.pop(), name, `</${name}>`)
    else if (!selfClosing) open.push(name)
    if (!closing)
      found.push({
        name,
        text: '',
        attributes: Object.fromEntries([...attributes.matchAll(/([\w:-]+)="([^"]*)"/g)].map(([, key, value]) => [key!, value!])),
      })
  }
  assert.deepEqual(open, [])
  assert.match(body.slice(at), /^\s*$/)
  return found
}

const links = (text: string): Link[] => [
  { stage: 'firmware', name: 'partition table', ok: true, evidence: text },
  { stage: 'verity', name: `hash tree ${text}`, ok: false, evidence: '', problem: text, hint: text },
  { stage: 'system', name: 'accounts', ok: true, evidence: 'not known: nothing' },
]

async function factsWith(text: string): Promise<ImageFacts> {
  const { signers } = await testKeys()
  const { pk, kek, db, verity } = signers
  const [root, digest] = ['ab'.repeat(32), 'cd'.repeat(32)]
  const profile = { number: 1, id: text, title: text, commandLine: text, uname: text, pcr11: { [text]: { sha256: digest } } }
  const facts = {
    enrolments: [{ name: text, certificates: { PK: [pk.certificate], KEK: [kek.certificate], db: [], dbx: [] } }],
    anchor: {
      from: 'image',
      pk: [pk.certificate],
      kek: [kek.certificate],
      db: [db.certificate, Buffer.from('no certificate')],
      verity: [verity.certificate],
    },
    programs: [{ kind: 'systemd-boot', path: text, version: text, digest, signers: [db.certificate] }],
    ukis: [
      {
        path: `EFI/Linux/${text}`,
        digest,
        rootHash: root,
        uname: text,
        profiles: [profile, { ...profile, initrd: { ipePolicies: [{ path: text, text, name: text, signers: [] }] } }],
      },
    ],
    trees: [
      {
        verity: 'usr',
        rootHash: root,
        fileSystem: text,
        sound: true,
        signers: [verity.certificate],
        partition: { sizeBytes: 4096 },
      },
    ],
  }
  return facts as unknown as ImageFacts
}

test('a page is well-formed, has nothing of others in it, and shows every link', async () => {
  const facts = await factsWith(HOSTILE)
  for (const images of [
    [{ path: HOSTILE, links: links(HOSTILE), facts }],
    [
      { path: 'a.raw', links: links(HOSTILE) },
      { path: 'b.raw', links: links('x').filter(({ ok }) => ok), facts },
    ],
  ]) {
    const page = formatVerifyPage(images, { program: HOSTILE })
    const elements = elementsOf(page)
    assert.ok(!elements.some(({ name }) => ['script', 'iframe', 'img', 'link', 'object', 'form'].includes(name)))
    for (const { attributes } of elements) {
      assert.ok(!Object.keys(attributes).some((key) => /^on|^src$/.test(key)), JSON.stringify(attributes))
      if (attributes['href'] !== undefined) assert.match(attributes['href'], /^#i\d+-[\w-]+$/)
    }
    assert.doesNotMatch(page, /[\0\u202a-\u202e]|\burl\(|@import/)
    assert.match(page, /default-src 'none'/)
    assert.ok(page.isWellFormed())
    const ids = elements.flatMap(({ attributes }) => attributes['id'] ?? [])
    assert.equal(new Set(ids).size, ids.length, 'ids are there once')
    for (const { attributes } of elements)
      if (attributes['href']) assert.ok(ids.includes(attributes['href'].slice(1)), attributes['href'])
    const text = elements.map((one) => one.text).join('')
    for (const { links: all } of images) for (const { name } of all) assert.ok(text.includes(escapeHtml(name)), name)
  }
})

test('a page says in words what it says in colour, and that own keys prove little', async () => {
  const page = formatVerifyPage([{ path: 'a.raw', links: links('x'), facts: await factsWith('x') }], { program: 'Bisque' })
  assert.match(page, /1 of 3 links does not hold/)
  assert.match(
    page,
    /aria-label="The chain, in the order of the boot\. Firmware: 1 hold; Verity: 1 of 1 do not hold; System: 1 hold"/,
  )
  assert.match(page, /compare these fingerprints/)
  const elements = elementsOf(page)
  for (const { name, attributes } of elements)
    if (name === 'svg') assert.ok(attributes['aria-label'] ?? attributes['aria-hidden'], 'drawings have a name or are left out')
})

test('html escapes what it is given, and the same input gives the same page', () => {
  assert.equal(
    html`<p title="${'"><b>'}">${['a<', html`<i>${undefined}</i>`, false, 1]}</p>`.markup,
    '<p title="&quot;&gt;&lt;b&gt;">a&lt;<i></i>1</p>',
  )
  const page = () => formatVerifyPage([{ path: 'a.raw', links: links('x') }], { program: 'Bisque' })
  assert.equal(page(), page())
})
