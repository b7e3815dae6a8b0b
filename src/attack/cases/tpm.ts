/** Secrets sealed to the TPM: a machine that was set up does not open its root after any of these. */
import type { BootAttack, Case, MachineFacts } from '../case.ts'
import { extendedDb, forgedCredential, signedBy, withOtherInitrd, withPoliciesOf } from '../kit.ts'
import { SIGNS } from '../signs.ts'
import { OWNER } from './firmware.ts'

/** Nothing else unlocks it. systemd shortens the name of what failed. */
const ASKED = /Failed to start systemd-crypt[^\n]*\broot\b|enter (?:passphrase|recovery key)|Cannot boot:/i

const root = ({ tpmRoot }: MachineFacts) => (tpmRoot ? undefined : 'nothing is sealed: the root is not encrypted to the TPM')
/** A change to the disk of a machine that was set up, or to the machine: its root stays locked. */
const locked = (name: string, does: string, change: Pick<BootAttack, 'edit' | 'machine'>): Case => ({
  name,
  group: 'tpm',
  does,
  by: 'TPM',
  sign: 'systemd-cryptsetup says that the TPM does not give the key, and the root stays locked',
  inapplicable: root,
  attack: { kind: 'boot', from: 'settled', ...change, refused: SIGNS.locked, ended: ASKED },
})

export const TPM_CASES: readonly Case[] = [
  locked('tpm-swapped', 'the same disk and firmware with another TPM', { machine: () => ({ freshTpm: true }) }),
  locked('disk-moved', 'the disk in another machine that trusts the same keys', {
    machine: ({ subject }) => ({ freshTpm: true, keys: subject.enrols }),
  }),
  locked('secure-boot-off', 'the machine with Secure Boot switched off', { machine: () => ({ secureBoot: false }) }),
  locked('db-extended', 'a UKI signed by another key, on firmware that was taught to trust that key', {
    edit: async (image, { subject, stranger }) =>
      image.changeEsp({ [subject.uki]: await signedBy(image.readEsp(subject.uki), stranger.db) }),
    machine: ({ subject, stranger }) => ({
      keys: { ...subject.enrols, db: extendedDb(subject.enrols.db, stranger.db, OWNER) },
    }),
  }),
  locked('cmdline-added', 'a word added to the command line from outside, which whoever runs the virtual machine can do', {
    machine: () => ({ kernelCommandLine: 'attack.word=1' }),
  }),
  locked('credential-added', 'a credential laid on the ESP of a machine that was set up without it', {
    edit: (image) => image.changeEsp({ 'loader/credentials/attack.cred': forgedCredential('attack', 'anything') }),
  }),
  {
    ...locked('initrd-changed', 'a UKI with another initrd, signed by the db key but without policies for it', {
      edit: async (image, { subject, own }) =>
        image.changeEsp({ [subject.uki]: await signedBy(withOtherInitrd(image.readEsp(subject.uki)), own!.db) }),
    }),
    keys: true,
  },
  {
    ...locked('policy-stranger', 'a UKI with PCR policies signed by another key, itself signed by the db key', {
      edit: async (image, { subject, own, stranger }) => {
        const uki = await withPoliciesOf(image.readEsp(subject.uki), stranger.pcr)
        image.changeEsp({ [subject.uki]: await signedBy(uki, own!.db) })
      },
    }),
    keys: true,
  },
]
