package replay

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Currency of the shop's prices.
const Currency = "GBP"

// Plan is everything a replay will do.
type Plan struct {
	// Receipts of stock, by SKU: all that the whole file takes, so that nothing is refused whatever the order of lanes.
	Receipts []Receipt
	// Lanes, the longest first: the customer with the longest history bounds how long a replay takes.
	Lanes []*Lane
	// Truth is what a replay of the plan must come to.
	Truth Truth
	// Refused lists the returns that the plan cannot book, in file order.
	Refused []RefusedReturn
}

// Truth sums a plan up. Units are pieces, amounts are pence.
type Truth struct {
	Orders, Guests, Lines    int
	Units, Amount            int64
	Adjustments              int
	AdjustedUnits            int64
	ReturnsBooked            int
	ReturnedUnits, Refunded  int64
	ReturnedOrders, Rejected int
	// Skipped counts the rows that are no business of a shop's: bad debt.
	Skipped int
}

// Receipt is stock to receive before the first order.
type Receipt struct {
	Key, SKU string
	Quantity int64
}

// Lane is a sequence of actions that depend on one another.
type Lane struct {
	// Customer is empty for a guest's order and for an adjustment.
	Customer string
	Actions  []Action
}

// Action is one step of a lane; exactly one field is set.
type Action struct {
	// Order is placed, and everything of it shipped once it is confirmed.
	Order  *Order
	Adjust *Adjustment
	Return *Return
}

// Order is an invoice.
type Order struct {
	Key, ShipKey string
	Invoice      string
	Customer     string
	Time         time.Time
	Lines        []Line
	// Total in pence.
	Total int64
}

// Line of an order. Its number is its index plus one.
type Line struct {
	SKU      string
	Quantity int64
	// Price of a unit in pence.
	Price int64
	// Untracked marks services and vouchers, which have no stock.
	Untracked bool

	unreturned int64
}

// Adjustment of stock by a signed quantity.
type Adjustment struct {
	Key, SKU string
	Quantity int64
	Reason   string
	Time     time.Time
}

// Return is a return line, booked on one order or spread over several.
type Return struct {
	Invoice string
	Row     int
	Units   int64
	Parts   []ReturnPart
	Time    time.Time
}

// ReturnPart is what a return takes back of one order.
type ReturnPart struct {
	Key   string
	Order *Order
	Items []ReturnItem
	// Amount to refund in pence: the price paid.
	Amount int64
}

// ReturnItem is a quantity of one line of an order.
type ReturnItem struct {
	Line     int // from 1
	Quantity int64
}

// RefusedReturn is a return line that has nothing to be booked on.
type RefusedReturn struct {
	Invoice, SKU string
	Row          int
	Units        int64
	Reason       string
}

// Options of a plan.
type Options struct {
	// Run prefixes every idempotency key, so that the same file can be replayed into one cluster again as new business.
	// Default "online-retail".
	Run string
	// Limit is the number of orders to place; 0 for all. What comes after the last of them in the file is left out.
	Limit int
}

// DefaultRun is the name of a replay that was given none.
const DefaultRun = "online-retail"

// Planner builds a Plan from rows, added in file order.
type Planner struct {
	opts   Options
	plan   Plan
	orders map[string]*Order
	lanes  map[string]*Lane
	// sold has, by customer and SKU, the order lines in file order.
	sold map[sale][]soldLine
	// need is the stock that the whole file takes, used marks the SKUs of the plan.
	need     map[string]int64
	used     map[string]bool
	returns  map[string]int // return requests so far, by invoice
	returned map[*Order]bool
	full     bool
}

type sale struct{ customer, sku string }

type soldLine struct {
	order *Order
	line  int // index
}

