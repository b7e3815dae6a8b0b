import { defineRecipe } from 'bisque'

// What it takes to boot a virtual machine, set up its disk, and log in on the console.
const boot = ['linux-image-cloud-amd64', 'systemd-boot', 'systemd-boot-efi', 'systemd-repart', 'systemd-cryptsetup']
const system = ['systemd', 'systemd-sysv', 'udev', 'dbus', 'login', 'passwd', 'kmod', 'util-linux', 'bash', 'coreutils', 'less']

// Debian 13 with a console, in an image whose /usr is signed and cannot be changed. `bisque build` bakes it.
export default defineRecipe({
  imageId: 'Minimal',
  imageVersion: '1',
  distribution: 'debian',
  release: 'trixie',
  packages: [...boot, ...system, 'libpam-systemd', 'libnss-systemd', 'procps'],
  kernelCommandLine: ['console=ttyS0'],
  // No password opens root's account. `bisque vm` logs in all the same, through a credential of the virtual machine.
})
