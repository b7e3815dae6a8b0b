/** The page of a verified image: its chain drawn from the keys in firmware to what may run, and every link with its evidence. */
import { badge, formatPage, type Html, html, sign } from '../base/page.ts'
import { readCertificate } from '../formats/x509.ts'
import { brokenOf, DRAWING_STYLE, drawChain, drawFlow, fileName, idOf, LABELS } from './drawing.ts'
import type { ImageFacts } from './facts.ts'
import { type Link, STAGES, type Stage } from './link.ts'
import { sameBytes } from './trust.ts'

export interface Verified {
  path: string
  links: readonly Link[]
  facts?: ImageFacts
}

/** One page for all of them. `program` is whom it says it is from: `Bisque 0.3`. */
export function formatVerifyPage(images: readonly Verified[], { program }: { program: string }): string {
  const broken = images.reduce((n, { links }) => n + brokenOf(links).length, 0)
  const one = images.length === 1 ? images[0] : undefined
  return formatPage({
    title: one ? fileName(one.path) : `${images.length} images`,
    kicker: 'Chain of trust',
    mark: broken === 0 ? 'good' : 'bad',
    lead: one
      ? verdict(one)
      : html`${broken === 0 ? sign('good', 'all hold') : sign('bad', 'broken')} ${images.filter(({ links }) => brokenOf(links).length === 0).length} of ${images.length} images hold.`,
    body: images.map((image, i) => bodyOf(image, i, images.length > 1)),
    foot: html`Recomputed from the bytes of the image by ${program}; nothing of it was run. A page proves nothing by itself: compare fingerprints with those you know, or run <code>bisque verify</code> yourself.`,
    style: STYLE + DRAWING_STYLE,
  })
}

function verdict({ links }: Verified): Html {
  const broken = brokenOf(links).length
  return broken === 0
    ? html`${sign('good', 'sound')} All ${links.length} links hold.`
    : html`${sign('bad', 'broken')} ${broken} of ${links.length} links ${broken === 1 ? 'does' : 'do'} not hold.`
}

function bodyOf(image: Verified, index: number, named: boolean): Html {
  const stages = STAGES.map((stage) => ({ stage, links: image.links.filter((link) => link.stage === stage) })).filter(
    ({ links }) => links.length > 0,
  )
  const broken = brokenOf(image.links)
  return html`
${named && html`<h2 class="image">${fileName(image.path)}</h2><p class="lead">${verdict(image)}</p>`}
<figure class="chain"><div class="wide">${drawChain(stages, index)}</div></figure>
${broken.length > 0 && problemsOf(broken)}
${image.facts && anchorOf(image.facts)}
${image.facts && html`<section class="card"><h2>What hangs on what</h2>${drawFlow(image.facts, image.links)}</section>`}
${stages.map(({ stage, links }) => stageCard(stage, links, index, image.facts))}`
}

// ——— Whom it is judged by ———

function anchorOf(facts: ImageFacts): Html {
  const { anchor } = facts
  const said = {
    given: html`Judged by the certificates that were given with <code>--trust</code>.`,
    image: html`Judged by the keys the image enrols itself. Anyone can make an image that trusts its own keys: <strong>compare these fingerprints</strong> with those you know, or verify with <code>--trust</code>.`,
    signatures: html`<strong>Nothing anchors this image:</strong> it brings no keys to enrol, and none were given. Its signatures were judged by the certificates they carry. Verify with <code>--trust</code>.`,
  }
  const entered = (name: 'PK' | 'KEK') => facts.enrolments.flatMap(({ certificates }) => certificates[name])
  const roles = rolesOf([
    ['PK', anchor.pk ?? entered('PK')],
    ['KEK', anchor.kek ?? entered('KEK')],
    ['db', anchor.db],
    ['verity', anchor.verity],
  ])
  return html`<section class="card"><h2>Whom it trusts</h2><p>${said[anchor.from]}</p>
<div class="wide"><table><thead><tr><th scope="col">Role</th><th scope="col">Certificate</th><th scope="col">SHA-256</th></tr></thead>
<tbody>${roles.map(([role, one]) => html`<tr><th scope="row">${role}</th><td>${subjectOf(one)}</td><td>${fingerprint(one)}</td></tr>`)}</tbody></table></div></section>`
}

/** Each certificate once, with all it is trusted for. */
function rolesOf(given: readonly [role: string, certificates: readonly Uint8Array[]][]): [string, Uint8Array][] {
  const found: [string[], Uint8Array][] = []
  for (const [role, certificates] of given) {
    for (const one of certificates) {
      const known = found.find(([, other]) => sameBytes(one, other))
      if (!known) found.push([[role], one])
      else if (!known[0].includes(role)) known[0].push(role)
    }
  }
  return found.map(([roles, one]) => [roles.join(', '), one])
}

