package inventory

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"hanse/api/inventorypb"
	"hanse/internal/id"
	"hanse/internal/invariant"
	"hanse/internal/reject"
)

// Reserve takes all demands or none, at one location. The answer to a repetition is the first answer; another
// reserve under the same ID is a mismatch. Of several short lines the one with the lowest number is named. Taken says that
// this call took the stock, or took it over from the tentative reserve before it.
//
// A tentative reserve comes before its order is on record: it takes the stock or leaves no trace. Any other that falls short only of
// what is held tentatively cannot be answered yet: then there is neither a hold nor a rejection, and for a while nothing is reserved tentatively of what
// it needs, or those who are refused elsewhere in the end would keep it from getting its turn. (A free-standing one is refused if it does not await that.)
func Reserve(b Books, c *inventorypb.Reserve, now int64) (h *Hold, taken bool, r *reject.Rejection) {
	location := Location(c.Location)
	if !validName(c.HoldId) {
		return nil, false, rejectName("", c.HoldId)
	}
	lines, r := sum(c.Demands)
	if r != nil {
		return nil, false, r
	}
	if h, ok := b.Hold(c.HoldId); ok {
		if r := reserveAgain(h, c, location, lines); r != nil || h.State != Tentative || c.Tentative > 0 {
			return h, false, r
		}
		h.Due = c.Due
		settle(b, h, OnReserve, now)
		return h, true, nil
	}
	if c.Expires > 0 && now > c.Expires {
		return nil, false, &reject.Rejection{Code: reject.MessageExpired,
			Detail: fmt.Sprintf("the reserve of %s came %d ms after its time", c.HoldId, now-c.Expires)}
	}
	h = &Hold{Id: c.HoldId, State: Held, Location: location, Lines: lines, Due: c.Due, FreeStanding: c.FreeStanding, UpdatedAt: now}
	tentative := c.Tentative > 0 && !c.FreeStanding
	if tentative {
		h.State, h.Due = Tentative, now+c.Tentative
	}

	var few [8]*Item // most orders need no more, and then nothing is allocated
	items := few[:0]
	awaits := !tentative && (!c.FreeStanding || c.AwaitTentative)
	refusal, at, undecided := (*reject.Rejection)(nil), uint32(0), false
	for _, l := range lines {
		i, ok := b.Item(l.Sku, location)
		items = append(items, i)
		switch {
		case ok && i.Untracked:
			l.Quantity = 0
		case ok && Available(i) >= l.Quantity && (!tentative || i.Contested <= now):
		case ok && awaits && Available(i)+i.Tentative >= l.Quantity:
			undecided = true
		case refusal != nil && at <= l.Line:
		case ok:
			refusal, at = short(l, i), l.Line
		default:
			refusal, at = unknown(l, location), l.Line
		}
	}
	switch {
	case refusal != nil && tentative:
		return nil, false, refusal
	case refusal != nil:
		h.State, h.Code, h.Field, h.Detail, h.Due = Refused, refusal.Code, refusal.Field, refusal.Detail, 0
		moved(h, None, OnReserve)
		b.PutHold(h)
		return h, false, refusal
	case undecided:
		for n, i := range items {
			contest(b, i, lines[n].Quantity, now)
		}
		return nil, false, nil
	}
	for n, l := range lines {
		if l.Quantity > 0 {
			items[n].Reserved += l.Quantity
			if tentative {
				items[n].Tentative += l.Quantity
			}
			put(b, items[n])
		}
	}
	moved(h, None, OnReserve)
	b.PutHold(h)
	return h, true, nil
}

// contestedTime is how long who waits for what is held tentatively keeps others from holding more so, in ms: until it has asked again.
const contestedTime = 1000

// contest marks an item that somebody wants more of than is available, and waits for what is held tentatively.
func contest(b Books, i *Item, quantity, now int64) {
	if Available(i) < quantity && i.Contested < now+contestedTime/2 {
		i.Contested = now + contestedTime
		put(b, i)
	}
}

