import { merge, object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { multiple, optional } from '@optique/core/modifiers'
import { argument, command, constant, option } from '@optique/core/primitives'
import { path } from '@optique/run/valueparser'
import { FAULTS } from '../../base/fault.ts'
import { examples, folder } from '../options.ts'
import type { Run } from '../session.ts'

export const parser = command(
  'verify',
  merge(
    object({ verb: constant('verify') }),
    object({
      images: multiple(
        argument(path({ metavar: 'IMAGE' }), { description: message`Disk image to verify, of Bisque or any other maker.` }),
        { min: 1 },
      ),
      trust: optional(
        option('--trust', folder(), {
          description: message`Folder of the certificates to judge by: PK.crt and so on, as bisque keys makes it. By default the image is judged by the keys it enrols itself.`,
        }),
      ),
      html: optional(
        option('--html', path({ metavar: 'FILE' }), {
          description: message`Write a page that draws the chain, with all evidence.`,
        }),
      ),
    }),
  ),
  {
    brief: message`Check an image's chain of trust`,
    description: message`Recompute every link of an image's chain of trust from its bytes, and look for holes beside it: from the enrolled certificates through boot loader, UKI and command line to every block of /usr, the kernel's configuration and the files inside. Nothing is run. Exits with 6 if a link does not hold.`,
    footer: examples(
      ['bisque verify out/Minimal_1_x86-64.raw', 'by the keys it enrols'],
      ['bisque verify image.raw --trust keys', 'by the certificates in keys'],
      ['bisque verify *.raw --html chain.html', 'and a page to look at'],
    ),
  },
)

export interface VerifyOptions {
  images: readonly string[]
  trust: string | undefined
  html: string | undefined
}

export const run: Run<VerifyOptions> = async ({ images, trust, html }, session) => {
  const { verifyAll, writeVerifyPage } = await import('../verify.ts')
  const { verifyText } = await import('../verify-text.ts')
  const verified = await verifyAll(images, { trust, now: Math.floor(Date.now() / 1000) }, session.report)
  if (html !== undefined) await writeVerifyPage(html, verified, 'Bisque')
  const ok = verified.every(({ links }) => links.every((link) => link.ok))
  return {
    result: {
      ok,
      images: verified.map(({ path, links, facts }) => ({
        image: path,
        ok: links.every((link) => link.ok),
        anchor: facts?.anchor.from,
        links,
      })),
      ...(html === undefined ? {} : { html }),
    },
    text: verifyText(verified, { color: session.color, columns: process.stdout.columns ?? 100 }),
    exitCode: ok ? 0 : FAULTS.integrity.exit,
  }
}