const subjectOf = (certificate: Uint8Array): Html => {
  try {
    const { subject, validTo } = readCertificate(certificate)
    return html`${(subject ?? 'no subject').replaceAll('\n', ', ')}<br/><span class="soft">until ${new Date(validTo).toISOString().slice(0, 10)}</span>`
  } catch {
    return html`cannot be read`
  }
}

/** In groups of four: that is how people compare them. */
function fingerprint(certificate: Uint8Array): Html {
  try {
    const hex = readCertificate(certificate).fingerprint256.replaceAll(':', '').toLowerCase()
    return html`<span class="mono print">${hex.replace(/(.{4})(?!$)/g, '$1 ')}</span>`
  } catch {
    return html`—`
  }
}

// ——— Every link ———

const problemsOf = (broken: readonly Link[]): Html => html`<section class="card bad"><h2>What does not hold</h2>
${broken.map(({ stage, name, problem, hint }) => html`<h3>${badge('bad', stage)} ${name}</h3><p class="problem">${problem}</p>${hint !== undefined && html`<p class="hint">${hint}</p>`}`)}</section>`

const ABOUT: Readonly<Record<Stage, string>> = {
  firmware: 'The disk is laid out as its table says, and the keys to enrol are signed by one another.',
  'boot loader': 'Firmware starts only programs that a certificate of db has signed.',
  UKI: 'Kernel, initrd and command line are one signed program.',
  'measured boot': 'What the TPM will measure is what the signed policies expect.',
  verity: 'Every block is covered by the root hash, and the root hash is signed.',
  policy: 'IPE decides what may run, by who vouches for the file system it is on.',
  kernel: 'The kernel was built so that all of this counts.',
  system: 'Nothing inside lets somebody in beside the chain.',
  updates: 'What comes next is signed, too.',
  artifacts: 'The files beside the image are those its manifest names.',
}

function stageCard(stage: Stage, links: readonly Link[], index: number, facts: ImageFacts | undefined): Html {
  const broken = brokenOf(links).length
  const rows = links.map(({ name, ok, evidence, problem, hint }) => {
    const unknown = ok && /^not known\b/.test(evidence)
    return html`<li>${sign(ok ? (unknown ? 'unsure' : 'good') : 'bad', ok ? (unknown ? 'not known' : 'holds') : 'broken')}<div><strong>${name}</strong>
${evidence !== '' && html`<p class="evidence">${evidence}</p>`}${problem !== undefined && html`<p class="problem">${problem}</p>`}${hint !== undefined && html`<p class="hint">${hint}</p>`}</div></li>`
  })
  return html`<section class="card${broken > 0 && ' bad'}" id="i${index}-${idOf(stage)}"><div class="head"><h2>${LABELS[stage]}</h2>${badge(broken > 0 ? 'bad' : 'good', broken > 0 ? `${broken} broken` : links.length === 1 ? 'holds' : `${links.length} hold`)}</div>
<p class="soft">${ABOUT[stage]}</p><ul class="rows">${rows}</ul>${facts && details(stage, facts)}</section>`
}

function details(stage: Stage, facts: ImageFacts): Html | undefined {
  if (stage === 'UKI' && facts.ukis.length > 0)
    return html`<details><summary>Profiles and their command lines</summary>${facts.ukis.flatMap((uki) =>
      uki.profiles.map(
        ({ id, number, title, commandLine }) =>
          html`<h3>${uki.path}, profile ${id || number}${title !== '' && `: ${title}`}</h3><pre>${commandLine}</pre>`,
      ),
    )}</details>`
  const policies = [
    ...new Map(
      facts.ukis
        .flatMap(({ profiles }) => profiles.flatMap(({ initrd }) => initrd?.ipePolicies ?? []))
        .map((one) => [one.text, one]),
    ).values(),
  ]
  if (stage === 'policy' && policies.length > 0)
    return html`<details><summary>The policy</summary>${policies.map(({ path, text }) => html`<h3>/${path}</h3><pre>${text}</pre>`)}</details>`
  if (stage === 'measured boot' && facts.ukis.length > 0)
    return html`<details><summary>Values of PCR 11</summary><div class="wide"><table><thead><tr><th scope="col">Profile</th><th scope="col">Phase</th><th scope="col">SHA-256</th></tr></thead><tbody>${facts.ukis.flatMap(
      ({ profiles }) =>
        profiles.flatMap(({ id, number, pcr11 }) =>
          Object.entries(pcr11).map(
            ([phase, banks]) =>
              html`<tr><th scope="row">${id || number}</th><td>${phase}</td><td class="mono">${banks['sha256']}</td></tr>`,
          ),
        ),
    )}</tbody></table></div></details>`
  return undefined
}

const STYLE = `
.image { margin: 2.5rem 0 .25rem; font-size: 1.5rem; }
.print { word-spacing: .1em; }
`