func reserveAgain(h *Hold, c *inventorypb.Reserve, location string, lines []*Line) *reject.Rejection {
	if r := rules[h.State][OnReserve]; r.fixed {
		return answer(h, r)
	}
	same := h.Location == location && h.FreeStanding == c.FreeStanding && len(h.Lines) == len(lines)
	for n := 0; same && n < len(lines); n++ {
		// What an untracked line was asked for is not known any more, and does not matter.
		same = h.Lines[n].Sku == lines[n].Sku && (h.Lines[n].Quantity == lines[n].Quantity || untracked(h.Lines[n]))
	}
	switch {
	case !same:
		return mismatch("hold %s exists with other contents", h.Id)
	case h.State == Refused:
		return &reject.Rejection{Code: h.Code, Field: h.Field, Detail: h.Detail}
	}
	return nil
}

// settle makes a tentative hold one of an order on record.
func settle(b Books, h *Hold, op Op, now int64) {
	for _, l := range h.Lines {
		if n := rest(l); n > 0 {
			i := itemOf(b, h, l)
			i.Tentative -= n
			put(b, i)
		}
	}
	h.State, h.UpdatedAt = Held, now
	moved(h, Tentative, op)
	b.PutHold(h)
}

func short(l *Line, i *Item) *reject.Rejection {
	return &reject.Rejection{Code: reject.OutOfStock, Field: pointer(l.Line, "quantity"),
		Detail: fmt.Sprintf("%s at %s: %d wanted, %d available", l.Sku, i.Location, l.Quantity, Available(i))}
}

func unknown(l *Line, location string) *reject.Rejection {
	return &reject.Rejection{Code: reject.UnknownSKU, Field: pointer(l.Line, "sku"),
		Detail: fmt.Sprintf("%.128s has never been received at %s", l.Sku, location)}
}

// pointer is the JSON pointer to a member of a line of the request; line 0 is the request of a
// free-standing reservation, which has no lines.
func pointer(line uint32, member string) string {
	if line == 0 {
		return "/" + member
	}
	return "/lines/" + strconv.FormatUint(uint64(line-1), 10) + "/" + member
}

// Allocate commits a hold to its order: what is left of it waits for fulfillment and is not asked about any more.
func Allocate(b Books, c *inventorypb.Allocate, now int64) (*Hold, *reject.Rejection) {
	h, r, fixed := find(b, c.HoldId, OnAllocate)
	if fixed {
		return h, r
	}
	from := h.State
	allocate(b, h)
	h.UpdatedAt = now
	moved(h, from, OnAllocate)
	b.PutHold(h)
	return h, nil
}

// allocate moves all that is held; the caller puts h.
func allocate(b Books, h *Hold) {
	for _, l := range h.Lines {
		if n := rest(l); n > 0 {
			i := itemOf(b, h, l)
			unreserve(h, i, n)
			i.Allocated += n
			put(b, i)
		}
	}
	h.State, h.Due = Allocated, 0
}

// Release gives back the listed demands, or without any all that is left. Released before it was reserved, an order's
// hold is void from then on.
func Release(b Books, c *inventorypb.Release, now int64) (*Hold, *reject.Rejection) {
	if len(c.Demands) > 0 {
		return releasePart(b, c, now)
	}
	if !validName(c.HoldId) {
		return nil, rejectName("", c.HoldId)
	}
	h, r, fixed := find(b, c.HoldId, OnRelease)
	switch {
	case fixed:
		return h, r
	case h != nil:
		return releaseAll(b, h, OnRelease, Released, now), nil
	case strings.HasPrefix(c.HoldId, id.Reservation+"_"):
		// Nobody but the maker of a reservation knows its ID, and only once it exists.
		return nil, noHold(c.HoldId)
	}
	h = &Hold{Id: c.HoldId, State: Void, UpdatedAt: now}
	moved(h, None, OnRelease)
	b.PutHold(h)
	return h, nil
}

