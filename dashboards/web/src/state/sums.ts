// Sums over what the API tells one by one. Pure.

import type { SiteView } from "../api/types";

export interface SiteSums {
  read: number;
  readPrefetched: number;
  prefetched: number;
  wasted: number;
}

export function sumSites(sites: readonly SiteView[]): SiteSums {
  const sums = { read: 0, readPrefetched: 0, prefetched: 0, wasted: 0 };
  for (const status of sites) {
    sums.read += status.read_bytes;
    sums.readPrefetched += status.read_prefetched_bytes;
    sums.prefetched += status.prefetched_bytes;
    sums.wasted += status.wasted_bytes;
  }
  return sums;
}
