import { defineRecipe } from 'bisque'

// What it takes to boot a virtual machine, set up its disk, and log in on the console.
const boot = ['linux-image-cloud-amd64', 'systemd-boot', 'systemd-repart', 'systemd-cryptsetup']
const system = ['systemd', 'systemd-sysv', 'udev', 'dbus', 'login', 'passwd', 'kmod', 'util-linux', 'bash', 'coreutils']

// Debian 13 with a console, in an image whose /usr is signed and cannot be changed. `bisque build` bakes it.
export default defineRecipe({
  imageId: 'Minimal',
  imageVersion: '1',
  distribution: 'debian',
  release: 'trixie',
  packages: [...boot, ...system],
  kernelCommandLine: ['console=ttyS0'],
  // root logs in without a password. Set one before the image meets a network.
  rootPassword: '',
})
