package inventory

import (
	"fmt"
	"unicode/utf8"

	"hanse/api/inventorypb"
	"hanse/internal/invariant"
	"hanse/internal/reject"
)

// The records, as they are stored and answered.
type (
	Item  = inventorypb.Item
	Hold  = inventorypb.Hold
	Line  = inventorypb.HoldLine
	State = inventorypb.HoldState
)

// The bounds. What exceeds one is rejected.
const (
	// DefaultLocation is meant by an empty location.
	DefaultLocation = "main"
	// MaxQuantity bounds one demand, receipt or adjustment, in units.
	MaxQuantity = 1_000_000_000
	// MaxOnHand bounds what receipts and adjustments may bring an item to. Restocks may exceed
	// it: they are bounded by what was fulfilled, and refusing one would leave goods nowhere.
	MaxOnHand = 1_000_000_000_000_000
	// MaxDemands bounds the demands of one command: as many as an order has lines.
	MaxDemands = 2000
	// MaxOperations bounds the operation IDs that one hold remembers: an order has at most
	// 1,000 fulfillments and as many returns; the rest is for partial releases.
	MaxOperations = 4000
	// MaxNameBytes bounds a SKU, a location, a hold's and an operation's ID.
	MaxNameBytes = 128
	// MaxReasonBytes bounds the reason of a receipt or adjustment.
	MaxReasonBytes = 500
)

// Books is where items and holds are kept. What Item and Hold return belongs to the books; the functions of
// this package change it and then put it back.
type Books interface {
	Item(sku, location string) (*Item, bool)
	PutItem(*Item)
	Hold(id string) (*Hold, bool)
	PutHold(*Hold)
	// Record keeps a movement under the next sequence number.
	Record(*inventorypb.Movement)
}

// Available returns the units that can still be reserved.
func Available(i *Item) int64 { return i.OnHand - i.Reserved - i.Allocated - i.Unavailable }

// Location returns l, or the default for an empty one.
func Location(l string) string {
	if l == "" {
		return DefaultLocation
	}
	return l
}

// put checks the item's counters and stores it as its next revision.
func put(b Books, i *Item) {
	// The condition stands outside: Check's arguments are put on the heap even when they are not needed, here for every line.
	if i.Tentative < 0 || i.Reserved < i.Tentative || i.Allocated < 0 || i.Unavailable < 0 || Available(i) < 0 {
		invariant.Check(false, "item %s at %s: on_hand %d, reserved %d (tentative %d), allocated %d, unavailable %d",
			i.Sku, i.Location, i.OnHand, i.Reserved, i.Tentative, i.Allocated, i.Unavailable)
	}
	i.Revision++
	b.PutItem(i)
}

// Receive books goods that have come in, and creates the item with its first receipt.
func Receive(b Books, c *inventorypb.Receive, now int64) (*Item, *reject.Rejection) {
	location := Location(c.Location)
	if r := checkMovement(c.Sku, location, c.Reason); r != nil {
		return nil, r
	}
	if c.Quantity < 1 || c.Quantity > MaxQuantity {
		return nil, rejectQuantity("/quantity", c.Quantity)
	}
	return move(b, &inventorypb.Movement{Sku: c.Sku, Location: location, Quantity: c.Quantity, Reason: c.Reason, At: now}, false)
}

// Adjust corrects what is on hand by a difference, for example after a count. It never takes units that are held. One that awaits what is held
// tentatively and falls short only of that cannot be answered yet: then there is neither an item nor a rejection (see [Reserve]).
func Adjust(b Books, c *inventorypb.Adjust, now int64) (*Item, *reject.Rejection) {
	location := Location(c.Location)
	if r := checkMovement(c.Sku, location, c.Reason); r != nil {
		return nil, r
	}
	if c.Quantity == 0 || c.Quantity < -MaxQuantity || c.Quantity > MaxQuantity {
		return nil, &reject.Rejection{Code: reject.InvalidQuantity, Field: "/quantity",
			Detail: fmt.Sprintf("an adjustment by %d; want -%d to %d and not 0", c.Quantity, MaxQuantity, MaxQuantity)}
	}
	return move(b, &inventorypb.Movement{
		Sku: c.Sku, Location: location, Quantity: c.Quantity, Reason: c.Reason, At: now, Adjustment: true,
	}, c.AwaitTentative)
}

