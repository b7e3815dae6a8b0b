/** What firmware starts by itself or for systemd-boot: nothing that is not signed by the keys it was given, nor what they took back. */
import { openImage } from '../../image/edit.ts'
import type { Case } from '../case.ts'
import { type Kit, revocationOf, signedBy, unsigned, withCmdline } from '../kit.ts'
import { SIGNS } from '../signs.ts'

const NOTHING_LEFT = /BdsDxe: No bootable option or device was found/

const firmware = {
  group: 'firmware',
  by: 'firmware',
  sign: 'the firmware prints Access Denied and finds nothing else to start',
} as const

/** A program on the ESP, exchanged for what `change` makes of it. */
const exchanged = (
  name: string,
  does: string,
  program: 'loader' | 'uki',
  change: (program: Uint8Array, kit: Kit) => Uint8Array | Promise<Uint8Array>,
): Case => ({
  ...firmware,
  name,
  does,
  attack: {
    kind: 'boot',
    async edit(image, kit) {
      const path = kit.subject[program]
      image.changeEsp({ [path]: await change(image.readEsp(path), kit) })
    },
    refused: SIGNS[program],
    ended: NOTHING_LEFT,
  },
})
const byStranger = (program: Uint8Array, { stranger }: Kit) => signedBy(program, stranger.db)

export const FIRMWARE_CASES: readonly Case[] = [
  exchanged('loader-unsigned', 'systemd-boot without its signature', 'loader', unsigned),
  exchanged('loader-stranger', 'systemd-boot signed by another key', 'loader', byStranger),
  exchanged('uki-unsigned', 'a UKI without its signature', 'uki', unsigned),
  exchanged('uki-stranger', 'a UKI signed by another key', 'uki', byStranger),
  exchanged('cmdline-edited', 'a UKI whose command line was edited', 'uki', (uki) =>
    withCmdline(uki, (cmdline) => `init=/bin/sh ${cmdline}`),
  ),
  {
    ...firmware,
    name: 'uki-revoked',
    does: 'an older UKI, well signed, that dbx names',
    attack: {
      kind: 'boot',
      machine: ({ subject }) => {
        using image = openImage(subject.path)
        return { keys: { ...subject.enrols, dbx: revocationOf(image.readEsp(subject.uki), OWNER) } }
      },
      refused: SIGNS.uki,
      ended: NOTHING_LEFT,
    },
  },
]

/** Whose entry in dbx it is plays no part. */
export const OWNER = '00000000-0000-0000-0000-000000000000'
