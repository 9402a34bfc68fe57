package rest

import (
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"

	"hanse/api/orderpb"
	"hanse/internal/inventory"
	"hanse/internal/order"
	"hanse/internal/reject"
)

// Bounds that need no state are checked here and again by the shards: here, so that a mistake costs no log entry and
// the answer names every one of them.
const (
	maxLines      = order.MaxLines
	maxQuantity   = order.MaxQuantity
	maxAmount     = order.MaxAmount
	maxName       = order.MaxNameBytes // of references and reasons too
	maxEvidence   = 1000               // bytes
	maxViolations = 32                 // listed in one answer
)

// body reads a request's JSON and collects what is wrong with its values.
type body struct {
	parser
	violations []reject.Rejection
}

func newBody(data []byte) *body {
	b := &body{parser: parser{data: data}}
	b.path = b.room[:0]
	return b
}

// wrong records a violation at the place where the parser is, or at the given member of it.
func (b *body) wrong(code, detail string, member ...string) {
	if len(b.violations) < maxViolations {
		b.violations = append(b.violations, reject.Rejection{Code: code, Field: b.pointer(member...), Detail: detail})
	}
}

// done returns what is wrong: the syntax if it is, all values otherwise.
func (b *body) done() error {
	if r := b.end(); r != nil {
		return &refusal{all: []reject.Rejection{*r}}
	}
	if len(b.violations) > 0 {
		return &refusal{all: b.violations}
	}
	return nil
}

