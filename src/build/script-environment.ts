/**
 * What a script finds in its environment, in `$MKOSI_CONFIG`, and in `$PATH` beside a system's programs.
 *
 * Source: mkosi(1), "SCRIPTS": the table of variables, and the commands that scripts may call.
 */
import { readFile } from 'node:fs/promises'
import { Fault } from '../base/fault.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import { byName, summaryOf } from '../recipe/summary.ts'

export type Phase = 'sync' | 'prepare' | 'build' | 'postinst' | 'finalize' | 'postoutput' | 'clean'

/** Where the image's root is for a script that is not run inside it. */
export const BUILD_ROOT = '/buildroot'
/** The same root, ready to be entered. */
export const CHROOT = '/chroot'
/** A script's own name inside. */
export const scriptPath = (phase: Phase): string => `/work/${phase === 'build' ? 'build-script' : phase}`

export interface Around {
  image: ImageRecipe
  profiles: readonly string[]
  epoch: number
  /** There is a folder that build scripts keep their objects in. */
  hasBuildFolder: boolean
  /** The script sees the image as `/`. */
  inside: boolean
}

const IN_IMAGE: readonly Phase[] = ['prepare', 'build', 'postinst', 'finalize']
const WITH_OUTPUT: readonly Phase[] = ['postinst', 'finalize', 'postoutput', 'clean']
const WITH_BUILD_FOLDER: readonly Phase[] = ['build', 'postinst', 'finalize']

/** All variables of a phase. What the recipe sets in `Environment=` wins. */
export async function environmentOf(phase: Phase, around: Around): Promise<Record<string, string>> {
  const { image, profiles, epoch, hasBuildFolder, inside } = around
  const { settings } = image
  const flag = (on: boolean | undefined) => (on ? '1' : '0')
  const optional = (name: string, value: string | undefined) => (value === undefined ? {} : { [name]: value })
  return {
    ...{ ARCHITECTURE: settings.architecture, QEMU_ARCHITECTURE: 'x86_64', EFI_ARCHITECTURE: 'x64' },
    ...{ DISTRIBUTION: settings.distribution, DISTRIBUTION_ARCHITECTURE: 'amd64', RELEASE: settings.release },
    ...optional('IMAGE_ID', settings.imageId),
    ...optional('IMAGE_VERSION', settings.imageVersion),
    ...optional('SUBIMAGE', image.name === 'main' ? undefined : image.name),
    ...(profiles.length > 0 ? { PROFILES: profiles.join(' ') } : {}),
    ...{ SRCDIR: '/work/src', MKOSI_UID: '0', MKOSI_GID: '0', MKOSI_DEBUG: '0', SYSTEMD_OFFLINE: '1' },
    MKOSI_CONFIG: '/work/config.json',
    ...(phase === 'sync' ? { CACHED: '0' } : {}),
    ...(IN_IMAGE.includes(phase) ? imageVariables(phase, inside) : {}),
    ...(WITH_OUTPUT.includes(phase) ? { OUTPUTDIR: '/work/out' } : {}),
    ...(WITH_OUTPUT.includes(phase) && IN_IMAGE.includes(phase) ? { CHROOT_OUTPUTDIR: '/work/out' } : {}),
    ...(WITH_BUILD_FOLDER.includes(phase) && hasBuildFolder ? { BUILDDIR: '/work/build' } : {}),
    ...(phase === 'build' && hasBuildFolder ? { CHROOT_BUILDDIR: '/work/build' } : {}),
    ...(phase === 'build' ? { DESTDIR: '/work/dest', CHROOT_DESTDIR: '/work/dest' } : {}),
    ...(IN_IMAGE.includes(phase)
      ? {
          WITH_DOCS: flag(settings.withDocs),
          WITH_TESTS: flag(settings.withTests),
          WITH_NETWORK: flag(settings.withNetwork),
        }
      : {}),
    SOURCE_DATE_EPOCH: String(epoch),
    // sources belong to whoever wrote them, and git asks whether that is meant
    ...{ GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: 'safe.directory', GIT_CONFIG_VALUE_0: '*' },
    ...(inside ? { PATH: '/usr/bin:/usr/sbin', HOME: '/' } : { PATH: `/work/bin:${PLAIN_PATH}` }),
    ...(await fileVariables(settings.environmentFiles)),
    ...settings.environment,
  }
}

