/** Secrets sealed to the TPM: a machine that was set up does not open its root after any of these. */
import type { Case, MachineFacts } from '../case.ts'
import { extendedDb, forgedCredential, signedBy, withOtherInitrd, withPoliciesOf } from '../kit.ts'
import { SIGNS } from '../signs.ts'
import { OWNER } from './firmware.ts'

/** Nothing else unlocks it. systemd shortens the name of what failed. */
const ASKED = /Failed to start systemd-crypt[^\n]*\broot\b|enter (?:passphrase|recovery key)|Cannot boot:/i

const root = ({ tpmRoot }: MachineFacts) => (tpmRoot ? undefined : 'nothing is sealed: the root is not encrypted to the TPM')
const sealed = {
  group: 'tpm',
  by: 'TPM',
  sign: 'systemd-cryptsetup says that the TPM does not give the key, and the root stays locked',
  inapplicable: root,
} as const

export const TPM_CASES: readonly Case[] = [
  {
    ...sealed,
    name: 'tpm-swapped',
    does: 'the same disk and firmware with another TPM',
    attack: { kind: 'boot', from: 'settled', machine: () => ({ freshTpm: true }), refused: SIGNS.locked, ended: ASKED },
  },
  {
    ...sealed,
    name: 'disk-moved',
    does: 'the disk in another machine that trusts the same keys',
    attack: {
      kind: 'boot',
      from: 'settled',
      machine: ({ subject }) => ({ freshTpm: true, keys: subject.enrols }),
      refused: SIGNS.locked,
      ended: ASKED,
    },
  },
  {
    ...sealed,
    name: 'secure-boot-off',
    does: 'the machine with Secure Boot switched off',
    attack: { kind: 'boot', from: 'settled', machine: () => ({ secureBoot: false }), refused: SIGNS.locked, ended: ASKED },
  },
  {
    ...sealed,
    name: 'db-extended',
    does: 'a UKI signed by another key, on firmware that was taught to trust that key',
    attack: {
      kind: 'boot',
      from: 'settled',
      edit: async (image, { subject, stranger }) =>
        image.changeEsp({ [subject.uki]: await signedBy(image.readEsp(subject.uki), stranger.db) }),
      machine: ({ subject, stranger }) => ({
        keys: { ...subject.enrols, db: extendedDb(subject.enrols.db, stranger.db, OWNER) },
      }),
      refused: SIGNS.locked,
      ended: ASKED,
    },
  },
  {
    ...sealed,
    name: 'cmdline-added',
    does: 'a word added to the command line from outside, which whoever runs the virtual machine can do',
    attack: {
      kind: 'boot',
      from: 'settled',
      machine: () => ({ kernelCommandLine: 'attack.word=1' }),
      refused: SIGNS.locked,
      ended: ASKED,
    },
  },
  {
    ...sealed,
    name: 'credential-added',
    does: 'a credential laid on the ESP of a machine that was set up without it',
    attack: {
      kind: 'boot',
      from: 'settled',
      edit: (image) => image.changeEsp({ 'loader/credentials/attack.cred': forgedCredential('attack', 'anything') }),
      refused: SIGNS.locked,
      ended: ASKED,
    },
  },
  {
    ...sealed,
    name: 'initrd-changed',
    does: 'a UKI with another initrd, signed by the db key but without policies for it',
    keys: true,
    attack: {
      kind: 'boot',
      from: 'settled',
      edit: async (image, { subject, own }) =>
        image.changeEsp({ [subject.uki]: await signedBy(withOtherInitrd(image.readEsp(subject.uki)), own!.db) }),
      refused: SIGNS.locked,
      ended: ASKED,
    },
  },
  {
    ...sealed,
    name: 'policy-stranger',
    does: 'a UKI with PCR policies signed by another key, itself signed by the db key',
    keys: true,
    attack: {
      kind: 'boot',
      from: 'settled',
      edit: async (image, { subject, own, stranger }) => {
        const uki = await withPoliciesOf(image.readEsp(subject.uki), stranger.pcr)
        image.changeEsp({ [subject.uki]: await signedBy(uki, own!.db) })
      },
      refused: SIGNS.locked,
      ended: ASKED,
    },
  },
]