// NewPlanner returns an empty planner.
func NewPlanner(opts Options) *Planner {
	opts.Run = cmp.Or(opts.Run, DefaultRun)
	return &Planner{
		opts: opts, orders: make(map[string]*Order), lanes: make(map[string]*Lane), sold: make(map[sale][]soldLine),
		need: make(map[string]int64), used: make(map[string]bool), returns: make(map[string]int), returned: make(map[*Order]bool),
	}
}

// PlanRows plans all rows. An error is the rows', or says which row cannot be kept to the penny.
func PlanRows(rows iter.Seq2[Row, error], opts Options) (*Plan, error) {
	p := NewPlanner(opts)
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		if err := p.Add(row); err != nil {
			return nil, fmt.Errorf("row %d: %w", row.Number, err)
		}
	}
	return p.Finish(), nil
}

// Add takes the next row of the file.
func (p *Planner) Add(row Row) error {
	switch {
	case strings.HasPrefix(row.Invoice, "A"):
		if !p.full {
			p.plan.Truth.Skipped++
		}
		return nil
	case strings.HasPrefix(row.Invoice, "C"):
		if !p.full {
			p.addReturn(row)
		}
		return nil
	case row.Quantity > 0 && row.Price > 0:
		return p.addLine(row)
	}
	p.addAdjustment(row)
	return nil
}

func (p *Planner) addLine(row Row) error {
	untracked := IsService(row.SKU)
	if !untracked {
		p.need[row.SKU] += row.Quantity
	}
	o := p.orders[row.Invoice]
	if o == nil {
		if p.opts.Limit > 0 && len(p.orders) == p.opts.Limit {
			// From here on only the need for stock is counted, and rows of invoices that began before.
			p.full = true
			return nil
		}
		o = &Order{
			Key: p.key("inv", row.Invoice), ShipKey: p.key("inv", row.Invoice) + "-ship",
			Invoice: row.Invoice, Customer: row.Customer, Time: row.Time,
		}
		p.orders[row.Invoice] = o
		lane := p.lane(row.Customer)
		lane.Actions = append(lane.Actions, Action{Order: o})
		p.plan.Truth.Orders++
		if row.Customer == "" {
			p.plan.Truth.Guests++
		}
	}
	if o.Customer != row.Customer {
		return fmt.Errorf("invoice %s belongs to customer %q and to %q", row.Invoice, o.Customer, row.Customer)
	}
	price := pence(row.Price)
	// The file rounds a line's total, an order multiplies its rounded unit price. Where these differ the
	// books would not agree to the penny, and everything that follows would be wrong quietly.
	if total := pence(row.Price * row.Quantity); total != price*row.Quantity {
		return fmt.Errorf("%d × %d/1000 is %d pence, but %d × %d pence is %d",
			row.Quantity, row.Price, total, row.Quantity, price, row.Quantity*price)
	}
	o.Lines = append(o.Lines, Line{SKU: row.SKU, Quantity: row.Quantity, Price: price, Untracked: untracked, unreturned: row.Quantity})
	o.Total += price * row.Quantity
	if !untracked {
		p.used[row.SKU] = true
	}
	if row.Customer != "" {
		s := sale{row.Customer, row.SKU}
		p.sold[s] = append(p.sold[s], soldLine{o, len(o.Lines) - 1})
	}
	t := &p.plan.Truth
	t.Lines++
	t.Units += row.Quantity
	t.Amount += price * row.Quantity
	return nil
}

