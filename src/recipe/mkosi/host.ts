/** What conditions may ask about the machine that builds. */

/** mkosi's name of the machine's architecture. */
export const nativeArchitecture = (): string =>
  ({ x64: 'x86-64', arm64: 'arm64', ia32: 'x86', riscv64: 'riscv64', s390x: 's390x', ppc64: 'ppc64-le', loong64: 'loongarch64' })[
    process.arch as string
  ] ?? 'x86-64'

/**
 * What `[Match] SystemdVersion=` compares with. mkosi asks the building machine's systemctl; here every image is made as if
 * by one systemd, whatever the machine has.
 */
export const SYSTEMD_VERSION = '257'
