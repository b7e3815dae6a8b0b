/**
 * Brings the signature of /usr's root hash from its partition to where systemd-veritysetup reads it.
 *
 * systemd finds the signature partition by itself (`root-hash-signature=auto`) from version 258 on only. Before, an
 * initrd needs these units and `usrSignatureWord()`. Nothing is trusted here: which signature is chosen matters no
 * more than which disk is attached, as the kernel verifies it over the `usrhash=` of the signed command line.
 */
import { type Architecture, partitionType } from '../formats/dps.ts'
import { madeDirectory, madeFile } from '../tree/content.ts'
import { type Tree, treeOf } from '../tree/tree.ts'

/** To be added to the kernel command line beside `usrhash=`, for the systemd of this system. */
export const usrSignatureWord = (system: Tree): string =>
  `systemd.verity_usr_options=root-hash-signature=${findsSignatures(system) ? 'auto' : '/run/bisque/usr.p7s'}`

/** Whether systemd finds the signature by itself. The name of its own library says which version it is. */
export function findsSignatures(system: Tree): boolean {
  const versions = [...system.keys()].map((path) => /^usr\/lib\/(?:.*\/)?systemd\/libsystemd-shared-(\d+)\D/.exec(path)?.[1])
  const version = versions.find((one) => one !== undefined)
  return version !== undefined && Number(version) >= 258
}

/** What to add to the initrd: a script, its unit, and a drop-in that makes the verity device wait for it. */
export function usrSignatureUnit(options: { architecture: Architecture; epoch: number }): Tree {
  const script = usrSignatureScript(options.architecture)
  const { epoch } = options
  return treeOf(
    [
      ['usr/lib/bisque/usr-signature', madeFile(script, epoch, 0o755)],
      ['usr/lib/systemd/system/bisque-usr-signature.service', madeFile(UNIT, epoch)],
      ['usr/lib/systemd/system/systemd-veritysetup@usr.service.d/50-bisque-signature.conf', madeFile(DROP_IN, epoch)],
    ],
    madeDirectory(epoch),
  )
}

/** The script alone. Its paths can be set by environment, for tests. */
export const usrSignatureScript = (architecture: Architecture): string =>
  SCRIPT.replace('@TYPE@', partitionType('usr-verity-sig', architecture).guid)

const UNIT = `[Unit]
Description=Root Hash Signature of /usr
DefaultDependencies=no
ConditionKernelCommandLine=usrhash
ConditionKernelCommandLine=systemd.verity_usr_options
Wants=systemd-udevd.service systemd-udev-trigger.service
After=systemd-udevd.service systemd-udev-trigger.service
Before=systemd-veritysetup@usr.service shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/bisque/usr-signature
TimeoutStartSec=infinity
`

/** Wanted, not required: what requires it would be stopped along with it when the initrd ends. Without a signature, it fails. */
const DROP_IN = `[Unit]
Wants=bisque-usr-signature.service
After=bisque-usr-signature.service
`

const SCRIPT = `#!/bin/sh
# Puts the signature of the root hash named by usrhash= where systemd-veritysetup reads it.
set -eu

type=@TYPE@
cmdline=\${BISQUE_CMDLINE:-/proc/cmdline}
partitions=\${BISQUE_PARTITIONS:-/dev/disk/by-partuuid}
out=\${BISQUE_OUT:-/run/bisque/usr.p7s}
attempts=\${BISQUE_ATTEMPTS:-90}

fail() {
  echo "Cannot find the signature of /usr: $1" >&2
  exit 1
}

usrhash=$(tr ' ' '\\n' <"$cmdline" | sed -n 's/^usrhash=//p' | sed -n '$p')
echo "$usrhash" | grep -Eqx '[0-9a-f]{64}' || fail "usrhash=$usrhash is not a SHA-256 root hash"

# Data partitions are named by the first half of the root hash.
data=$(echo "$usrhash" | sed 's/^\\(.\\{8\\}\\)\\(.\\{4\\}\\)\\(.\\{4\\}\\)\\(.\\{4\\}\\)\\(.\\{12\\}\\).*/\\1-\\2-\\3-\\4-\\5/')
udevadm wait --timeout="$attempts" "$partitions/$data" || fail "no partition $data appeared in $attempts seconds"

# One line of JSON, padded with zeros: the value of a member that is a string of harmless characters.
member() {
  head -c 16384 "$1" | tr -d '\\000\\n' | sed -n 's/.*"'"$2"'" *: *"\\([A-Za-z0-9+/=]*\\)".*/\\1/p'
}

while :; do
  udevadm settle --timeout=10 || :
  seen=
  for partition in "$partitions"/*; do
    [ -e "$partition" ] || continue
    [ "$(udevadm info --query=property --property=ID_PART_ENTRY_TYPE --value --name="$partition" 2>/dev/null)" = "$type" ] || continue
    hash=$(member "$partition" rootHash) || hash=
    seen="$seen \${partition##*/} ($hash)"
    [ "$hash" = "$usrhash" ] || continue
    mkdir -p "\${out%/*}"
    member "$partition" signature | base64 -d >"$out.new" || continue
    [ -s "$out.new" ] || continue
    mv "$out.new" "$out"
    exit 0
  done
  attempts=$((attempts - 1))
  [ "$attempts" -gt 0 ] || fail "no partition of type $type is for root hash $usrhash; seen:\${seen:- none}"
  sleep 1
done
`
