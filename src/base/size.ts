/** Byte counts for people (`117.4 MiB`) and from people (`512M`, `1G`: powers of 1024, as mkosi and systemd read them). */
import { Fault } from './fault.ts'

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

export function formatSize(bytes: number): string {
  const power = bytes < 1024 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(bytes) / 10))
  return `${power === 0 ? bytes : (bytes / 1024 ** power).toFixed(1)} ${UNITS[power]}`
}

export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim())
  if (!match) throw new Fault('usage', `Cannot read size "${text}": expected a number with an optional K, M, G or T`)
  return Math.floor(Number(match[1]) * 1024 ** ' KMGT'.indexOf(match[2]!.toUpperCase() || ' '))
}

export const alignUp = (n: number, to: number): number => Math.ceil(n / to) * to