// releaseAll gives back what is left; the hold ends as to, or CONSUMED when some of it was fulfilled.
func releaseAll(b Books, h *Hold, op Op, to State, now int64) *Hold {
	from := h.State
	for _, l := range h.Lines {
		releaseLine(b, h, l, rest(l))
	}
	h.State = to
	if from == Allocated && fulfilled(h) {
		h.State = Consumed
	}
	h.Due, h.UpdatedAt = 0, now
	moved(h, from, op)
	b.PutHold(h)
	return h
}

func releaseLine(b Books, h *Hold, l *Line, n int64) {
	if n == 0 {
		return
	}
	i := itemOf(b, h, l)
	if waits(h) {
		unreserve(h, i, n)
	} else {
		i.Allocated -= n
	}
	l.Released += n
	put(b, i)
}

// waits reports whether a hold's order has not been confirmed.
func waits(h *Hold) bool { return h.State == Held || h.State == Tentative }

// unreserve takes units out of what is reserved; the caller puts the item.
func unreserve(h *Hold, i *Item, n int64) {
	i.Reserved -= n
	if h.State == Tentative {
		i.Tentative -= n
	}
}

func releasePart(b Books, c *inventorypb.Release, now int64) (*Hold, *reject.Rejection) {
	h, lines, mark, r := begin(b, c.HoldId, c.Op, c.Demands, OnReleasePart, false, rest)
	if mark == "" {
		return h, r
	}
	from := h.State
	for n, l := range lines {
		releaseLine(b, h, h.Lines[n], l)
	}
	// Untracked lines have no rest: they keep the hold, for they may still be fulfilled.
	if open(h) == 0 && !slices.ContainsFunc(h.Lines, untracked) {
		h.State, h.Due = Released, 0
		if fulfilled(h) {
			h.State = Consumed
		}
	}
	return finish(b, h, from, OnReleasePart, mark, now), nil
}

// Fulfill takes units out of stock for good, at most what is left of the hold. One that comes before its allocate allocates.
func Fulfill(b Books, c *inventorypb.Fulfill, now int64) (*Hold, *reject.Rejection) {
	h, lines, mark, r := begin(b, c.HoldId, c.Op, c.Demands, OnFulfill, false, rest)
	if mark == "" {
		return h, r
	}
	from := h.State
	if waits(h) {
		allocate(b, h)
	}
	for n, q := range lines {
		if q == 0 {
			continue
		}
		l := h.Lines[n]
		i := itemOf(b, h, l)
		i.Allocated -= q
		i.OnHand -= q
		l.Fulfilled += q
		put(b, i)
	}
	if open(h) == 0 {
		h.State = Consumed
	}
	return finish(b, h, from, OnFulfill, mark, now), nil
}

// Restock takes returned units back, at most what was fulfilled and has not come back; damaged ones are on hand but unavailable.
func Restock(b Books, c *inventorypb.Restock, now int64) (*Hold, *reject.Rejection) {
	returnable := func(l *Line) int64 { return l.Fulfilled - l.Restocked }
	h, lines, mark, r := begin(b, c.HoldId, c.Op, c.Demands, OnRestock, c.Damaged, returnable)
	if mark == "" {
		return h, r
	}
	for n, q := range lines {
		if q == 0 {
			continue
		}
		l := h.Lines[n]
		i := itemOf(b, h, l)
		i.OnHand += q
		if c.Damaged {
			i.Unavailable += q
		}
		l.Restocked += q
		put(b, i)
	}
	return finish(b, h, h.State, OnRestock, mark, now), nil
}

// Due does what is to be done when a hold's time has come: a free-standing one expires. For an
// order's hold it returns true: its order is to be asked.
func Due(b Books, holdID string, now int64) (ask bool) {
	h, _, fixed := find(b, holdID, OnDue)
	if fixed {
		return false
	}
	if !h.FreeStanding {
		return true
	}
	releaseAll(b, h, OnDue, Expired, now)
	return false
}

