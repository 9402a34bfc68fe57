package inventoryshard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/internal/hlc"
	"hanse/internal/id"
	"hanse/internal/invariant"
	"hanse/internal/inventory"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

const (
	// AskAgain is how long after an order's answer its hold is due again. Only orders that are
	// stuck on the way hold stock that long; each costs one message per period.
	AskAgain = 10 * time.Minute

	keepItems = 200_000
	// keepHolds is how many unchanged holds stay in memory, some 1 KB each; an order has one in each shard that keeps something of it.
	keepHolds = 2_000

	defaultPage = 100
	maxPage     = 1000
	// pageBytes ends a page early: a hold may have 2,000 lines.
	pageBytes = 1 << 20
)

// New returns the builder for [shard.Open]. Layout tells where orders live.
func New(layout shard.Layout) func(*shard.State) shard.Logic {
	return func(s *shard.State) shard.Logic {
		return &logic{
			layout:    layout,
			items:     shard.NewTable(s, 'i', shard.ProtoCodec[inventorypb.Item](), keepItems),
			holds:     shard.NewTable(s, 'h', shard.ProtoCodec[inventorypb.Hold](), keepHolds),
			movements: shard.NewTable(s, 'm', shard.ProtoCodec[inventorypb.Movement](), 0),
			last:      shard.NewTable(s, 'n', numberCodec, 1),
		}
	}
}

type logic struct {
	layout    shard.Layout
	items     *shard.Table[*inventorypb.Item]
	holds     *shard.Table[*inventorypb.Hold]
	movements *shard.Table[*inventorypb.Movement]
	last      *shard.Table[uint64] // one row, lastMovement
}

const lastMovement = "movement"

var numberCodec = shard.Codec[uint64]{
	Append: binary.AppendUvarint,
	Decode: func(data []byte) (uint64, error) {
		v, n := binary.Uvarint(data)
		if n != len(data) {
			return 0, errors.New("decode number: not one varint")
		}
		return v, nil
	},
	Size: func(uint64) int { return binary.MaxVarintLen64 },
}

// itemKey is the SKU alone at the default location, which nearly all demands name, so that looking
// it up makes no string; and SKU and location elsewhere. No SKU has a zero byte, so keys sort by SKU.
func itemKey(sku, location string) string {
	if location == inventory.DefaultLocation {
		return sku
	}
	return sku + "\x00" + location
}

func movementKey(seq uint64) string {
	var k [8]byte
	binary.BigEndian.PutUint64(k[:], seq)
	return string(k[:])
}

// Item, PutItem, Hold, PutHold and Record make logic the books of package inventory.
func (l *logic) Item(sku, location string) (*inventorypb.Item, bool) {
	return l.items.Find(itemKey(sku, location))
}

func (l *logic) PutItem(i *inventorypb.Item) { l.items.Put(itemKey(i.Sku, i.Location), i) }

func (l *logic) Hold(id string) (*inventorypb.Hold, bool) { return l.holds.Find(id) }

func (l *logic) PutHold(h *inventorypb.Hold) { l.holds.Put(h.Id, h) }

func (l *logic) Record(m *inventorypb.Movement) {
	last, _ := l.last.Find(lastMovement)
	m.Seq = last + 1
	l.last.Put(lastMovement, m.Seq)
	l.movements.Insert(movementKey(m.Seq), m)
}

var _ inventory.Books = (*logic)(nil)

