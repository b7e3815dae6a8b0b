/** What lies beside the UKI on the ESP, which nobody signs as a whole: addons, entries, credentials, extensions. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Report } from '../../base/report.ts'
import { writeErofs } from '../../image/erofs.ts'
import { madeDirectory, madeFile } from '../../tree/content.ts'
import { treeOf } from '../../tree/tree.ts'
import type { Case } from '../case.ts'
import { forgedAddon, forgedCredential, type Kit, signedBy } from '../kit.ts'

const ENTRY = 'loader/entries/attack.conf'
const UNIT = 'systemd.extra-unit.bisque-attack.service'
const UUID = '0b5e55ed-0b5e-45ed-8b5e-55ed0b5e55ed'

/** Whether a word has reached the kernel's command line. */
const inCmdline = (word: string) =>
  `tr ' ' '\\n' </proc/cmdline | grep -qxF '${word}' && echo WORKED || echo '${word} is not on the command line'`

type Laid = Record<string, Uint8Array>

/** An addon with a word for the command line; `lay` signs it, or not, and says where on the ESP it lies. */
const addon = (name: `addon-${string}`, does: string, lay: (program: Uint8Array, kit: Kit) => Laid | Promise<Laid>): Case => {
  const kind = name.slice('addon-'.length)
  const word = `attack.addon=${kind}`
  return {
    name,
    group: 'esp',
    does,
    by: 'firmware',
    sign: 'systemd-stub prints that firmware denies access to it, and its words are not on the command line',
    attack: {
      kind: 'beside',
      files: (image, kit) => lay(forgedAddon(image.readEsp(kit.subject.loader), word), kit),
      look: inCmdline(word),
      refused: new RegExp(`${kind}\\.addon\\.efi.*(?:Access denied|Security violation)`, 'i'),
      worked: /^WORKED$/m,
    },
  }
}

export const ESP_CASES: readonly Case[] = [
  addon('addon-unsigned', 'an addon that nobody signed', (program) => ({ 'loader/addons/unsigned.addon.efi': program })),
  addon('addon-stranger', 'an addon signed by another key', async (program, { subject, stranger }) => ({
    [`${subject.uki}.extra.d/stranger.addon.efi`]: await signedBy(program, stranger.db),
  })),
  {
    name: 'entry-edited',
    group: 'esp',
    does: 'a boot entry and loader.conf that hand the UKI another command line',
    by: 'systemd-stub',
    sign: 'the entry was booted, and its options are not on the command line',
    attack: {
      kind: 'beside',
      files: (_, { subject }) => ({
        'loader/loader.conf': Buffer.from('default attack.conf\ntimeout 0\neditor yes\n'),
        [ENTRY]: Buffer.from(`title Attack\nversion 99\nlinux /${subject.uki}\noptions attack.entry=1 init=/bin/sh\n`),
      }),
      look: `${inCmdline('attack.entry=1')}
echo "booted: $(cat /sys/firmware/efi/efivars/LoaderEntrySelected-* | tr -cd '[:print:]')"`,
      refused: /booted: attack\.conf/,
      worked: /^WORKED$/m,
    },
  },
  {
    name: 'credential',
    group: 'esp',
    does: 'a credential with a unit in it, sealed with the key that everyone has',
    by: 'systemd',
    sign: 'the credential has arrived, it does not decrypt under Secure Boot with a TPM, and there is no such unit',
    attack: {
      kind: 'beside',
      files: () => ({
        [`loader/credentials/${UNIT}.cred`]: forgedCredential(UNIT, '[Service]\nType=oneshot\nExecStart=/bin/true\n'),
      }),
      look: `if systemctl cat bisque-attack.service >/dev/null 2>&1; then echo WORKED; exit; fi
echo "there is no such unit; $(systemd-creds --name=${UNIT} decrypt /run/credentials/@encrypted/${UNIT} - 2>&1 | tr '\\n' ' ')"`,
      refused:
        /Failed to read credential '[^']*bisque-attack\.service'|there is no such unit; .*(?:not (?:permitted|allowed)|refus|denied|null key|Failed to decrypt)/i,
      worked: /^WORKED$/m,
    },
  },
  {
    name: 'sysext',
    group: 'esp',
    does: 'a system extension that nobody signed',
    by: 'systemd',
    sign: 'systemd-sysext says that the image policy does not allow it',
    attack: {
      kind: 'beside',
      files: async (_, { subject }) => {
        const extension = await forgedExtension()
        return { [`${subject.uki}.extra.d/attack.sysext.raw`]: extension, 'loader/extensions/attack.sysext.raw': extension }
      },
      look: `if [ -e /usr/bin/bisque-attack ]; then echo WORKED; exit; fi
journalctl -b --no-pager -o cat | grep -m 1 'attack\\.sysext\\.raw' || echo 'INAPPLICABLE: nothing in this image takes extensions from the ESP'`,
      refused: /attack\.sysext\.raw: .*(?:image policy|signature|[Rr]equired key|not permitted)/,
      worked: /^WORKED$/m,
    },
  },
]

async function forgedExtension(): Promise<Uint8Array> {
  const folder = await mkdtemp(join(tmpdir(), 'bisque-extension-'))
  try {
    const files = [
      [
        'usr/lib/extension-release.d/extension-release.attack',
        madeFile('ID=_any\nARCHITECTURE=x86-64\nSYSEXT_SCOPE=initrd system portable\n', 0),
      ],
      ['usr/bin/bisque-attack', madeFile('#!/bin/sh\n', 0, 0o755)],
    ] as const
    const path = join(folder, 'attack.raw')
    const silent = new Report(() => {})
    await writeErofs(treeOf(files, madeDirectory(0)), path, { uuid: UUID, compression: 'none', workers: 1 }, silent)
    return await readFile(path)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
