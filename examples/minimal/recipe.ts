import { defineRecipe } from 'bisque'

// What it takes to boot a virtual machine, set up its disk, and log in on the console.
const boot = 'linux-image-cloud-amd64 systemd-boot systemd-boot-efi systemd-repart systemd-cryptsetup cryptsetup-bin'
const system = 'systemd systemd-sysv udev dbus login passwd kmod util-linux procps less libpam-systemd libnss-systemd'

// Debian 13 with a console, in an image whose /usr is signed and cannot be changed. `bisque build` bakes it.
export default defineRecipe({
  imageId: 'Minimal',
  imageVersion: '1',
  hostname: 'minimal',
  release: 'trixie',
  packages: `${boot} ${system}`.split(' '),
  kernelCommandLine: ['console=ttyS0', 'loglevel=4'],
})
