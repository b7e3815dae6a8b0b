/** What firmware starts by itself or for systemd-boot: nothing that is not signed by the keys it was given, nor what they took back. */

import { openImage } from '../../image/edit.ts'
import type { Case } from '../case.ts'
import { revocationOf, signedBy, unsigned, withCmdline } from '../kit.ts'
import { SIGNS } from '../signs.ts'

const NOTHING_LEFT = /BdsDxe: No bootable option or device was found/

const SIGN = 'the firmware prints Access Denied and finds nothing else to start'
const loader = { group: 'firmware', by: 'firmware', sign: SIGN } as const

export const FIRMWARE_CASES: readonly Case[] = [
  {
    ...loader,
    name: 'loader-unsigned',
    does: 'systemd-boot without its signature',
    attack: {
      kind: 'boot',
      edit: (image, { subject }) => image.changeEsp({ [subject.loader]: unsigned(image.readEsp(subject.loader)) }),
      refused: SIGNS.loader,
      ended: NOTHING_LEFT,
    },
  },
  {
    ...loader,
    name: 'loader-stranger',
    does: 'systemd-boot signed by another key',
    attack: {
      kind: 'boot',
      edit: async (image, { subject, stranger }) =>
        image.changeEsp({ [subject.loader]: await signedBy(image.readEsp(subject.loader), stranger.db) }),
      refused: SIGNS.loader,
      ended: NOTHING_LEFT,
    },
  },
  {
    ...loader,
    name: 'uki-unsigned',
    does: 'a UKI without its signature',
    attack: {
      kind: 'boot',
      edit: (image, { subject }) => image.changeEsp({ [subject.uki]: unsigned(image.readEsp(subject.uki)) }),
      refused: SIGNS.uki,
      ended: NOTHING_LEFT,
    },
  },
  {
    ...loader,
    name: 'uki-stranger',
    does: 'a UKI signed by another key',
    attack: {
      kind: 'boot',
      edit: async (image, { subject, stranger }) =>
        image.changeEsp({ [subject.uki]: await signedBy(image.readEsp(subject.uki), stranger.db) }),
      refused: SIGNS.uki,
      ended: NOTHING_LEFT,
    },
  },
  {
    ...loader,
    name: 'cmdline-edited',
    does: 'a UKI whose command line was edited',
    attack: {
      kind: 'boot',
      edit: (image, { subject }) =>
        image.changeEsp({ [subject.uki]: withCmdline(image.readEsp(subject.uki), (cmdline) => `init=/bin/sh ${cmdline}`) }),
      refused: SIGNS.uki,
      ended: NOTHING_LEFT,
    },
  },
  {
    ...loader,
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