// Unwanted releases a hold whose order has ended. A tentative one expires: its order is not on record, or ended before it came to reserve.
func Unwanted(b Books, holdID string, now int64) {
	h, _, fixed := find(b, holdID, OnUnwanted)
	switch {
	case fixed:
	case h.State == Tentative:
		releaseAll(b, h, OnUnwanted, Expired, now)
	default:
		releaseAll(b, h, OnUnwanted, Released, now)
	}
}

// Wanted sets a new due time for a hold whose order keeps it and so is on record, and reports false when the hold does not wait any more.
func Wanted(b Books, holdID string, due, now int64) bool {
	h, _, fixed := find(b, holdID, OnWanted)
	if fixed {
		return false
	}
	h.Due = due
	if h.State == Tentative {
		settle(b, h, OnWanted, now)
		return true
	}
	h.UpdatedAt = now
	moved(h, Held, OnWanted)
	b.PutHold(h)
	return true
}

// begin is the common beginning of the operations that list demands and carry an ID. It returns the quantity of each
// line of the hold, all within what limit allows, and the mark under which the operation is
// recorded. An empty mark means that there is nothing to do but to answer.
func begin(b Books, holdID, op string, demands []*inventorypb.Demand, on Op, damaged bool, limit func(*Line) int64) (*Hold, []int64, string, *reject.Rejection) {
	if !validName(op) {
		return nil, nil, "", rejectName("", op)
	}
	asked, r := sum(demands)
	if r != nil {
		return nil, nil, "", r
	}
	h, r, fixed := find(b, holdID, on)
	mark := markOf(op, on, damaged, asked)
	if h != nil {
		for _, done := range h.Done {
			if done == mark {
				return h, nil, "", nil
			}
			if len(done) == len(mark) && done[markBytes:] == op {
				return h, nil, "", mismatch("operation %s of hold %s was another one", op, h.Id)
			}
		}
	}
	if fixed {
		return h, nil, "", r
	}
	if len(h.Done) >= MaxOperations {
		return h, nil, "", &reject.Rejection{Code: reject.TooManyObjects, Detail: fmt.Sprintf("hold %s has had %d operations", h.Id, len(h.Done))}
	}
	quantities := make([]int64, len(h.Lines))
	for _, a := range asked {
		n, ok := slices.BinarySearchFunc(h.Lines, a.Sku, func(l *Line, sku string) int { return strings.Compare(l.Sku, sku) })
		if !ok {
			return h, nil, "", mismatch("hold %s has no %s", h.Id, a.Sku)
		}
		l := h.Lines[n]
		if untracked(l) {
			continue
		}
		if most := limit(l); a.Quantity > most {
			return h, nil, "", mismatch("hold %s: %s of %d %s, at most %d possible", h.Id, on, a.Quantity, a.Sku, most)
		}
		quantities[n] = a.Quantity
	}
	return h, quantities, mark, nil
}

func finish(b Books, h *Hold, from State, on Op, mark string, now int64) *Hold {
	h.Done = append(h.Done, mark)
	h.UpdatedAt = now
	moved(h, from, on)
	b.PutHold(h)
	return h
}

// markBytes is what a mark has before the operation's ID.
const markBytes = 9

// markOf is what a hold remembers of an operation: its kind and a digest of its contents, which tell a repetition
// from another operation under the same ID, and the ID.
func markOf(op string, on Op, damaged bool, lines []*Line) string {
	digest := fnv.New32a()
	var scratch [MaxNameBytes]byte
	for _, l := range lines {
		digest.Write(append(scratch[:0], l.Sku...))
		digest.Write(binary.BigEndian.AppendUint64(scratch[:0], uint64(l.Quantity)))
	}
	if damaged {
		digest.Write([]byte{1})
	}
	mark := append(make([]byte, 0, markBytes+len(op)), '0'+byte(on))
	mark = hex.AppendEncode(mark, binary.BigEndian.AppendUint32(scratch[:0], digest.Sum32()))
	return string(append(mark, op...))
}