func move(b Books, m *inventorypb.Movement, awaitTentative bool) (*Item, *reject.Rejection) {
	i, ok := b.Item(m.Sku, m.Location)
	if !ok {
		if m.Quantity < 0 {
			return nil, noItem(m.Sku, m.Location)
		}
		i = &Item{Sku: m.Sku, Location: m.Location}
	}
	switch after := Available(i) + m.Quantity; {
	case after < 0 && awaitTentative && after+i.Tentative >= 0:
		contest(b, i, -m.Quantity, m.At)
		return nil, nil
	case after < 0:
		return nil, &reject.Rejection{Code: reject.StockNegative, Field: "/quantity",
			Detail: fmt.Sprintf("%s at %s has %d available, the adjustment takes %d", m.Sku, m.Location, Available(i), -m.Quantity)}
	case i.OnHand+m.Quantity > MaxOnHand:
		return nil, &reject.Rejection{Code: reject.InvalidQuantity, Field: "/quantity",
			Detail: fmt.Sprintf("%s at %s has %d on hand, %d more would exceed %d", m.Sku, m.Location, i.OnHand, m.Quantity, MaxOnHand)}
	}
	i.OnHand += m.Quantity
	put(b, i)
	b.Record(m)
	return i, nil
}

// SetTracking says whether an item's stock is counted. It creates an item that is not, such as a
// service; holds that exist keep what they have.
func SetTracking(b Books, c *inventorypb.SetTracking) (*Item, *reject.Rejection) {
	location := Location(c.Location)
	if r := checkMovement(c.Sku, location, ""); r != nil {
		return nil, r
	}
	i, ok := b.Item(c.Sku, location)
	switch {
	case !ok && !c.Untracked:
		return nil, noItem(c.Sku, location)
	case !ok:
		i = &Item{Sku: c.Sku, Location: location}
	case i.Untracked == c.Untracked:
		return i, nil
	}
	i.Untracked = c.Untracked
	put(b, i)
	return i, nil
}

func noItem(sku, location string) *reject.Rejection {
	return &reject.Rejection{Code: reject.SKUNotFound, Field: "/sku", Detail: fmt.Sprintf("%s has never been received at %s", sku, location)}
}

func rejectQuantity(field string, quantity int64) *reject.Rejection {
	return &reject.Rejection{Code: reject.InvalidQuantity, Field: field, Detail: fmt.Sprintf("quantity %d; want 1 to %d", quantity, MaxQuantity)}
}

func checkMovement(sku, location, reason string) *reject.Rejection {
	switch {
	case !validName(sku):
		return rejectName("/sku", sku)
	case !validName(location):
		return rejectName("/location", location)
	case len(reason) > MaxReasonBytes || !utf8.ValidString(reason):
		return &reject.Rejection{Code: reject.InvalidRequest, Field: "/reason",
			Detail: fmt.Sprintf("the reason has %d bytes; want at most %d, in UTF-8", len(reason), MaxReasonBytes)}
	}
	return nil
}

func rejectName(field, name string) *reject.Rejection {
	return &reject.Rejection{Code: reject.InvalidRequest, Field: field,
		Detail: fmt.Sprintf("%.64q: want 1 to %d bytes of UTF-8 without control characters", name, MaxNameBytes)}
}

// validName accepts what can be a part of a key, in which control characters separate the parts.
func validName(s string) bool {
	if len(s) == 0 || len(s) > MaxNameBytes {
		return false
	}
	ascii := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	return ascii || utf8.ValidString(s)
}
