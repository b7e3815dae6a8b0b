// What there is to compare of a UKI, section by section.
import { createHash } from 'node:crypto'
import { authenticodeDigest } from '../../src/formats/authenticode.ts'
import { decodePe, sectionContent } from '../../src/formats/pe.ts'
import type { Facts, Found } from './compare.ts'

/** Sections by profile and name (`main .cmdline`; `base` before the first profile), and the bytes of `.initrd`. */
export function ukiSections(uki: Buffer): { found: Found; initrd: Buffer } {
  const sections = sectionsOf(uki)
  return { found: factsOf(sections), initrd: sections.find(({ name }) => name === '.initrd')!.bytes }
}

interface Section {
  profile: string
  name: string
  bytes: Buffer
}

function sectionsOf(uki: Buffer): Section[] {
  let profile = 'base'
  return decodePe(uki, 'UKI').sections.map((section) => {
    const bytes = Buffer.from(sectionContent(uki, section))
    if (section.name === '.profile') profile = /^ID="?([^"\n]*)/m.exec(bytes.toString())?.[1] ?? profile
    return { profile, name: section.name, bytes }
  })
}

const TEXTS = ['.sbat', '.sdmagic', '.osrel', '.cmdline', '.uname', '.profile', '.pcrpkey']

function factsOf(sections: readonly Section[]): Found {
  const found: Found = new Map()
  for (const [place, { profile, name, bytes }] of sections.entries()) {
    const facts: Facts = { place: String(place) }
    if (TEXTS.includes(name)) Object.assign(facts, textFacts(bytes.toString()))
    else if (name === '.pcrsig') Object.assign(facts, policyFacts(bytes))
    else if (name === '.linux')
      Object.assign(facts, { size: String(bytes.length), content: authenticodeDigest(bytes, decodePe(bytes)).toString('hex') })
    else facts['size'] = String(bytes.length)
    if (!['.initrd', '.linux', '.pcrsig', ...TEXTS].includes(name))
      facts['content'] = createHash('sha256').update(bytes).digest('hex').slice(0, 16)
    found.set(`${profile} ${name}`, facts)
  }
  return found
}

/** The root hash is another for every image; what ends a text is told apart from the text. */
function textFacts(text: string): Facts {
  const end = /[\0\n]*$/.exec(text)![0]
  return {
    text: text.slice(0, text.length - end.length).replace(/(?<=usrhash=)[0-9a-f]{64}/, 'ROOTHASH'),
    end: JSON.stringify(end),
  }
}

/** Which policies are signed, by which key; digests and signatures are another for every image. */
function policyFacts(bytes: Buffer): Facts {
  const banks: [string, { pcrs: number[]; pkfp: string }[]][] = Object.entries(JSON.parse(bytes.toString().replace(/\0+$/, '')))
  const policies = banks.flatMap(([bank, list]) => list.map(({ pcrs, pkfp }) => `${bank} ${pcrs} ${pkfp}`))
  return { policies: policies.join(', '), size: String(bytes.length) }
}
