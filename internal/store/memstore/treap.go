package memstore

import "bytes"

// node is an item of a treap: a binary tree that is ordered by key and, because every node's priority is
// at least that of its children, balanced as if the keys had been inserted in random order.
// Seidel and Aragon, "Randomized Search Trees", 1996.
type node struct {
	key, value  []byte
	left, right *node
	priority    uint32
	// edition is the one that created the node; only that edition changes it in place.
	edition uint64
}

// tree edits versions of a treap. Nodes of its own edition are changed in place, all others are copied first.
type tree struct {
	root    *node
	edition uint64
}

// retain returns the present version, which later changes leave alone.
func (t *tree) retain() *node {
	t.edition++
	return t.root
}

func (t *tree) set(key, value []byte) { t.root = t.insert(t.root, key, value, priority(key)) }

func (t *tree) insert(n *node, key, value []byte, p uint32) *node {
	if n == nil {
		return &node{key: key, value: value, priority: p, edition: t.edition}
	}
	if p > n.priority {
		// Below n all priorities are lower, and equal keys have equal ones: key is new, and belongs above n.
		left, right := t.split(n, key)
		return &node{key: key, value: value, left: left, right: right, priority: p, edition: t.edition}
	}
	n = t.own(n)
	switch c := bytes.Compare(key, n.key); {
	case c < 0:
		n.left = t.insert(n.left, key, value, p)
	case c > 0:
		n.right = t.insert(n.right, key, value, p)
	default:
		n.key, n.value = key, value
	}
	return n
}

func (t *tree) delete(key []byte) {
	// Most deletes in tests hit; those that miss must not copy the path.
	if find(t.root, key) != nil {
		t.root = t.remove(t.root, key)
	}
}

func (t *tree) remove(n *node, key []byte) *node {
	c := bytes.Compare(key, n.key)
	if c == 0 {
		return t.merge(n.left, n.right)
	}
	n = t.own(n)
	if c < 0 {
		n.left = t.remove(n.left, key)
	} else {
		n.right = t.remove(n.right, key)
	}
	return n
}

// replace puts middle, whose keys are all in [lo, hi), in the place of whatever is in [lo, hi).
func (t *tree) replace(lo, hi []byte, middle *node) {
	below, rest := t.split(t.root, lo)
	_, above := t.split(rest, hi)
	t.root = t.merge(t.merge(below, middle), above)
}

// split divides n into the keys below key and the others.
func (t *tree) split(n *node, key []byte) (below, others *node) {
	if n == nil {
		return nil, nil
	}
	n = t.own(n)
	if bytes.Compare(n.key, key) < 0 {
		n.right, others = t.split(n.right, key)
		return n, others
	}
	below, n.left = t.split(n.left, key)
	return below, n
}

// merge joins two treaps of which all keys of a are below those of b.
func (t *tree) merge(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority >= b.priority:
		a = t.own(a)
		a.right = t.merge(a.right, b)
		return a
	default:
		b = t.own(b)
		b.left = t.merge(a, b.left)
		return b
	}
}

func (t *tree) own(n *node) *node {
	if n.edition == t.edition {
		return n
	}
	c := *n
	c.edition = t.edition
	return &c
}

func find(n *node, key []byte) *node {
	for n != nil {
		switch c := bytes.Compare(key, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n
		}
	}
	return nil
}

// last returns the last node whose key is below key.
func last(n *node, key []byte) (found *node) {
	for n != nil {
		if bytes.Compare(n.key, key) < 0 {
			found, n = n, n.right
		} else {
			n = n.left
		}
	}
	return found
}

// priority is FNV-1a with a final mix (of MurmurHash3), for FNV alone leaves similar keys with similar high bits.
func priority(key []byte) uint32 {
	h := uint32(2166136261)
	for _, b := range key {
		h = (h ^ uint32(b)) * 16777619
	}
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	return h ^ h>>16
}