const PLAIN_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

const imageVariables = (phase: Phase, inside: boolean): Record<string, string> => ({
  BUILDROOT: inside ? '/' : BUILD_ROOT,
  CHROOT_SRCDIR: '/work/src',
  SCRIPT: scriptPath(phase),
  CHROOT_SCRIPT: scriptPath(phase),
  ARTIFACTDIR: '/work/artifacts',
  PACKAGEDIR: '/work/packages',
})

/** Variables of `EnvironmentFiles=`, one `NAME=value` a line. */
async function fileVariables(files: readonly string[]): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
      throw new Fault('missing', `Cannot read ${file} of EnvironmentFiles=: ${cause.code}`, { cause })
    })
    for (const line of text.split('\n')) {
      const equals = line.indexOf('=')
      if (equals > 0 && !line.trimStart().startsWith('#')) found[line.slice(0, equals).trim()] = line.slice(equals + 1).trim()
    }
  }
  return found
}

/** The settings of an image as `mkosi --json summary` has them, without secrets: what `$MKOSI_CONFIG` holds. */
export function configJson(image: ImageRecipe): string {
  const rows = Object.entries(byName(summaryOf(image))).map(([name, { value }]) => [name, value])
  return `${JSON.stringify({ Image: image.name, ...Object.fromEntries(rows) }, undefined, 4)}\n`
}

/** The commands that plain scripts find before all others, by name. `chroots`: the image is at `CHROOT`, not at `/`. */
export function commandsOf({ chroots }: { chroots: boolean }): Record<string, string> {
  const enter = chroots
    ? `exec env BUILDROOT=/ HOME=/ PATH=/usr/bin:/usr/sbin chroot ${CHROOT} sh -c 'cd /work/src && unset OLDPWD && exec "$@"' sh "$@"`
    : 'BUILDROOT=/ exec "$@"'
  const inImage = chroots
    ? Object.fromEntries(['dpkg', 'dpkg-query', 'dpkg-divert'].map((name) => [name, `exec mkosi-chroot ${name} "$@"`]))
    : {}
  const accounts = chroots
    ? Object.fromEntries(['useradd', 'groupadd'].map((name) => [name, `exec /usr/sbin/${name} --root ${BUILD_ROOT} "$@"`]))
    : {}
  const bodies = {
    'mkosi-chroot': `[ $# -gt 0 ] || set -- sh\n${enter}`,
    'mkosi-as-caller': 'exec "$@"',
    'mkosi-install': INSTALL,
    'mkosi-reinstall': INSTALL,
    'mkosi-upgrade': 'exit 0',
    'mkosi-remove': 'exec mkosi-chroot dpkg --purge "$@"',
    'apt-get': APT,
    apt: APT,
    ...inImage,
    ...accounts,
  }
  return Object.fromEntries(Object.entries(bodies).map(([name, body]) => [name, `#!/bin/sh\n${body}\n`]))
}

/** Packages come from the lock alone: what is asked for must be there already. */
const INSTALL = `missing=
for name; do
  case $name in -*) continue;; esac
  state=$(mkosi-chroot dpkg-query -W -f '\${db:Status-Status} ' "\${name%%[=/]*}" 2>/dev/null)
  case $state in *installed*) ;; *) missing="$missing $name";; esac
done
[ -z "$missing" ] && exit 0
echo "$(basename "$0"): cannot install$missing: scripts get no packages but those of bisque.lock" >&2
echo "put them into Packages=, or into BuildPackages= for build scripts, and run: bisque lock" >&2
exit 1`

const APT = `for word; do
  case $word in
    -*) ;;
    install|reinstall) while [ "$1" != "$word" ]; do shift; done; shift; exec mkosi-install "$@";;
    remove|purge) while [ "$1" != "$word" ]; do shift; done; shift; exec mkosi-remove "$@";;
    update|upgrade|full-upgrade|dist-upgrade|autoremove|clean|autoclean) exit 0;;
    *) break;;
  esac
done
echo "$(basename "$0"): scripts get no packages but those of bisque.lock; only install, remove and purge are known here" >&2
exit 1`
