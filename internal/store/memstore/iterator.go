package memstore

import "bytes"

// iterator walks over one version of the data.
type iterator struct {
	root   *node
	lo, hi []byte
	// path holds the current node on top and below it those ancestors whose turn comes after it.
	path []*node
	// started is false before the first move and after a SeekLT that found nothing: the next key is then the first.
	started bool
}

func newIterator(root *node, lo, hi []byte) *iterator {
	return &iterator{root: root, lo: bytes.Clone(lo), hi: bytes.Clone(hi)}
}

func (it *iterator) Next() bool {
	if !it.started {
		return it.SeekGE(it.lo)
	}
	if len(it.path) == 0 {
		return false
	}
	top := it.path[len(it.path)-1]
	it.path = it.path[:len(it.path)-1]
	for n := top.right; n != nil; n = n.left {
		it.path = append(it.path, n)
	}
	return it.inRange()
}

func (it *iterator) SeekGE(key []byte) bool {
	if bytes.Compare(key, it.lo) < 0 {
		key = it.lo
	}
	it.started = true
	it.path = it.path[:0]
	for n := it.root; n != nil; {
		if bytes.Compare(n.key, key) < 0 {
			n = n.right
		} else {
			it.path = append(it.path, n)
			n = n.left
		}
	}
	return it.inRange()
}

func (it *iterator) SeekLT(key []byte) bool {
	if len(it.hi) > 0 && bytes.Compare(key, it.hi) > 0 {
		key = it.hi
	}
	n := last(it.root, key)
	if n == nil || bytes.Compare(n.key, it.lo) < 0 {
		it.path, it.started = it.path[:0], false
		return false
	}
	return it.SeekGE(n.key)
}

// inRange ends the walk when the current node is at or past the upper bound.
func (it *iterator) inRange() bool {
	if len(it.path) > 0 && len(it.hi) > 0 && bytes.Compare(it.path[len(it.path)-1].key, it.hi) >= 0 {
		it.path = it.path[:0]
	}
	return len(it.path) > 0
}

func (it *iterator) Key() []byte   { return it.path[len(it.path)-1].key }
func (it *iterator) Value() []byte { return it.path[len(it.path)-1].value }

func (it *iterator) Close() error {
	it.root, it.path, it.started = nil, nil, true
	return nil
}
