package order

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"hanse/api/orderpb"
	"hanse/internal/id"
	"hanse/internal/reject"
)

// The bounds of an order.
const (
	// MaxLines bounds the lines of an order, and the items of one fulfillment or return.
	MaxLines = 2000
	// MaxQuantity bounds a quantity, in units.
	MaxQuantity = 1_000_000_000
	// MaxAmount bounds a line and the total, in minor units.
	MaxAmount = 1_000_000_000_000_000
	// MaxObjects bounds the fulfillments of an order, its returns and its refunds.
	MaxObjects = 1000
	// MaxSKUChars bounds a SKU.
	MaxSKUChars = 64
	// MaxTextBytes bounds a free text: a reason, a reference, evidence.
	MaxTextBytes = 1024
	// MaxNameBytes bounds a customer ID, a location and a payment method.
	MaxNameBytes = 255
	// PlacingTime is how long an order may take to be placed and paid before it expires.
	PlacingTime = 15 * time.Minute
)

// DefaultLocation is where an order takes its stock unless it says otherwise.
const DefaultLocation = "main"

// DecidePlace decides on a new order. ShardOf names the inventory shard that keeps a SKU. A free order of which nothing
// is tracked is confirmed at once.
func DecidePlace(p *orderpb.Place, shardOf func(sku string) uint32, now int64) ([]*orderpb.Event, *reject.Rejection) {
	if _, err := id.Parse(id.Order, p.Id); err != nil {
		return nil, refuse(reject.InvalidID, "/id", "%v", err)
	}
	if r := checkHeader(p); r != nil {
		return nil, r
	}
	var e struct {
		orderpb.Event
		is    orderpb.Event_Placed
		what  orderpb.Placed
		order orderpb.Order
	}
	e.what.Order, e.is.Placed, e.Detail = &e.order, &e.what, &e.is
	o := &e.order
	o.CustomerId, o.Currency, o.Location = p.CustomerId, p.Currency, cmp.Or(p.Location, DefaultLocation)
	o.PaymentMethod, o.MerchantReference = p.PaymentMethod, p.MerchantReference
	o.Deadline = now + PlacingTime.Milliseconds()
	var few [8]uint32 // most orders need no more, and then nothing is allocated
	shards := few[:0]
	lines := make([]orderpb.Line, len(p.Lines))
	o.Lines = make([]*orderpb.Line, len(p.Lines))
	for i, asked := range p.Lines {
		l := &lines[i]
		l.No, l.Sku, l.Quantity, l.UnitPrice, l.Untracked = uint32(i)+1, asked.Sku, asked.Quantity, asked.UnitPrice, asked.Untracked
		if r := priceLine(l); r != nil {
			return nil, r
		}
		if o.Total += l.Total; o.Total > MaxAmount {
			return nil, refuse(reject.AmountOverflow, linePointer(l.No, ""), "the lines up to here add up to %d, at most %d is possible", o.Total, int64(MaxAmount))
		}
		o.Lines[i] = l
		if !l.Untracked {
			if shard := shardOf(l.Sku); !slices.Contains(shards, shard) { // as many as there are inventory shards: few
				shards = append(shards, shard)
			}
		}
	}
	if p.HasTotal && p.Total != o.Total {
		return nil, refuse(reject.TotalMismatch, "/total", "the lines add up to %d, stated is %d", o.Total, p.Total)
	}
	slices.Sort(shards)
	legs := make([]orderpb.Leg, len(shards))
	for i, shard := range shards {
		legs[i].Shard = shard
		o.Legs = append(o.Legs, &legs[i])
	}
	if o.Total > 0 {
		o.PaymentId, o.CallFirst = id.Sibling(id.Payment, p.Id), p.CallFirst
		if p.AuthorizeAhead && len(o.Legs) > 0 {
			o.Payment = orderpb.PaymentStep_PAYMENT_AUTHORIZING
		}
	}
	h := follow(&orderpb.Order{Id: p.Id}, now).put(&e.Event)
	if o.Total == 0 && len(o.Legs) == 0 {
		h.confirmed()
	}
	return h.events, nil
}

