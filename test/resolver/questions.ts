/** What both resolvers are asked: hard sets picked by hand, and sets of popular packages drawn with a fixed seed. */
import { readFileSync } from 'node:fs'

export interface Question {
  packages: readonly string[]
  recommends: boolean
}

/** Each is asked without recommends and with them. */
const HARD = [
  '', // the essential packages alone
  'systemd udev dbus login kmod util-linux linux-image-cloud-amd64 systemd-boot systemd-repart systemd-cryptsetup bash coreutils',
  'task-gnome-desktop',
  'gnome',
  'task-kde-desktop',
  'kde-full',
  'task-xfce-desktop task-german',
  'default-mta',
  'mail-transport-agent bsd-mailx exim4-daemon-heavy',
  'postfix mailutils',
  'exim4 postfix',
  'opensmtpd cron',
  'sendmail-bin procmail',
  'systemd-sysv sysvinit-core',
  'sysvinit-core dbus libpam-elogind',
  'runit-init dbus',
  'init',
  'dbus-broker',
  'dbus-x11 dbus-user-session',
  'default-dbus-session-bus',
  'original-awk',
  'gawk mawk',
  'vim-tiny vim-nox',
  'emacs-nox',
  'emacs-gtk',
  'emacs emacs-pgtk',
  'emacs-lucid emacs-gtk',
  'default-jre',
  'openjdk-21-jre-headless libreoffice-java-common',
  'tomcat10 maven',
  'texlive-full',
  'texlive-xetex latexmk biber',
  'libreoffice',
  'libreoffice-gnome libreoffice-kf6',
  'python3-full python3-pip pipx',
  'python3-sphinx python3-matplotlib python3-pandas',
  'jupyter-notebook python3-opencv',
  'apache2 libapache2-mod-php',
  'nginx php-fpm mariadb-server',
  'default-mysql-server php-mysql wordpress',
  'postgresql-contrib postgis',
  'resolvconf systemd-resolved',
  'openresolv ifupdown dhcpcd-base',
  'network-manager-gnome',
  'pulseaudio pipewire-pulse',
  'pipewire-alsa pulseaudio-module-bluetooth',
  'jackd2 pipewire-jack',
  'linux-image-amd64 initramfs-tools',
  'linux-image-amd64 dracut',
  'dracut initramfs-tools',
  'grub-pc grub-efi-amd64',
  'grub-efi-amd64-signed shim-signed',
  'systemd-boot-efi-amd64-signed systemd-ukify sbsigntool',
  'chrony systemd-timesyncd',
  'ntpsec chrony',
  'rsyslog syslog-ng-core',
  'cron systemd-cron',
  'docker.io podman',
  'qemu-system-x86 libvirt-daemon-system virt-manager',
  'gdm3 sddm lightdm',
  'xserver-xorg x-window-manager i3',
  'wine winetricks',
  'steam-installer',
  'build-essential devscripts sbuild',
  'gcc-13 g++-12 clang',
  'libopenmpi-dev mpi-default-bin',
  'libblas-dev libatlas-base-dev',
  'libopenblas-dev octave',
  'libcurl4-gnutls-dev libcurl4-openssl-dev',
  'libjpeg-dev libtiff-dev libopencv-dev',
  'haskell-platform',
  'r-base r-cran-tidyverse',
  'nodejs npm',
  'ruby-full rails',
  'golang-go docker-compose',
  'rustc cargo rustup',
  'slapd ldap-utils sssd',
  'samba winbind libnss-winbind',
  'dovecot-imapd spamassassin amavisd-new',
  'asterisk',
  'zabbix-server-mysql zabbix-server-pgsql',
  'bacula-server',
  'nagios4 icinga2',
  'live-build debootstrap',
  'firefox-esr chromium',
  'ghostscript cups printer-driver-all',
  'hunspell-de-de aspell-de wngerman',
  'inetutils-telnet telnet',
  'netcat-openbsd netcat-traditional',
  'iptables nftables firewalld ufw',
  'opencl-icd libopencl1 clinfo',
  'mesa-vulkan-drivers vlc',
  'fonts-noto fonts-dejavu',
  'gnome-core kde-plasma-desktop',
  'xfce4 lxqt-core',
  'awk',
  'x-terminal-emulator',
  'no-such-package bash',
  'libc6=1.0',
  'bash=5.2.37-2+b10',
  'mkosi/trixie-backports',
  'systemd/trixie-backports',
  'systemd/trixie-backports udev/trixie-backports systemd-boot/trixie-backports',
  'linux-image-amd64/trixie-backports',
  'libreoffice/trixie-backports',
  'systemd/trixie',
  'openssl/trixie libssl3t64/trixie',
  'openssl/trixie-security',
  'git/trixie-backports git-email',
  '^libtss2-esys-.*$ ^libtss2-(mu|rc|tcti-device).*$',
  'python3:any',
  'bash:amd64',
  'wireguard dkms zfs-dkms',
  'task-desktop task-laptop task-ssh-server',
]

export function questions(): Question[] {
  const popular = readFileSync(new URL('../testdata/popular-packages.txt', import.meta.url), 'utf8')
    .trim()
    .split('\n')
  const random = seeded(0x5eed)
  const drawn = Array.from({ length: 110 }, () => {
    const size = 1 + Math.floor(random() ** 2 * 14)
    return [...new Set(Array.from({ length: size }, () => popular[Math.floor(random() * popular.length)]!))]
  })
  const picked = HARD.map((line) => line.split(' ').filter((name) => name !== ''))
  return [
    ...picked.flatMap((packages) => [false, true].map((recommends) => ({ packages, recommends }))),
    ...drawn.map((packages, i) => ({ packages, recommends: i % 2 === 1 })),
  ]
}

/** mulberry32: the same numbers everywhere. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
