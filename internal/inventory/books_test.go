package inventory

import (
	"hanse/api/inventorypb"
)

// memoryBooks are books in maps.
type memoryBooks struct {
	items     map[[2]string]*Item
	holds     map[string]*Hold
	movements []*inventorypb.Movement
}

func newBooks() *memoryBooks {
	return &memoryBooks{items: map[[2]string]*Item{}, holds: map[string]*Hold{}}
}

func (b *memoryBooks) Item(sku, location string) (*Item, bool) {
	i, ok := b.items[[2]string{sku, location}]
	return i, ok
}
func (b *memoryBooks) PutItem(i *Item) { b.items[[2]string{i.Sku, i.Location}] = i }
func (b *memoryBooks) Hold(id string) (*Hold, bool) {
	h, ok := b.holds[id]
	return h, ok
}
func (b *memoryBooks) PutHold(h *Hold)                { b.holds[h.Id] = h }
func (b *memoryBooks) Record(m *inventorypb.Movement) { b.movements = append(b.movements, m) }

// clone copies everything, to see later what has changed.
func (b *memoryBooks) clone() *memoryBooks {
	c := newBooks()
	for k, i := range b.items {
		c.items[k] = i.CloneVT()
	}
	for k, h := range b.holds {
		c.holds[k] = h.CloneVT()
	}
	c.movements = append(c.movements, b.movements...)
	return c
}

func (b *memoryBooks) equal(o *memoryBooks) bool {
	if len(b.items) != len(o.items) || len(b.holds) != len(o.holds) || len(b.movements) != len(o.movements) {
		return false
	}
	for k, i := range b.items {
		if !i.EqualVT(o.items[k]) {
			return false
		}
	}
	for k, h := range b.holds {
		if !h.EqualVT(o.holds[k]) {
			return false
		}
	}
	return true
}
