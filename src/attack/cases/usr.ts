/** /usr: every block of it hashes to what the signed command line pins, and that hash is signed by a key the kernel has. */
import { verityPartitionUuids } from '../../formats/verity.ts'
import type { EditedImage } from '../../image/edit.ts'
import type { Case } from '../case.ts'
import type { Kit } from '../kit.ts'
import { SIGNS } from '../signs.ts'

const GIVEN_UP = /device-mapper: verity: \S+ reached maximum errors/
const NO_USR = /Failed to start \S*systemd-verity|Dependency failed for \S*(?:veritysetup|initrd)|Cannot boot:/
/** An image policy asks for signatures that cannot be: then systemd-veritysetup fails before the kernel is asked. */
const NOTHING_AT_ALL = /Timed out waiting for device|Dependency failed for|Cannot boot:/

export const USR_CASES: readonly Case[] = [
  {
    name: 'usr-data',
    group: 'usr',
    does: 'a flipped bit in /usr, where it is read at boot',
    by: 'dm-verity',
    sign: 'the kernel prints which block is corrupted and gives the device up',
    attack: {
      kind: 'boot',
      edit: (image, { subject }) => image.flipBit(dataOf(image, subject.rootHash), SUPERBLOCK),
      refused: SIGNS.corrupted,
      ended: GIVEN_UP,
    },
  },
  {
    name: 'usr-data-later',
    group: 'running',
    does: 'a flipped bit in /usr, read while the machine runs',
    by: 'dm-verity',
    sign: 'reading the block fails, and the kernel prints that it is corrupted',
    attack: {
      kind: 'live',
      edit(image, { subject }) {
        const usr = dataOf(image, subject.rootHash)
        image.flipBit(usr, subject.laterBlock * 4096 + 100)
        return () => image.flipBit(usr, subject.laterBlock * 4096 + 100)
      },
      command: ({ subject: { laterBlock: block } }) =>
        `echo 3 >/proc/sys/vm/drop_caches
LC_ALL=C dd if=/dev/mapper/usr of=/run/block bs=4096 skip=${block} count=1 iflag=direct 2>&1 && echo WORKED
dmesg | grep 'block ${block} is corrupted' | tail -n 1; rm -f /run/block`,
      refused: SIGNS.corrupted,
      worked: /^WORKED$/m,
    },
  },
  {
    name: 'usr-tree',
    group: 'usr',
    does: 'a flipped bit in the hash tree',
    by: 'dm-verity',
    sign: 'the kernel prints that a block of metadata is corrupted and gives the device up',
    attack: {
      kind: 'boot',
      edit: (image, { subject }) => image.flipBit(hashOf(image, subject.rootHash), 4096 + 5),
      refused: SIGNS.corrupted,
      ended: GIVEN_UP,
    },
  },
  {
    name: 'usr-swapped',
    group: 'usr',
    does: 'another /usr with a hash tree that fits it, in the place of the first',
    by: 'dm-verity',
    sign: 'the root of the tree is not the one the command line pins: its first block counts as corrupted',
    attack: {
      kind: 'boot',
      edit(image, { subject, other }) {
        put(image, dataOf(image, subject.rootHash), other.data)
        put(image, hashOf(image, subject.rootHash), other.hash)
      },
      refused: SIGNS.corrupted,
      ended: GIVEN_UP,
    },
  },
  {
    name: 'usr-signature',
    group: 'usr',
    does: 'a flipped bit in the signature of the root hash',
    by: 'kernel',
    sign: 'the kernel prints that the root hash does not verify, and there is no /usr',
    inapplicable: (_, { subject }) => (subject.signed ? undefined : 'there is no signature to change'),
    attack: { kind: 'boot', edit: (image) => flipSignature(image), refused: SIGNS.signature, ended: NO_USR },
  },
  {
    name: 'usr-unsigned',
    group: 'usr',
    does: 'another /usr, signed by another key, that an addition to the command line names',
    by: 'kernel',
    sign: 'the kernel prints that the root hash does not verify, and there is no /usr',
    attack: {
      kind: 'boot',
      edit: addOther,
      machine: ({ other }) => ({ kernelCommandLine: `usrhash=${other.rootHash}` }),
      refused: SIGNS.signature,
      ended: NO_USR,
    },
  },
  {
    name: 'usr-unverified',
    group: 'usr',
    does: 'another /usr that the command line names, with the signature left out',
    by: 'IPE',
    sign: 'the kernel notes that nothing of it may be executed (audit record 1420), and there is no system to start',
    attack: {
      kind: 'boot',
      edit: addOther,
      machine: ({ other }) => ({ kernelCommandLine: `usrhash=${other.rootHash} systemd.verity_usr_options=` }),
      refused: SIGNS.denied,
      ended: /Failed to execute|Cannot boot:|Freezing execution|Failed to start initrd-switch-root|not syncing/,
    },
  },
  {
    name: 'usr-rolled-back',
    group: 'usr',
    does: 'an older /usr on the disk, the one the UKI pins taken away',
    by: 'systemd',
    sign: 'the partitions that the command line names do not appear, and no others are taken',
    attack: {
      kind: 'boot',
      edit(image, kit) {
        for (const one of [dataOf(image, kit.subject.rootHash), hashOf(image, kit.subject.rootHash)]) image.removePartition(one)
        addOther(image, kit)
      },
      machine: () => ({ kernelCommandLine: 'systemd.default_device_timeout_sec=60' }),
      refused: /Timed out waiting for device .*(?:partuu|mapper)|no partition \S+ appeared/,
      ended: NOTHING_AT_ALL,
    },
  },
]

/** Within EROFS's superblock, which is read first of all. */
const SUPERBLOCK = 1024 + 40

const dataOf = (image: EditedImage, rootHash: string) => image.partition('usr', verityPartitionUuids(rootHash).data)
const hashOf = (image: EditedImage, rootHash: string) => image.partition('usr-verity', verityPartitionUuids(rootHash).hash)

function put(image: EditedImage, partition: ReturnType<typeof dataOf>, bytes: Uint8Array): void {
  image.write(partition, 0, bytes.subarray(0, partition.sizeBytes))
}

function flipSignature(image: EditedImage): void {
  const partition = image.partition('usr-verity-sig')
  const text = Buffer.from(image.read(partition)).toString('latin1')
  const found = /"signature":"([^"]+)"/.exec(text)!
  const der = Buffer.from(found[1]!, 'base64')
  der[der.length - 20]! ^= 1 // within the RSA signature, its last part
  image.write(partition, found.index + '"signature":"'.length, Buffer.from(der.toString('base64')))
}

/** Puts the other /usr beside the first, under the UUIDs its root hash gives it. */
function addOther(image: EditedImage, { other, subject }: Kit): void {
  const { data, hash } = verityPartitionUuids(other.rootHash)
  const { architecture } = subject
  const signature = '0b5e55ed-0b5e-45ed-8b5e-55ed0b5e55ed'
  image.addPartition({ type: 'usr-verity-sig', architecture, label: 'Other_sig', guid: signature, bytes: other.signature })
  image.addPartition({ type: 'usr-verity', architecture, label: 'Other_verity', guid: hash, bytes: other.hash })
  image.addPartition({ type: 'usr', architecture, label: 'Other', guid: data, bytes: other.data })
}
