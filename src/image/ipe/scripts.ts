/** The scripts that insist on an IPE policy. Their paths can be set by environment, for tests. */

/** Stops the boot, by failing after a message, unless the kernel enforces the policy with this name and text. */
export const ipeGuard = ({ name, mode }: { name: string; mode: 'enforce' | 'profile' }): string =>
  GUARD.replace('@NAME@', () => quoted(name)).replace('@MODE@', mode)

/**
 * Waits for the policy of the initrd, loads the one of the booted system beside it, waits until the initrd's files are gone
 * and PID 1 is another program, and activates it. (Where the initrd restarts the machine, PID 1 is another program, too, and
 * the initrd's.) By then no file can be opened and nothing executed, so all that is needed is open before.
 */
export const sealScript = ({ name, booted }: { name: string; booted: string }): string =>
  SEAL.replace('@NAME@', () => quoted(name)).replace('@BOOTED@', () => quoted(booted))

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

const GUARD = `#!/bin/sh
# Lets the boot go on only where the kernel enforces the IPE policy of this image.
set -u
name=@NAME@
mode=@MODE@
ipe=\${BISQUE_IPE:-/sys/kernel/security/ipe}
cmdline=\${BISQUE_CMDLINE:-/proc/cmdline}
expected=\${BISQUE_POLICY:-/usr/lib/bisque/ipe-policy}
console=\${BISQUE_CONSOLE:-/dev/console}
attempts=\${BISQUE_ATTEMPTS:-1}

stop() {
  for to in "$console" /dev/kmsg; do
    printf '%s\\n' "Cannot boot: $1; restarting in 10 s" 2>/dev/null >>"$to" || :
  done
  echo "Cannot boot: $1" >&2
  sleep "\${BISQUE_DELAY:-10}"
  exit 1
}

problem() {
  [ -d "$ipe" ] || { echo "this kernel has no IPE, or it was left out of lsm="; return; }
  [ -d "$ipe/policies/$name" ] || { echo "the IPE policy $name is not loaded"; return; }
  [ "$(cat "$ipe/policies/$name/active")" = 1 ] || { echo "the IPE policy $name is not the active one"; return; }
  [ "$(cat "$ipe/policies/$name/policy")" = "$(cat "$expected")" ] ||
    { echo "the IPE policy $name is not the one of this image"; return; }
  [ "$(cat "$ipe/enforce")" = 1 ] || echo "IPE does not enforce its policy; ipe.enforce= on the kernel command line must be 1"
}

if [ "$mode" = profile ]; then
  case " $(cat "$cmdline") " in *" ipe.enforce=1 "*) ;; *) exit 0 ;; esac
fi
while :; do
  found=$(problem)
  [ -n "$found" ] || exit 0
  attempts=$((attempts - 1))
  [ "$attempts" -gt 0 ] || stop "$found"
  sleep 0.2
done
`

const SEAL = `#!/bin/bash -p
# Puts the IPE policy of the booted system into force once the initrd has been left.
set -u
name=@NAME@
booted=@BOOTED@
ipe=\${BISQUE_IPE:-/sys/kernel/security/ipe}
signed=\${BISQUE_POLICY:-/usr/lib/bisque/ipe-booted.p7b}
proc=\${BISQUE_PROC:-/proc}
idle=\${BISQUE_IDLE:-/bisque-idle}
initrd=\${BISQUE_INITRD:-/usr/lib/systemd/systemd}
trap '' TERM HUP INT

mkfifo -m 600 "$idle"
exec 3<>"$idle"
rm "$idle"
# Waiting without a program.
doze() { read -r -t 0.1 -u 3; }

until [[ -e $ipe/policies/$name/active && $(<"$ipe/policies/$name/active") == 1 ]]; do doze; done
exec 7>>"$proc/sysrq-trigger" 8>>"\${BISQUE_KMSG:-/dev/kmsg}"
stop() {
  echo "<2>bisque: Cannot boot: the IPE policy $booted is not in force: $1; restarting in 10 s" >&8
  for _ in {1..100}; do doze; done
  echo b >&7
}
cat "$signed" >"$ipe/new_policy" || stop "it was refused"
exec 4>"$ipe/policies/$booted/active" 5<"$ipe/policies/$booted/active" || stop "it was refused"
cd "$proc" || stop "no /proc"
exec 6<1/exe
while [[ -e $initrd || 1/exe -ef $BASHPID/fd/6 ]]; do doze; done
echo 1 >&4 || stop "it cannot be activated"
read -r active <&5
[[ $active == 1 ]] || stop "it is not active"
`
