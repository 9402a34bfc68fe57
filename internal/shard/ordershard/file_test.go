package ordershard

import (
	"slices"
	"testing"

	"hanse/api/orderpb"
)

// FuzzFile looks at rows of any content: they are refused, or mean the same once they are written again.
func FuzzFile(f *testing.F) {
	for _, positions := range [][]uint64{nil, {1}, {7, 8, 300, 1 << 40}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		f.Add(fileCodec.Append(nil, &file{order: orderpb.Order{Id: "ord_1", Revision: uint64(len(positions)), Total: 5}, positions: positions}))
	}
	f.Add([]byte{})
	f.Add([]byte{2, 1})    // a position is missing
	f.Add([]byte{1, 0})    // and one that does not go forward
	f.Add([]byte{0, 0xff}) // an order that is none
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := fileCodec.Decode(data)
		if err != nil {
			return
		}
		written := fileCodec.Append(nil, a)
		if n := fileCodec.Size(a); n < a.order.SizeVT() {
			t.Errorf("Size = %d of an order of %d bytes", n, a.order.SizeVT())
		}
		b, err := fileCodec.Decode(written)
		if err != nil || !a.order.EqualVT(&b.order) || !slices.Equal(a.positions, b.positions) {
			t.Errorf("%v at %v, written and read: %v at %v, %v", &a.order, a.positions, &b.order, b.positions, err)
		}
	})
}

func TestCustomersOrdersAreNewestFirst(t *testing.T) {
	key := func(customer string, at int64, id string) string {
		return customerKey(&orderpb.Order{CustomerId: customer, CreatedAt: at, Id: id})
	}
	keys := []string{
		key("an", 1, "ord_1"), key("ann", 300, "ord_2"), key("ann", 299, "ord_4"), key("ann", 299, "ord_5"), key("ann", 1, "ord_3"),
		key("anna", 1_700_000_000_000, "ord_1"),
	}
	if !slices.IsSorted(keys) {
		t.Errorf("keys are not in order: %q", keys)
	}
}
