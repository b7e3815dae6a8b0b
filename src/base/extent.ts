/** What lies in parts: a file in the clusters of a file system, a partition in a disk image. */

export interface Extent {
  offset: number
  sizeBytes: number
}

/**
 * Where bytes of a whole lie that is made of these parts, one behind the other: the places of its bytes from an offset on,
 * fewer than asked for only where the whole ends. Finding them takes as long for many parts as for few.
 */
export function placesIn(parts: readonly Extent[]): (offset: number, sizeBytes: number) => Extent[] {
  const ends: number[] = []
  let end = 0
  for (const { sizeBytes } of parts) {
    end += sizeBytes
    ends.push(end)
  }
  return (offset, sizeBytes) => {
    const places: Extent[] = []
    let [at, left] = [offset, offset < 0 ? 0 : Math.min(sizeBytes, end - offset)]
    for (let i = firstAbove(ends, at); left > 0; i++) {
      const rest = ends[i]! - at
      const { offset: start, sizeBytes: length } = parts[i]!
      const wanted = Math.min(left, rest)
      if (wanted > 0) places.push({ offset: start + length - rest, sizeBytes: wanted })
      at += wanted
      left -= wanted
    }
    return places
  }
}

/** The first of ascending numbers that is greater than this one. */
function firstAbove(ascending: readonly number[], than: number): number {
  let [low, high] = [0, ascending.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (ascending[middle]! > than) high = middle
    else low = middle + 1
  }
  return low
}
