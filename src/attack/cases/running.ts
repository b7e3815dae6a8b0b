/** What root does in the running machine: programs, libraries, modules and kernels of its own, and switching guards off. */
import { shellWords } from '../../base/shell-words.ts'
import type { Case, MachineFacts } from '../case.ts'
import { SIGNS } from '../signs.ts'

/** A tmpfs of the attacker's own: whatever the image mounts noexec, this one is not. */
const TMP = '/run/bisque-attack'
const MOUNT = `mkdir -p ${TMP}; mountpoint -q ${TMP} || mount -t tmpfs -o mode=755,exec attack ${TMP}; cd ${TMP}`

/** What the kernel's audit noted of IPE while the commands ran. */
const audited = (commands: string) => `${MOUNT}
mark="bisque-attack $$ $(cat /proc/uptime)"; echo "$mark" >/dev/kmsg
${commands}
sleep 0.3; dmesg | grep -F -A 1000 "$mark" | grep -E 'type=1420|Lockdown:|kexec' | head -n 4`

const WORKED = /^WORKED$/m
const NO_PERL = 'command -v perl >/dev/null || { echo "INAPPLICABLE: there is no perl to make the call with"; exit; }'
const perl = (script: string) => `perl -e ${shellWords([script])}`

const ipe = { group: 'running', by: 'IPE', sign: 'it does not run, and the kernel notes a denial (audit record 1420)' } as const
const executed = (name: string, does: string, commands: string): Case => ({
  ...ipe,
  name,
  does,
  attack: { kind: 'running', command: audited(commands), refused: SIGNS.denied, worked: WORKED },
})

const policy = ({ ipe }: MachineFacts) => (ipe === undefined ? 'there is no IPE policy' : undefined)

