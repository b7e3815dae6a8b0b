/** The programs that distributions ship setuid, setgid or with file capabilities, as their packages have them. */
import { nameOf } from '../../tree/tree.ts'
import type { FileEntry } from './files.ts'

interface Known {
  /** At most these mode bits beyond 0777, and at most these capabilities, by name. */
  bits: number
  capabilities?: readonly string[]
  /** Whom it belongs to and may become. Group ids differ between systems. */
  uid: 0
}

const setuid: Known = { bits: 0o4000, uid: 0 }
const setgid: Known = { bits: 0o2000, uid: 0 }
const both: Known = { bits: 0o6000, uid: 0 }
const capable = (...capabilities: string[]): Known => ({ bits: 0o4000, capabilities, uid: 0 })

/** By the names of the programs, in the folders below. Debian, Fedora, Arch, openSUSE. */
// biome-ignore format: table
const PROGRAMS: Readonly<Record<string, Known>> = {
  // shadow, util-linux, pam
  chage: both, chfn: setuid, chsh: setuid, expiry: setgid, gpasswd: setuid, newgrp: setuid, passwd: setuid, sg: setuid,
  su: setuid, mount: setuid, umount: setuid, wall: setgid, write: setgid, 'write.ul': setgid, 'bsd-write': setgid,
  unix_chkpwd: both, unix2_chkpwd: both, pam_timestamp_check: setuid, pam_extrausers_chkpwd: setgid,
  newuidmap: capable('cap_setuid'), newgidmap: capable('cap_setgid'), login: setuid, 'run0': setuid,
  'mount.nfs': setuid, 'mount.cifs': setuid, 'umount.nfs': setuid, 'mount.ntfs-3g': setuid, 'ntfs-3g': setuid, 'mount.davfs': setuid,
  // who may become another
  sudo: setuid, sudoedit: setuid, doas: setuid, pkexec: setuid, 'polkit-agent-helper-1': setuid, userhelper: setuid,
  'dbus-daemon-launch-helper': setuid, 'ssh-agent': setgid, 'ssh-keysign': both, ksu: setuid, 'sudo-rs': setuid, 'su-rs': setuid,
  // networks
  ping: capable('cap_net_raw'), ping6: capable('cap_net_raw'), arping: capable('cap_net_raw'), clockdiff: capable('cap_net_raw', 'cap_sys_nice'),
  traceroute6: setuid, mtr: capable('cap_net_raw'), 'mtr-packet': capable('cap_net_raw'), fping: capable('cap_net_raw'),
  pppd: setuid, 'gst-ptp-helper': capable('cap_net_bind_service', 'cap_net_admin', 'cap_sys_nice'),
  dumpcap: capable('cap_net_raw', 'cap_net_admin'), usernetctl: setuid, 'lxc-user-nic': setuid, slirp4netns: capable('cap_net_raw'),
  // file systems and containers
  fusermount: setuid, fusermount3: setuid, bwrap: setuid, 'snap-confine': both, 'flatpak-bwrap': setuid, 'vmware-user-suid-wrapper': setuid,
  'chrome-sandbox': setuid, 'chromium-sandbox': setuid, 'spice-client-glib-usb-acl-helper': setuid, 'qemu-bridge-helper': setuid,
  // mail, printing, jobs, screens
  at: both, crontab: both, 'dotlockfile': setgid, 'mail-lock': setgid, 'mail-unlock': setgid, 'mail-touchlock': setgid,
  postdrop: setgid, postqueue: setgid, exim4: setuid, procmail: both, lppasswd: setuid, locate: setgid, plocate: setgid, mlocate: setgid,
  'utempter': setgid, screen: setgid, Xorg: setuid, 'Xorg.wrap': both, 'kwin_wayland': capable('cap_sys_nice'),
  'gnome-shell': capable('cap_sys_nice'), kcheckpass: setuid, 'gnome-keyring-daemon': capable('cap_ipc_lock'),
  'cockpit-session': setuid, 'grub2-set-bootflag': setuid, 'systemd-detect-virt': capable('cap_dac_override', 'cap_sys_ptrace'),
  'abrt-action-install-debuginfo-to-abrt-cache': setuid, 'intel_gpu_top': capable('cap_perfmon'), 'ssh-keysign2': setuid,
}

const FOLDERS =
  /^usr\/(?:bin|sbin|lib(?:64|exec)?(?:\/[\w.-]+)*\/(?:dbus-1(?:\.0)?|openssh|ssh|polkit-1|utempter|xorg|gstreamer-1\.0|emacs|lxc|snapd|qemu|spice-gtk|cockpit|chromium|eject|pam|libexec)|lib(?:64|exec)?(?:\/[\w-]+-linux-gnu\w*)?(?:\/[\w.-]+)?)$/

/** Whether a program with such rights is one a distribution ships with them. */
export function isPrivileged(path: string, { mode, uid }: FileEntry, rights: string): boolean {
  const known = Object.hasOwn(PROGRAMS, nameOf(path)) ? PROGRAMS[nameOf(path)] : undefined
  if (!known || !FOLDERS.test(path.slice(0, path.lastIndexOf('/')))) return false
  if (uid !== known.uid || (mode & 0o6000 & ~known.bits) !== 0) return false
  // Whoever may write such a program may become its owner.
  if ((mode & 0o022) !== 0) return false
  const capabilities = /(cap_\S+?)=e?p/.exec(rights)?.[1]?.split(',') ?? []
  return capabilities.every((name) => known.capabilities?.includes(name))
}
