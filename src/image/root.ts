/**
 * An encrypted root that every machine makes for itself on first boot, and that its TPM alone unlocks.
 *
 * systemd-repart makes it in the initrd, in the room that is left on the disk. The key is sealed to two things at once:
 *
 * - PCR 11, by signature: any UKI for which our key signed a policy, so that updates unlock what was made before them.
 * - PCRs 7, 12 and 13, as they are when the root is made. 7: Secure Boot is on, with the keys that are enrolled; without it
 *   any program could measure into PCR 11 what a UKI would have. 12: no command line from outside, no addon, no credential
 *   on the ESP, no profile but the one of the first boot. 13: no system extension on the ESP.
 *
 * Not 4 and 9, which every update changes; not 0 to 3, which firmware updates change and which say nothing of ours.
 */
import { madeDirectory, madeFile } from '../tree/content.ts'
import { type Tree, treeOf } from '../tree/tree.ts'

/** What the key is sealed to, beside the signed policies over PCR 11. */
export const ROOT_PCRS = [7, 12, 13] as const

/**
 * To be added to the kernel command line. A mapped device, not a partition: a root that is not encrypted is never mounted.
 * /usr would else be expected to be of the root's type.
 */
export const ROOT_CMDLINE = ['root=/dev/mapper/root', 'rootfstype=ext4', 'rw', 'mount.usrfstype=erofs'] as const

/** For systemd-repart on the machine, which reads it from /usr; `label` names the partition. */
export function rootDefinition({ label, epoch }: { label: string; epoch: number }): Tree {
  const text = DEFINITION.replace('@LABEL@', () => label.slice(0, MAX_LABEL).replaceAll('%', '%%'))
  return treeOf([['usr/lib/repart.d/40-root.conf', madeFile(text, epoch)]], madeDirectory(epoch))
}

/** For the initrd: what systemd-repart seals the key to, and how the root is unlocked. */
export function rootUnlocking({ epoch }: { epoch: number }): Tree {
  return treeOf(
    [
      ['etc/crypttab', madeFile(CRYPTTAB, epoch)],
      ['usr/lib/systemd/system/systemd-repart.service.d/50-bisque-root.conf', madeFile(REPART, epoch)],
    ],
    madeDirectory(epoch),
  )
}

/** A partition's is 36 UTF-16 units long, with `-root`. */
const MAX_LABEL = 31

const DEFINITION = `# Made at first boot, and unlocked by the TPM of this machine alone.

[Partition]
Type=root
Label=@LABEL@-root
Format=ext4
SizeMinBytes=256M
Encrypt=tpm2
FactoryReset=yes
`

/** udev names the encrypted root of the disk that was booted from. The volume key is measured: once it is used, PCR 15 tells. */
const CRYPTTAB = 'root /dev/gpt-auto-root-luks none tpm2-device=auto,tpm2-measure-pcr=yes,discard,x-systemd.device-timeout=0\n'

/** Named, so that it is an error when it is not there: without it the key would be sealed to no policy of ours. */
const REPART = `[Service]
ExecStart=
ExecStart=systemd-repart --dry-run=no --tpm2-pcrs=${ROOT_PCRS.join('+')} --tpm2-public-key-pcrs=11 --tpm2-public-key=/.extra/tpm2-pcr-public-key.pem
`
