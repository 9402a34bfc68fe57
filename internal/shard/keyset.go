package shard

// keySet remembers which keys a table may hold, as fingerprints of 32 bits: a key that it does not know is certainly absent.
// It is for keys that come once, in no order, such as idempotency keys: each was a read of the store that found nothing.
// Fingerprints are never removed, for two keys may share one; beyond its limit the set gives up and knows all keys.
type keySet struct {
	slots []uint32 // open addressing, 0 is free; at most half of them used
	count int
	limit int
}

func newKeySet(limit int) *keySet { return &keySet{slots: make([]uint32, 1024), limit: limit} }

// fingerprint is FNV-1a folded to 32 bits; never 0.
func fingerprint(key string) uint32 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return max(uint32(h>>32)^uint32(h), 1)
}

func (s *keySet) add(key string) {
	if s.slots == nil {
		return
	}
	if s.count >= s.limit {
		s.slots = nil
		return
	}
	if 2*s.count >= len(s.slots) {
		old := s.slots
		s.slots, s.count = make([]uint32, 2*len(old)), 0
		for _, f := range old {
			if f != 0 {
				s.put(f)
			}
		}
	}
	s.put(fingerprint(key))
}

func (s *keySet) put(f uint32) {
	mask := uint32(len(s.slots) - 1)
	for i := f & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case f:
			return
		case 0:
			s.slots[i] = f
			s.count++
			return
		}
	}
}

// mayHave reports whether the table may hold key.
func (s *keySet) mayHave(key string) bool {
	if s.slots == nil {
		return true
	}
	f := fingerprint(key)
	mask := uint32(len(s.slots) - 1)
	for i := f & mask; s.slots[i] != 0; i = (i + 1) & mask {
		if s.slots[i] == f {
			return true
		}
	}
	return false
}