// sum makes hold lines of demands: one for each SKU with the sum of its quantities and the lowest
// line number, in SKU order.
func sum(demands []*inventorypb.Demand) ([]*Line, *reject.Rejection) {
	switch {
	case len(demands) == 0:
		return nil, &reject.Rejection{Code: reject.InvalidRequest, Detail: "there are no demands"}
	case len(demands) > MaxDemands:
		return nil, &reject.Rejection{Code: reject.TooManyLines, Detail: fmt.Sprintf("%d demands, at most %d are possible", len(demands), MaxDemands)}
	}
	block := make([]Line, len(demands)) // one allocation for all lines
	lines := make([]*Line, len(demands))
	sorted := true
	for n, d := range demands {
		if d.Quantity < 1 || d.Quantity > MaxQuantity {
			return nil, rejectQuantity(pointer(d.Line, "quantity"), d.Quantity)
		}
		if !validName(d.Sku) {
			return nil, rejectName(pointer(d.Line, "sku"), d.Sku)
		}
		l := &block[n]
		l.Sku, l.Quantity, l.Line = d.Sku, d.Quantity, d.Line
		lines[n] = l
		sorted = sorted && (n == 0 || lines[n-1].Sku < d.Sku)
	}
	if sorted {
		return lines, nil
	}
	slices.SortFunc(lines, func(a, b *Line) int {
		if c := strings.Compare(a.Sku, b.Sku); c != 0 {
			return c
		}
		return int(a.Line) - int(b.Line)
	})
	kept := 1
	for _, l := range lines[1:] {
		if last := lines[kept-1]; last.Sku == l.Sku {
			last.Quantity += l.Quantity
		} else {
			lines[kept] = l
			kept++
		}
	}
	return lines[:kept], nil
}

// find returns the hold, nil for none, and whether the table alone answers.
func find(b Books, holdID string, op Op) (h *Hold, r *reject.Rejection, fixed bool) {
	h, ok := b.Hold(holdID)
	if !ok {
		if r := rules[None][op]; r.fixed {
			if r.code == "" {
				return nil, nil, true
			}
			return nil, noHold(holdID), true
		}
		return nil, nil, false
	}
	if r := rules[h.State][op]; r.fixed {
		return h, answer(h, r), true
	}
	return h, nil, false
}

// answer is what a fixed rule says about h.
func answer(h *Hold, r rule) *reject.Rejection {
	if r.code == "" {
		return nil
	}
	return &reject.Rejection{Code: r.code, Detail: fmt.Sprintf("hold %s is %s", h.Id, StateName(h.State))}
}

func noHold(holdID string) *reject.Rejection {
	return &reject.Rejection{Code: reject.HoldNotFound, Detail: fmt.Sprintf("there is no hold %.64s", holdID)}
}

func mismatch(format string, args ...any) *reject.Rejection {
	return &reject.Rejection{Code: reject.HoldMismatch, Detail: fmt.Sprintf(format, args...)}
}

// rest is what a line still keeps.
func rest(l *Line) int64 { return l.Quantity - l.Fulfilled - l.Released }

// open is what a hold still keeps, over all lines.
func open(h *Hold) (units int64) {
	for _, l := range h.Lines {
		units += rest(l)
	}
	return units
}

// untracked lines count nothing, whatever becomes of the item's tracking later.
func untracked(l *Line) bool { return l.Quantity == 0 }

func fulfilled(h *Hold) bool {
	return slices.ContainsFunc(h.Lines, func(l *Line) bool { return l.Fulfilled > 0 })
}

func itemOf(b Books, h *Hold, l *Line) *Item {
	i, ok := b.Item(l.Sku, h.Location)
	if !ok { // a check would make its arguments for every line that is fine
		invariant.Check(false, "hold %s keeps %s at %s, which does not exist", h.Id, l.Sku, h.Location)
	}
	return i
}