func (l *logic) Apply(tx *shard.Tx, payload []byte) shard.Result {
	var c inventorypb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return malformed("inventory command: %v", err)
	}
	now := tx.Now.Millis()
	switch body := c.Body.(type) {
	case *inventorypb.Command_Reserve:
		if _, err := id.Parse(id.Order, body.Reserve.HoldId); err != nil && body.Reserve.Tentative > 0 { // whom should one ask?
			return shard.Result{Code: reject.InvalidID, Detail: err.Error()}
		}
		h, taken, r := inventory.Reserve(l, body.Reserve, now)
		switch {
		case h == nil && r == nil && body.Reserve.FreeStanding:
			return again
		case h == nil && r == nil:
			return shard.Result{Pending: body.Reserve.HoldId}
		}
		if taken {
			l.watch(tx, h)
		}
		return holdResult(h, r)
	case *inventorypb.Command_Allocate:
		h, r := inventory.Allocate(l, body.Allocate, now)
		l.changed(tx, h)
		return holdResult(h, r)
	case *inventorypb.Command_Release:
		h, r := inventory.Release(l, body.Release, now)
		l.changed(tx, h)
		return holdResult(h, r)
	case *inventorypb.Command_Fulfill:
		h, r := inventory.Fulfill(l, body.Fulfill, now)
		l.changed(tx, h)
		return holdResult(h, r)
	case *inventorypb.Command_Restock:
		return holdResult(inventory.Restock(l, body.Restock, now))
	case *inventorypb.Command_Receive:
		return itemResult(inventory.Receive(l, body.Receive, now))
	case *inventorypb.Command_Adjust:
		i, r := inventory.Adjust(l, body.Adjust, now)
		if i == nil && r == nil {
			return again
		}
		return itemResult(i, r)
	case *inventorypb.Command_SetTracking:
		return itemResult(inventory.SetTracking(l, body.SetTracking))
	}
	return malformed("inventory command without a body")
}

// watch sees to it that somebody asks about a hold that has begun to wait. About a held one a timer asks. The question about a tentative one is in the
// outbox from the beginning, to leave after a while: a timer follows the log's time, which may stand still for as long as a clock was ahead, and this is
// not to take longer than it was meant to.
func (l *logic) watch(tx *shard.Tx, h *inventorypb.Hold) {
	switch h.State {
	case inventory.Held:
		l.unwatch(tx, h)
		if h.Due > 0 {
			tx.Wake(hlc.FromMillis(h.Due), h.Id)
		}
	case inventory.Tentative:
		h.Question = l.ask(tx, h, hlc.FromMillis(h.Due))
		l.PutHold(h)
	}
}

// unwatch has nobody ask any more.
func (l *logic) unwatch(tx *shard.Tx, h *inventorypb.Hold) {
	if h.Question == 0 {
		tx.Unwake(h.Id)
		return
	}
	tx.Finish(h.Question)
	h.Question = 0
	l.PutHold(h)
}

// changed takes note of what a command has done to a hold.
func (l *logic) changed(tx *shard.Tx, h *inventorypb.Hold) {
	if h != nil && h.State != inventory.Held && h.State != inventory.Tentative {
		l.unwatch(tx, h)
	}
}

// holdResult answers with the hold only when it is free-standing: an order knows its own, and there are many.
func holdResult(h *inventorypb.Hold, r *reject.Rejection) shard.Result {
	switch {
	case r != nil:
		return rejected(r)
	case h == nil || !h.FreeStanding:
		return shard.Result{}
	}
	return shard.Result{Payload: encode(h)}
}

func itemResult(i *inventorypb.Item, r *reject.Rejection) shard.Result {
	if r != nil {
		return rejected(r)
	}
	return shard.Result{Payload: encode(i)}
}

// again answers who has to wait for what is held tentatively and has nobody but the caller who could ask again.
var again = shard.Result{Code: shard.CodeAgain}

func rejected(r *reject.Rejection) shard.Result {
	return shard.Result{Code: r.Code, Field: r.Field, Detail: r.Detail}
}

func malformed(format string, args ...any) shard.Result {
	return shard.Result{Code: reject.MalformedCommand, Detail: fmt.Sprintf(format, args...)}
}

func encode(m interface{ MarshalVT() ([]byte, error) }) []byte {
	b, err := m.MarshalVT()
	invariant.Check(err == nil, "encode %T: %v", m, err)
	return b
}

// Due expires a free-standing hold, and asks the order about an order's.
func (l *logic) Due(tx *shard.Tx, holdID string) {
	now := tx.Now.Millis()
	if !inventory.Due(l, holdID, now) {
		return
	}
	h, _ := l.Hold(holdID)
	if l.ask(tx, h, 0) == 0 {
		inventory.Unwanted(l, holdID, now)
	}
}

// ask asks a hold's order, not before a time, and returns the number of the question; 0 when no order can have its ID, so that none wants it.
func (l *logic) ask(tx *shard.Tx, h *inventorypb.Hold, notBefore hlc.Time) uint64 {
	sl, err := id.Parse(id.Order, h.Id)
	if err != nil {
		return 0
	}
	ask := orderpb.Command{Body: &orderpb.Command_AskHold{AskHold: &orderpb.AskHold{
		Id: h.Id, Shard: l.layout.InventoryOf(h.Lines[0].Sku), Tentative: h.State == inventory.Tentative,
	}}}
	return tx.Emit(l.layout.Shard(shard.Order, sl), h.Id, encode(&ask), notBefore)
}

