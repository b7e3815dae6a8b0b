import { defineRecipe } from 'bisque'

// What it takes to boot a virtual machine, set up its disk, and log in on the console.
const boot = 'linux-image-cloud-amd64 systemd-boot systemd-boot-efi systemd-repart systemd-cryptsetup cryptsetup-bin'
// With these, systemd measures each phase of the boot into the TPM, and unlocks what is sealed to it.
const tpm = 'libtss2-esys-3.0.2-0t64 libtss2-rc0t64 libtss2-tcti-device0t64'
const system = 'systemd systemd-sysv udev dbus login passwd kmod util-linux procps less libpam-systemd libnss-systemd'

// Debian 13 with a console, in an image whose /usr is signed and cannot be changed. `bisque build` bakes it.
export default defineRecipe({
  imageId: 'Minimal',
  imageVersion: '1',
  hostname: 'minimal',
  release: 'trixie',
  packages: `${boot} ${tpm} ${system}`.split(' '),
  // Every machine makes itself an encrypted / on first boot, and its TPM alone unlocks it.
  root: 'tpm2',
  kernelCommandLine: ['console=ttyS0', 'loglevel=4'],
})
