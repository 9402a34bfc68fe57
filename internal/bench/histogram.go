package bench

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets no wider than 1/64 of their value, as HdrHistogram does: 1.6 % of error from
// 64 ns to 2 hours. The zero value is empty. It is not for concurrent use: each client has its own, and they are
// merged.
type Histogram struct {
	counts [subBuckets * (maxPower - subPower + 2)]uint64
	total  uint64
	max    time.Duration
}

const (
	subPower   = 6
	subBuckets = 1 << subPower
	maxPower   = 42 // 2^43 ns are 2.4 hours
)

// bucket returns the index of the bucket that holds ns. Values below subBuckets have a bucket each; above, each power of two
// is divided into subBuckets.
func bucket(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	power := min(bits.Len64(ns)-1, maxPower)
	if ns >= 1<<(maxPower+1) {
		ns = 1<<(maxPower+1) - 1
	}
	return (power-subPower)<<subPower + int(ns>>(power-subPower))
}

// upper returns the largest value of a bucket.
func upper(i int) uint64 {
	if i < subBuckets {
		return uint64(i)
	}
	power := i>>subPower - 1
	return (uint64(i)-uint64(power)<<subPower+1)<<power - 1
}

// Record adds a duration.
func (h *Histogram) Record(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.total++
	h.max = max(h.max, d)
}

// Merge adds what another histogram has counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// Count returns the number of durations recorded.
func (h *Histogram) Count() uint64 { return h.total }

// Max returns the longest duration recorded, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns the duration that the fraction q (0 to 1) of the recorded ones does not exceed; 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q*float64(h.total) + 0.5)
	rank = max(1, min(rank, h.total))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank && n > 0 {
			return min(time.Duration(upper(i)), h.max)
		}
	}
	return 0
}