// addReturn takes units back from the newest lines first. It changes nothing when there are too few.
func (p *Planner) addReturn(row Row) {
	units := -row.Quantity
	lines := p.sold[sale{row.Customer, row.SKU}]
	var left int64
	for _, l := range lines {
		left += l.order.Lines[l.line].unreturned
	}
	t := &p.plan.Truth
	reason := ""
	switch {
	case units <= 0:
		reason = "returns nothing"
	case row.Customer == "":
		reason = "no customer is given"
	case left < units:
		reason = fmt.Sprintf("customer %s has %d unreturned units of it", row.Customer, left)
	}
	if reason != "" {
		t.Rejected++
		p.plan.Refused = append(p.plan.Refused, RefusedReturn{Invoice: row.Invoice, SKU: row.SKU, Row: row.Number, Units: units, Reason: reason})
		return
	}
	ret := &Return{Invoice: row.Invoice, Row: row.Number, Units: units, Time: row.Time}
	for want := units; want > 0; lines = lines[:len(lines)-1] {
		l := lines[len(lines)-1]
		line := &l.order.Lines[l.line]
		n := min(want, line.unreturned)
		if n == 0 {
			continue
		}
		line.unreturned -= n
		want -= n
		if k := len(ret.Parts); k == 0 || ret.Parts[k-1].Order != l.order {
			p.returns[row.Invoice]++
			ret.Parts = append(ret.Parts, ReturnPart{
				Key: p.key("ret", row.Invoice) + "-" + strconv.Itoa(p.returns[row.Invoice]), Order: l.order,
			})
			if !p.returned[l.order] {
				p.returned[l.order] = true
				t.ReturnedOrders++
			}
		}
		part := &ret.Parts[len(ret.Parts)-1]
		part.Items = append(part.Items, ReturnItem{Line: l.line + 1, Quantity: n})
		part.Amount += n * line.Price
		t.Refunded += n * line.Price
	}
	t.ReturnsBooked++
	t.ReturnedUnits += units
	lane := p.lane(row.Customer)
	lane.Actions = append(lane.Actions, Action{Return: ret})
}

func (p *Planner) addAdjustment(row Row) {
	p.need[row.SKU] += max(0, -row.Quantity)
	if p.full {
		return
	}
	p.used[row.SKU] = true
	reason := row.Description
	if reason == "" {
		reason = fmt.Sprintf("invoice %s", row.Invoice)
	}
	p.plan.Truth.Adjustments++
	p.plan.Truth.AdjustedUnits += row.Quantity
	lane := &Lane{Actions: []Action{{Adjust: &Adjustment{
		Key: p.key("adj", strconv.Itoa(row.Number)), SKU: row.SKU, Quantity: row.Quantity, Reason: reason, Time: row.Time,
	}}}}
	p.plan.Lanes = append(p.plan.Lanes, lane)
}

// lane returns the customer's lane, or a new one for a guest.
func (p *Planner) lane(customer string) *Lane {
	if l := p.lanes[customer]; l != nil {
		return l
	}
	l := &Lane{Customer: customer}
	p.plan.Lanes = append(p.plan.Lanes, l)
	if customer != "" {
		p.lanes[customer] = l
	}
	return l
}

func (p *Planner) key(kind, name string) string { return p.opts.Run + "-" + kind + "-" + name }

// Finish returns the plan; the planner is not to be used again.
func (p *Planner) Finish() *Plan {
	for sku := range p.used {
		// The receipt is of what the whole file needs even when the plan is limited: it has the
		// same key then, and a key stands for one request.
		if n := p.need[sku]; n > 0 {
			p.plan.Receipts = append(p.plan.Receipts, Receipt{Key: p.key("recv", sku), SKU: sku, Quantity: n})
		}
	}
	slices.SortFunc(p.plan.Receipts, func(a, b Receipt) int { return cmp.Compare(a.SKU, b.SKU) })
	slices.SortStableFunc(p.plan.Lanes, func(a, b *Lane) int { return cmp.Compare(len(b.Actions), len(a.Actions)) })
	return &p.plan
}

// services are the codes of the file that name no goods.
var services = []string{"POST", "DOT", "M", "m", "D", "S", "B", "C2", "CRUK", "BANK CHARGES", "AMAZONFEE"}

// IsService reports whether a code stands for a service, a fee or a voucher, whose stock nobody counts.
func IsService(sku string) bool {
	return slices.Contains(services, sku) || strings.HasPrefix(sku, "gift_")
}