// Reply takes the order's answer. Only one that says so releases the hold: to release what a paid
// order counts on would be worse than to ask once more.
func (l *logic) Reply(tx *shard.Tx, m *shard.Message, r shard.Result) {
	now := tx.Now.Millis()
	due := now + AskAgain.Milliseconds()
	h, _ := l.Hold(m.Key)
	var a orderpb.HoldAnswer
	answered := r.OK() && a.UnmarshalVT(r.Payload) == nil
	if answered && !a.Keep {
		inventory.Unwanted(l, m.Key, now)
		l.changed(tx, h)
		return
	}
	if !answered && h.State == inventory.Tentative { // not a word about whether the order is there
		h.Due = due
		l.watch(tx, h)
		return
	}
	if inventory.Wanted(l, m.Key, due, now) {
		l.watch(tx, h)
	}
}

// Stuck has nothing to add: the hold waits until the order's shard is back.
func (l *logic) Stuck(*shard.Tx, *shard.Message, shard.Stuck) {}

// Settled and View know of nothing that settles later.
func (l *logic) Settled(string) bool      { return false }
func (l *logic) View(string) shard.Result { return shard.Result{} }

func (l *logic) Query(payload []byte) shard.Result {
	var q inventorypb.Query
	if err := q.UnmarshalVT(payload); err != nil {
		return malformed("inventory query: %v", err)
	}
	switch body := q.Body.(type) {
	case *inventorypb.Query_Find:
		return l.find(body.Find)
	case *inventorypb.Query_Hold:
		h, ok := l.Hold(body.Hold.Id)
		if !ok {
			return shard.Result{Code: reject.HoldNotFound, Detail: fmt.Sprintf("there is no reservation %.64s", body.Hold.Id)}
		}
		return shard.Result{Payload: encode(h)}
	case *inventorypb.Query_Items:
		from := ""
		if body.Items.AfterSku != "" {
			from = after(itemKey(body.Items.AfterSku, inventory.Location(body.Items.AfterLocation)))
		}
		var list inventorypb.ItemList
		list.Items, list.More = page(l.items, from, body.Items.Limit)
		return shard.Result{Payload: encode(&list)}
	case *inventorypb.Query_Holds:
		from := ""
		if body.Holds.After != "" {
			from = after(body.Holds.After)
		}
		var list inventorypb.HoldList
		list.Holds, list.More = page(l.holds, from, body.Holds.Limit)
		return shard.Result{Payload: encode(&list)}
	case *inventorypb.Query_Movements:
		var list inventorypb.MovementList
		list.Movements, list.More = page(l.movements, after(movementKey(body.Movements.After)), body.Movements.Limit)
		return shard.Result{Payload: encode(&list)}
	}
	return malformed("inventory query without a body")
}

// find lists an SKU's items, the default location first, the others by name.
func (l *logic) find(q *inventorypb.FindItem) shard.Result {
	var list inventorypb.ItemList
	if i, ok := l.Item(q.Sku, inventory.DefaultLocation); ok {
		list.Items = append(list.Items, i)
	}
	prefix := q.Sku + "\x00"
	l.items.Scan(prefix, "", func(_ string, i *inventorypb.Item) bool {
		list.Items = append(list.Items, i)
		return len(list.Items) < maxPage
	})
	if len(list.Items) == 0 {
		return shard.Result{Code: reject.SKUNotFound, Detail: fmt.Sprintf("%.128s has never been received", q.Sku)}
	}
	return shard.Result{Payload: encode(&list)}
}

// after is the first key that comes after key.
func after(key string) string { return key + "\x00" }

// page lists rows from a key on, and says whether there are more. A limit of 0 means the default.
func page[V interface{ SizeVT() int }](t *shard.Table[V], from string, limit uint32) (rows []V, more bool) {
	most := int(min(limit, maxPage))
	if most == 0 {
		most = defaultPage
	}
	size := 0
	t.Scan("", from, func(_ string, v V) bool {
		if len(rows) == most || size >= pageBytes {
			more = true
			return false
		}
		rows = append(rows, v)
		size += v.SizeVT()
		return true
	})
	return rows, more
}