export const RUNNING_CASES: readonly Case[] = [
  executed('exec-tmpfs', 'a program on a tmpfs', 'cp /usr/bin/true true; ./true && echo WORKED'),
  executed(
    'exec-root',
    'a program on the root file system',
    `cp /usr/bin/true /root/attack; mount -o remount,exec / 2>/dev/null; /root/attack && echo WORKED; rm -f /root/attack`,
  ),
  executed(
    'exec-loader',
    'a program on a tmpfs that the dynamic loader is to start',
    'cp /usr/bin/true true; "$(ls /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.* 2>/dev/null | head -n 1)" ./true && echo WORKED',
  ),
  executed(
    'exec-script',
    'a script on a tmpfs, started by its first line',
    `printf '#!/bin/sh\\necho WORKED\\n' >script; chmod +x script; ./script`,
  ),
  {
    ...ipe,
    name: 'exec-interpreted',
    does: 'a script on a tmpfs, read by an interpreter',
    sign: 'nobody is asked: for the kernel, the interpreter reads a file like any other',
    outside: 'the interpreter of /usr reads a file; the kernel learns nothing of what it means',
    attack: {
      kind: 'running',
      command: audited(`printf 'echo WORKED\\n' >script; sh ./script`),
      refused: SIGNS.denied,
      worked: WORKED,
    },
  },
  executed(
    'exec-preload',
    'a library on a tmpfs, preloaded into a program of /usr',
    `cp "$(ls /usr/lib/*/libm.so.6 /usr/lib64/libm.so.6 2>/dev/null | head -n 1)" library
LD_PRELOAD=${TMP}/library cat /proc/self/maps | grep -q ' r-xp .*bisque-attack/library' && echo WORKED`,
  ),
  executed(
    'exec-memfd',
    'a program in a file of memory',
    `${NO_PERL}
${perl(`my $name = "attack"; my $fd = syscall(319, $name, 0); open(my $in, "<", "/usr/bin/true"); binmode $in; local $/; my $all = <$in>;
open(my $out, ">&=", $fd); binmode $out; syswrite($out, $all); exec {"/proc/self/fd/$fd"} "true"; exit 126`)} && echo WORKED`,
  ),
  executed(
    'exec-memory',
    'memory of a process, made executable',
    `${NO_PERL}
${perl(`my $at = syscall(9, 0, 4096, 3, 0x22, -1, 0); print syscall(10, $at, 4096, 5) == 0 ? "WORKED\\n" : "mprotect: $!\\n"`)}`,
  ),
  executed(
    'exec-bind',
    'a program of /usr with another mounted over it',
    `cp /usr/bin/true true; mount --bind ${TMP}/true /usr/bin/false && { /usr/bin/false && echo WORKED; umount /usr/bin/false; }`,
  ),
  executed(
    'exec-overlay',
    '/usr/bin with an overlay mounted over it',
    `mkdir -p upper work; cp /usr/bin/true upper/attack
mount -t overlay -o lowerdir=/usr/bin,upperdir=${TMP}/upper,workdir=${TMP}/work overlay /usr/bin || { echo "INAPPLICABLE: the kernel has no overlay to mount"; exit; }
/usr/bin/attack && echo WORKED; umount -l /usr/bin`,
  ),
  executed(
    'module-copied',
    "a kernel module on a tmpfs, even one of the kernel's own",
    `cp "$(find /usr/lib/modules -name 'dummy.ko*' -o -name 'nls_*.ko*' | head -n 1)" . ; name=$(ls *.ko* | head -n 1)
insmod ./"$name" && { echo WORKED; rmmod "\${name%%.*}"; }`,
  ),
  {
    group: 'running',
    name: 'module-unsigned',
    does: 'a kernel module that nobody signed',
    by: 'kernel',
    sign: 'IPE denies it (audit record 1420), or else lockdown does',
    attack: {
      kind: 'running',
      // What passes the signature check fails as no module at all: that far it must not come.
      command: audited(`${NO_PERL}
head -c 8192 /dev/zero >attack.ko
${perl('open(my $in, "<", "attack.ko") or die; my $no = "\\0"; syscall(313, fileno($in), $no, 0); print $! == 8 ? "WORKED\\n" : "finit_module: $!\\n"')}`),
      refused:
        /type=1420 .*enforcing=1 .*DENY|Lockdown: .*unsigned module|finit_module: (?:Operation not permitted|Required key|Key was rejected|Permission denied)/,
      worked: WORKED,
    },
  },
  {
    group: 'running',
    name: 'kexec',
    does: 'a kernel that nobody signed, to be started by kexec',
    by: 'kernel',
    sign: 'IPE denies it (audit record 1420), or else lockdown does',
    attack: {
      kind: 'running',
      command: ({ subject: { kernel } }) =>
        audited(`${NO_PERL}
uki=$(ls /boot/EFI/Linux/*.efi /efi/EFI/Linux/*.efi 2>/dev/null | tail -n 1); [ "$uki" ] || { echo "INAPPLICABLE: the ESP is not mounted"; exit; }
dd if="$uki" of=kernel bs=1M iflag=skip_bytes,count_bytes skip=${kernel.offset} count=${kernel.sizeBytes} status=none
printf '\\0\\0\\0\\0\\0\\0\\0\\0' | dd of=kernel bs=1 seek=${kernel.certificateEntry} conv=notrunc status=none
${perl(`open(my $in, "<", "kernel") or die; my $no = "\\0"; my $got = syscall(320, fileno($in), -1, 1, $no, 4); print $got == 0 ? "WORKED\\n" : "kexec_file_load: $!\\n"; syscall(320, -1, -1, 0, $no, 1)`)}
rm -f kernel`),
      refused:
        /type=1420 .*enforcing=1 .*DENY|kexec_file_load: (?:Operation not permitted|Required key|Key was rejected|No data available|Permission denied)/,
      worked: WORKED,
    },
  },
  {
    group: 'running',
    name: 'ipe-cmdline',
    does: 'ipe.enforce=0, added to the command line from outside',
    by: 'systemd',
    sign: 'the image insists on its policy: its initrd prints that it is not enforced, and restarts',
    inapplicable: policy,
    attack: {
      kind: 'boot',
      machine: () => ({ kernelCommandLine: 'ipe.enforce=0' }),
      refused: /Cannot boot: IPE does not enforce/,
    },
  },
  {
    ...ipe,
    name: 'ipe-off',
    does: 'writing 0 to ipe/enforce',
    sign: 'the write is not permitted, and enforcing stays on',
    inapplicable: policy,
    attack: {
      kind: 'running',
      command: `LC_ALL=C sh -c 'echo 0 >/sys/kernel/security/ipe/enforce' 2>&1
if [ "$(cat /sys/kernel/security/ipe/enforce)" = 1 ]; then echo "still enforcing"; else echo WORKED; echo 1 >/sys/kernel/security/ipe/enforce; fi`,
      refused: /(?:not permitted|denied|I\/O error)[\s\S]*still enforcing/i,
      worked: WORKED,
    },
  },
  {
    ...ipe,
    name: 'ipe-policy',
    does: 'another IPE policy, signed by another key',
    sign: 'the write is refused, and there is no such policy',
    attack: {
      kind: 'running',
      command: ({ strangePolicy }) => `${MOUNT}
echo ${Buffer.from(strangePolicy).toString('base64')} | base64 -d >policy
LC_ALL=C dd if=policy of=/sys/kernel/security/ipe/new_policy bs=64k 2>&1 | head -n 1
[ -e /sys/kernel/security/ipe/policies/attack ] && echo WORKED || echo 'there is no such policy'`,
      refused: /(?:not permitted|denied|rejected|key not available|Bad message)[\s\S]*there is no such policy/i,
      worked: WORKED,
    },
  },
  {
    group: 'running',
    name: 'usr-remount',
    does: '/usr mounted writable',
    by: 'kernel',
    sign: 'the device is write-protected, and the mount stays read-only',
    attack: {
      kind: 'running',
      command: `LC_ALL=C mount -o remount,rw /usr 2>&1; LC_ALL=C touch /usr/attack 2>&1 && echo WORKED; findmnt -no OPTIONS /usr`,
      refused: /(?:write-protected|read-only|not permitted|denied)[\s\S]*^ro/im,
      worked: WORKED,
    },
  },
  {
    group: 'running',
    name: 'usr-written',
    does: 'writing to the device below /usr',
    by: 'kernel',
    sign: 'the write is not permitted',
    attack: {
      kind: 'running',
      command: `LC_ALL=C dd if=/dev/zero of=/dev/mapper/usr bs=4096 count=1 oflag=direct 2>&1 && echo WORKED`,
      refused: /not permitted|Read-only|denied/,
      worked: WORKED,
    },
  },
]