// text reads a string of at most so many bytes without control characters.
func (b *body) text(most int) string {
	s := b.str()
	switch {
	case len(s) > most:
		b.wrong(reject.InvalidRequest, fmt.Sprintf("has %d bytes, at most %d are allowed", len(s), most))
	case hasControl(s):
		b.wrong(reject.InvalidRequest, "has control characters")
	}
	return s
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// What names stock obeys one rule at every door, the order's: what no order accepts could be received and never sold.
var (
	wantSKU      = fmt.Sprintf("want a SKU of 1 to %d visible characters, without a space at either end", order.MaxSKUChars)
	wantLocation = fmt.Sprintf("want a location of at most %d bytes, without control characters", inventory.MaxNameBytes)
)

// sku reads the SKU of an order's line, or of a reservation.
func (b *body) sku() string {
	s := b.str()
	if b.err == nil && !order.ValidSKU(s) {
		b.wrong(reject.InvalidRequest, wantSKU)
	}
	return s
}

// location reads where stock is; empty is the default.
func (b *body) location() string {
	s := b.str()
	if b.err == nil && (len(s) > inventory.MaxNameBytes || hasControl(s) || strings.ContainsRune(s, utf8.RuneError)) {
		b.wrong(reject.InvalidRequest, wantLocation)
	}
	return s
}

func (b *body) quantity() int64 {
	n := b.int()
	if b.err == nil && (n < 1 || n > maxQuantity) {
		b.wrong(reject.InvalidQuantity, fmt.Sprintf("is %d, want 1 to %d whole units", n, maxQuantity))
	}
	return n
}

// amount reads minor units, no fewer than least.
func (b *body) amount(least int64) int64 {
	n := b.int()
	switch {
	case b.err != nil:
	case n < least:
		b.wrong(reject.InvalidAmount, fmt.Sprintf("is %d minor units, want at least %d", n, least))
	case n > maxAmount:
		b.wrong(reject.AmountOverflow, fmt.Sprintf("is %d minor units, want at most %d", n, maxAmount))
	}
	return n
}

func (b *body) currency() string {
	s := b.str()
	if b.err == nil && !isCurrency(s) {
		b.wrong(reject.InvalidCurrency, fmt.Sprintf("%.20q is not a code of three capital letters", s))
	}
	return s
}

func isCurrency(s string) bool {
	return len(s) == 3 && isCapital(s[0]) && isCapital(s[1]) && isCapital(s[2])
}

func isCapital(c byte) bool { return c >= 'A' && c <= 'Z' }

// missing records that a required member is absent, unless the body is not even JSON.
func (b *body) missing(present bool, code, member string) {
	if !present && b.err == nil {
		b.wrong(code, "is required", member)
	}
}

var (
	placeFields   = []string{"customer_id", "currency", "lines", "total", "payment", "location", "merchant_reference"}
	lineFields    = []string{"sku", "quantity", "unit_price", "tracked", "currency"}
	paymentFields = []string{"method"}
)

// decodePlace reads an [OrderRequest].
func decodePlace(data []byte) (*orderpb.Place, error) {
	b := newBody(data)
	p := &orderpb.Place{}
	var currencies []string // of lines that state one, by index
	var total int64
	var hasCurrency, hasLines, overflow bool
	b.object(placeFields, func(i int) {
		switch i {
		case 0:
			p.CustomerId = b.text(maxName)
		case 1:
			hasCurrency = true
			p.Currency = b.currency()
		case 2:
			hasLines = true
			p.Lines = make([]*orderpb.Line, 0, 4)
			b.array(func(i int) {
				l, currency := b.line(uint32(i + 1))
				if i >= maxLines {
					if i == maxLines { // one violation, about the lines and not about this one
						at := b.path
						b.path = at[:len(at)-1]
						b.wrong(reject.TooManyLines, fmt.Sprintf("has more than %d lines", maxLines))
						b.path = at
					}
					return
				}
				if currency != "" {
					for len(currencies) < i {
						currencies = append(currencies, "")
					}
					currencies = append(currencies, currency)
				}
				if l.UnitPrice > 0 && l.Quantity > 0 && !overflow {
					hi, lo := bits.Mul64(uint64(l.UnitPrice), uint64(l.Quantity))
					if hi != 0 || lo > maxAmount {
						overflow = true
						b.wrong(reject.AmountOverflow, fmt.Sprintf("the line is worth more than %d minor units", maxAmount))
					} else {
						l.Total = int64(lo)
						total += l.Total // at most 2,000 * 10^15: fits
					}
				}
				p.Lines = append(p.Lines, l)
			})
		case 3:
			p.HasTotal = true
			p.Total = b.amount(0)
		case 4:
			b.object(paymentFields, func(int) { p.PaymentMethod = b.text(maxName) })
			b.missing(p.PaymentMethod != "", reject.InvalidRequest, "method")
		case 5:
			p.Location = b.location()
		case 6:
			p.MerchantReference = b.text(maxName)
		}
	})
	b.missing(hasCurrency, reject.InvalidCurrency, "currency")
	b.missing(hasLines, reject.InvalidRequest, "lines")
	if b.err == nil && hasLines && len(p.Lines) == 0 {
		b.wrong(reject.InvalidRequest, "has no line, want at least one", "lines")
	}
	for i, c := range currencies {
		if b.err == nil && c != "" && c != p.Currency {
			b.wrong(reject.MixedCurrencies, fmt.Sprintf("is %.20q, the order's currency is %.20q", c, p.Currency), "lines", fmt.Sprint(i), "currency")
		}
	}
	if b.err == nil && len(b.violations) == 0 {
		switch {
		case total > maxAmount:
			b.wrong(reject.AmountOverflow, fmt.Sprintf("the lines sum to %d minor units, at most %d are allowed", total, maxAmount), "lines")
		case p.HasTotal && p.Total != total:
			b.wrong(reject.TotalMismatch, fmt.Sprintf("is %d, the lines sum to %d", p.Total, total), "total")
		}
	}
	if err := b.done(); err != nil {
		return nil, err
	}
	return p, nil
}

// line reads a [LineRequest] and returns it with the currency it states.
func (b *body) line(no uint32) (*orderpb.Line, string) {
	l := &orderpb.Line{No: no}
	var currency string
	var hasSKU, hasQuantity, hasPrice bool
	b.object(lineFields, func(i int) {
		switch i {
		case 0:
			hasSKU = true
			l.Sku = b.sku()
		case 1:
			hasQuantity = true
			l.Quantity = b.quantity()
		case 2:
			hasPrice = true
			l.UnitPrice = b.amount(0)
		case 3:
			l.Untracked = !b.bool()
		case 4:
			currency = b.str()
		}
	})
	b.missing(hasSKU, reject.InvalidRequest, "sku")
	b.missing(hasQuantity, reject.InvalidQuantity, "quantity")
	b.missing(hasPrice, reject.InvalidAmount, "unit_price")
	return l, currency
}

var itemFields = []string{"line", "quantity"}

// items reads a list of [ItemRequest].
func (b *body) items() []*orderpb.Item {
	var items []*orderpb.Item
	b.array(func(i int) {
		it := &orderpb.Item{}
		var hasLine, hasQuantity bool
		b.object(itemFields, func(i int) {
			switch i {
			case 0:
				hasLine = true
				n := b.int()
				if b.err == nil && (n < 1 || n > maxLines) {
					b.wrong(reject.UnknownLine, fmt.Sprintf("is %d, lines count from 1 to at most %d", n, maxLines))
				}
				it.Line = uint32(n)
			case 1:
				hasQuantity = true
				it.Quantity = b.quantity()
			}
		})
		b.missing(hasLine, reject.UnknownLine, "line")
		b.missing(hasQuantity, reject.InvalidQuantity, "quantity")
		if len(items) < maxLines {
			items = append(items, it)
		} else if b.err == nil {
			b.fail("has more than %d items", maxLines)
		}
	})
	return items
}

var cancelFields = []string{"reason"}

func decodeCancel(data []byte) (*orderpb.Cancel, error) {
	b, c := newBody(data), &orderpb.Cancel{}
	if len(data) == 0 { // the only thing it could say is why
		return c, nil
	}
	b.object(cancelFields, func(int) { c.Reason = b.text(maxName) })
	return c, b.done()
}

var fulfillFields = []string{"items", "tracking"}

func decodeFulfill(data []byte) (*orderpb.Fulfill, error) {
	b, f := newBody(data), &orderpb.Fulfill{}
	if len(data) == 0 { // everything that is open
		return f, nil
	}
	b.object(fulfillFields, func(i int) {
		switch i {
		case 0:
			// An empty list would mean everything to the order: a caller who computed nothing to ship must not ship all.
			if f.Items = b.items(); len(f.Items) == 0 && b.err == nil {
				b.wrong(reject.InvalidRequest, "is empty; leave it out to fulfill all that is open")
			}
		case 1:
			f.Tracking = b.text(maxName)
		}
	})
	return f, b.done()
}

var returnFields = []string{"items", "disposition", "reason", "refund"}

func decodeReturn(data []byte) (*orderpb.ReturnItems, error) {
	b, r := newBody(data), &orderpb.ReturnItems{}
	b.object(returnFields, func(i int) {
		switch i {
		case 0:
			r.Items = b.items()
		case 1:
			switch s := b.str(); s {
			case "sellable":
			case "damaged":
				r.Disposition = orderpb.Disposition_DAMAGED
			case "lost":
				r.Disposition = orderpb.Disposition_LOST
			default:
				b.wrong(reject.InvalidRequest, "want sellable, damaged or lost")
			}
		case 2:
			r.Reason = b.text(maxName)
		case 3:
			r.NoRefund = !b.bool()
		}
	})
	if b.err == nil && len(r.Items) == 0 {
		b.wrong(reject.InvalidRequest, "has no item, want at least one", "items")
	}
	return r, b.done()
}

var refundFields = []string{"amount", "reason"}

func decodeRefund(data []byte) (*orderpb.RefundAmount, error) {
	b, r := newBody(data), &orderpb.RefundAmount{}
	var hasAmount bool
	b.object(refundFields, func(i int) {
		switch i {
		case 0:
			hasAmount = true
			r.Amount = b.amount(1)
		case 1:
			r.Reason = b.text(maxName)
		}
	})
	b.missing(hasAmount, reject.InvalidAmount, "amount")
	return r, b.done()
}
