package sim

import "math"

// random is a generator with a state of one word (splitmix64: Steele, Lea and Flood, 2014). Each part of a world has
// its own, so that switching off one kind of fault leaves what the others draw alone.
type random struct{ state uint64 }

// newRandom returns the generator of a seed for one purpose.
func newRandom(seed uint64, purpose string) *random {
	h := uint64(14695981039346656037)
	for i := range len(purpose) {
		h = (h ^ uint64(purpose[i])) * 1099511628211
	}
	r := &random{state: seed*0x9e3779b97f4a7c15 ^ h}
	r.next()
	return r
}

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	return mix(r.state)
}

// mix spreads every bit of z over the whole word.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number from 0 to n-1.
func (r *random) below(n int) int { return int(r.next() % uint64(n)) }

// between returns a number from lo to hi.
func (r *random) between(lo, hi int64) int64 { return lo + int64(r.next()%uint64(hi-lo+1)) }

// float returns a number from 0 to below 1.
func (r *random) float() float64 { return float64(r.next()>>11) / (1 << 53) }

// chance is true with probability p.
func (r *random) chance(p float64) bool { return p > 0 && r.float() < p }

// exponential returns a waiting time with the given mean, at most ten times it.
func (r *random) exponential(mean int64) int64 {
	return min(int64(-math.Log(1-r.float())*float64(mean)), 10*mean)
}

// Read makes the generator an io.Reader, in the place of crypto/rand's.
func (r *random) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 8 {
		v := r.next()
		for j := i; j < min(i+8, len(p)); j++ {
			p[j] = byte(v)
			v >>= 8
		}
	}
	return len(p), nil
}

func pick[T any](r *random, list []T) T { return list[r.below(len(list))] }