// Free reports whether an order that is going to be placed costs nothing.
func Free(p *orderpb.Place) bool {
	return !slices.ContainsFunc(p.Lines, func(l *orderpb.Line) bool { return l.Quantity > 0 && l.UnitPrice > 0 })
}

func checkHeader(p *orderpb.Place) *reject.Rejection {
	c := p.Currency
	if len(c) != 3 || c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z' || c[2] < 'A' || c[2] > 'Z' {
		return refuse(reject.InvalidCurrency, "/currency", "%q is not a currency of three capital letters", c)
	}
	for _, text := range []struct {
		field, value string
		limit        int
	}{
		{"/customer_id", p.CustomerId, MaxNameBytes}, {"/location", p.Location, MaxNameBytes},
		{"/payment/method", p.PaymentMethod, MaxNameBytes}, {"/merchant_reference", p.MerchantReference, MaxTextBytes},
	} {
		if r := checkText(text.field, text.value, text.limit); r != nil {
			return r
		}
	}
	switch n := len(p.Lines); {
	case n == 0:
		return refuse(reject.InvalidRequest, "/lines", "an order has at least one line")
	case n > MaxLines:
		return refuse(reject.TooManyLines, "/lines", "the order has %d lines, at most %d are possible", n, MaxLines)
	}
	return nil
}

// priceLine checks a line and fills in its total.
func priceLine(l *orderpb.Line) *reject.Rejection {
	switch {
	case !ValidSKU(l.Sku):
		return refuse(reject.InvalidRequest, linePointer(l.No, "/sku"), "%q is not a SKU: 1 to %d visible characters", l.Sku, MaxSKUChars)
	case l.Quantity < 1 || l.Quantity > MaxQuantity:
		return refuse(reject.InvalidQuantity, linePointer(l.No, "/quantity"), "the quantity is %d, want 1 to %d", l.Quantity, MaxQuantity)
	case l.UnitPrice < 0:
		return refuse(reject.InvalidAmount, linePointer(l.No, "/unit_price"), "the price is %d, want 0 or more", l.UnitPrice)
	}
	high, low := bits.Mul64(uint64(l.Quantity), uint64(l.UnitPrice))
	if high != 0 || low > MaxAmount {
		return refuse(reject.AmountOverflow, linePointer(l.No, ""), "%d times %d is more than %d", l.Quantity, l.UnitPrice, int64(MaxAmount))
	}
	l.Total = int64(low)
	return nil
}

// ValidSKU accepts 1 to MaxSKUChars visible characters, and spaces between them: real catalogues have both.
func ValidSKU(sku string) bool {
	if sku == "" || len(sku) > MaxSKUChars*utf8.UTFMax || sku[0] == ' ' || sku[len(sku)-1] == ' ' {
		return false
	}
	chars := 0
	for _, r := range sku {
		if chars++; chars > MaxSKUChars || r == utf8.RuneError || r < ' ' || r >= 0x7f && !unicode.IsGraphic(r) {
			return false
		}
	}
	return true
}

// checkText bounds what callers write for people: valid UTF-8 without control characters.
func checkText(field, value string, limit int) *reject.Rejection {
	if len(value) > limit {
		return refuse(reject.InvalidRequest, field, "the text has %d bytes, at most %d are possible", len(value), limit)
	}
	for _, r := range value {
		if r == utf8.RuneError || r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return refuse(reject.InvalidRequest, field, "the text is not valid UTF-8, or has control characters")
		}
	}
	return nil
}

func linePointer(no uint32, part string) string {
	return "/lines/" + strconv.Itoa(int(no)-1) + part
}

func refuse(code, field, format string, args ...any) *reject.Rejection {
	return &reject.Rejection{Code: code, Field: field, Detail: fmt.Sprintf(format, args...)}
}
