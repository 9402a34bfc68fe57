package inventoryshard_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/internal/id"
	"hanse/internal/inventory"
	"hanse/internal/shard"
	"hanse/internal/shard/inventoryshard"
	"hanse/internal/shardtest"
	"hanse/internal/slot"
)

// A script drives one inventory shard by hand: it plays the orders and the clock. Each command shows the answer and the messages
// that leave.
func TestScripts(t *testing.T) {
	shardtest.Scripts(t, "testdata/scripts", func(t testing.TB) shardtest.Desk { return newDesk(t) })
}

// desk is an inventory shard and the names that a script gives to holds: o1 is an order's, r1 a reservation's, others stand as they are.
type desk struct {
	*shardtest.Machine
	now int64
}

const began = 1_700_000_000_000

var layout = shard.Layout{shard.Meta: 1, shard.Order: 4, shard.Inventory: 2, shard.Payment: 1, shard.Notification: 1, shard.Keyspace: 1}

func newDesk(t testing.TB) *desk {
	return &desk{shardtest.New(t, inventoryshard.New(layout)), began}
}

// holdID makes an ID of a script's name. Orders o1, o2, ... lie in slots 5000, 10000, ...
func holdID(name string) string {
	n, err := strconv.ParseUint(name[min(1, len(name)):], 10, 16)
	switch {
	case err == nil && name[0] == 'o':
		return id.New(id.Order, slot.Slot(n*5000%slot.Count), began, n)
	case err == nil && name[0] == 'r':
		return id.New(id.Reservation, slot.Slot(n), began, n)
	}
	return name
}

func named(text string) string {
	for n := range 10 {
		for _, kind := range []string{"o", "r"} {
			name := fmt.Sprint(kind, n)
			text = strings.ReplaceAll(text, holdID(name), name)
		}
	}
	return text
}

// Do implements shardtest.Desk.
func (d *desk) Do(td *datadriven.TestData) string {
	arg := func(name string) (v string) {
		for _, a := range td.CmdArgs {
			if a.Key == name && len(a.Vals) > 0 {
				return a.Vals[0]
			}
		}
		return ""
	}
	has := func(name string) bool { return td.HasArg(name) }
	num := func(name string) int64 {
		if arg(name) == "" {
			return 0
		}
		n, err := strconv.ParseInt(arg(name), 10, 64)
		if err != nil {
			d.T.Fatalf("%s: %s: %v", td.Pos, name, err)
		}
		return n
	}
	span := func(text string) int64 { // in ms
		if text == "" {
			return 0
		}
		s, err := time.ParseDuration(text)
		if err != nil {
			d.T.Fatalf("%s: %v", td.Pos, err)
		}
		return s.Milliseconds()
	}
	moment := func(name string) int64 { // a time from now on
		if arg(name) == "" {
			return 0
		}
		return d.now + span(arg(name))
	}
	object := func() string { // of the command: what has no value and comes first
		if len(td.CmdArgs) == 0 {
			return ""
		}
		return td.CmdArgs[0].Key
	}
	switch td.Cmd {
	case "receive":
		return d.apply(&inventorypb.Command{Body: &inventorypb.Command_Receive{Receive: &inventorypb.Receive{
			Sku: object(), Location: arg("at"), Quantity: num("quantity"), Reason: arg("reason"),
		}}})
	case "adjust":
		return d.apply(&inventorypb.Command{Body: &inventorypb.Command_Adjust{Adjust: &inventorypb.Adjust{
			Sku: object(), Location: arg("at"), Quantity: num("quantity"), Reason: arg("reason"), AwaitTentative: has("await"),
		}}})
	case "tracking":
		return d.apply(&inventorypb.Command{Body: &inventorypb.Command_SetTracking{SetTracking: &inventorypb.SetTracking{
			Sku: object(), Location: arg("at"), Untracked: has("off"),
		}}})
	case "reserve":
		return d.apply(&inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: &inventorypb.Reserve{
			HoldId: holdID(object()), Location: arg("at"), Demands: demands(d.T, arg("items")), Expires: moment("expires"), Due: moment("due"),
			FreeStanding: has("free"), Tentative: span(arg("tentative")), AwaitTentative: has("await"),
		}}})
	case "allocate":
		return d.apply(&inventorypb.Command{Body: &inventorypb.Command_Allocate{Allocate: &inventorypb.Allocate{HoldId: holdID(object())}}})
	case "release":
		return d.apply(&inventorypb.Command{Body: &inventorypb.Command_Release{Release: &inventorypb.Release{
			HoldId: holdID(object()), Op: arg("op"), Demands: demands(d.T, arg("items")),
		}}})
	case "fulfill":
		return d.apply(&inventorypb.Command{Body: &inventorypb.Command_Fulfill{Fulfill: &inventorypb.Fulfill{
			HoldId: holdID(object()), Op: arg("op"), Demands: demands(d.T, arg("items")),
		}}})
	case "restock":
		return d.apply(&inventorypb.Command{Body: &inventorypb.Command_Restock{Restock: &inventorypb.Restock{
			HoldId: holdID(object()), Op: arg("op"), Demands: demands(d.T, arg("items")), Damaged: has("damaged"),
		}}})
	case "malformed":
		return d.entry(shard.Command{Kind: shard.KindLogic, Payload: []byte(td.Input)})
	case "empty":
		return d.apply(&inventorypb.Command{})

	case "wait": // time goes by, and the leader says so
		d.now = moment("for")
		return d.entry(shard.Command{Kind: shard.KindTick})
	case "due": // when the machine wants a tick
		next := d.NextDue()
		if next == 0 {
			return "never\n"
		}
		return fmt.Sprintf("in %v\n", time.Duration(next.Millis()-d.now)*time.Millisecond)
	case "answer": // the order's, to a message
		var seq uint64
		if _, err := fmt.Sscan(object(), &seq); err != nil {
			d.T.Fatalf("%s: %v", td.Pos, err)
		}
		r := shard.Result{Code: arg("code")}
		if has("garbage") {
			r.Payload = []byte{0xff}
		} else if r.OK() {
			r.Payload = encode(d.T, &orderpb.HoldAnswer{Keep: has("keep")})
		}
		return d.entry(shard.Command{Kind: shard.KindReply, Payload: shard.EncodeReply(seq, &r)})
	case "outbox":
		var b strings.Builder
		for _, m := range d.Outbox() {
			b.WriteString(d.message(m))
		}
		return named(b.String())

	case "stock":
		return d.query(&inventorypb.Query{Body: &inventorypb.Query_Find{Find: &inventorypb.FindItem{Sku: object()}}})
	case "hold":
		return d.query(&inventorypb.Query{Body: &inventorypb.Query_Hold{Hold: &inventorypb.FindHold{Id: holdID(object())}}})
	case "items":
		return d.query(&inventorypb.Query{Body: &inventorypb.Query_Items{Items: &inventorypb.ScanItems{
			AfterSku: arg("after"), AfterLocation: arg("at"), Limit: uint32(num("limit")),
		}}})
	case "holds":
		after := arg("after")
		if after != "" {
			after = holdID(after)
		}
		return d.query(&inventorypb.Query{Body: &inventorypb.Query_Holds{Holds: &inventorypb.ScanHolds{After: after, Limit: uint32(num("limit"))}}})
	case "movements":
		return d.query(&inventorypb.Query{Body: &inventorypb.Query_Movements{Movements: &inventorypb.ListMovements{
			After: uint64(num("after")), Limit: uint32(num("limit")),
		}}})
	case "ask-nothing":
		return d.query(&inventorypb.Query{})
	}
	d.T.Fatalf("%s: unknown command %s", td.Pos, td.Cmd)
	return ""
}

// demands reads A:4+B:1, lines numbered from 1.
func demands(t testing.TB, text string) (list []*inventorypb.Demand) {
	for part := range strings.SplitSeq(text, "+") {
		if part == "" {
			continue
		}
		sku, quantity, _ := strings.Cut(part, ":")
		n, err := strconv.ParseInt(quantity, 10, 64)
		if err != nil {
			t.Fatalf("items %s: %v", text, err)
		}
		list = append(list, &inventorypb.Demand{Sku: sku, Quantity: n, Line: uint32(len(list) + 1)})
	}
	return list
}

func encode(t testing.TB, m interface{ MarshalVT() ([]byte, error) }) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (d *desk) apply(c *inventorypb.Command) string {
	return d.entry(shard.Command{Kind: shard.KindLogic, Payload: encode(d.T, c)})
}

func (d *desk) entry(c shard.Command) string {
	a := d.Enter(d.now, c)
	var b strings.Builder
	r := a.Results[0]
	switch {
	case !r.OK():
		fmt.Fprintf(&b, "%s: %s\n", strings.TrimSpace(r.Code+" "+r.Field), r.Detail)
	case r.Pending != "":
		b.WriteString("not yet\n")
	case len(r.Payload) == 0:
		b.WriteString("ok\n")
	default:
		b.WriteString(d.record(r.Payload))
	}
	for _, m := range a.Emitted {
		b.WriteString("-> " + d.message(m))
	}
	if len(a.Finished) > 0 {
		fmt.Fprintf(&b, "finished %v\n", a.Finished)
	}
	return named(b.String())
}

// record shows the payload of a changed item or of a hold: the two have no field of one number and kind in common but the first.
func (d *desk) record(payload []byte) string {
	var i inventorypb.Item
	if i.UnmarshalVT(payload) == nil && i.Revision > 0 {
		return d.item(&i)
	}
	var h inventorypb.Hold
	if err := h.UnmarshalVT(payload); err != nil {
		d.T.Fatal(err)
	}
	return d.hold(&h)
}

func (d *desk) message(m *shard.Message) string {
	var c orderpb.Command
	if err := c.UnmarshalVT(m.Payload); err != nil {
		d.T.Fatal(err)
	}
	ask := c.GetAskHold()
	if ask.GetId() != m.Key {
		d.T.Errorf("message %d about %s asks about %v", m.Seq, m.Key, &c)
	}
	if ask.GetTentative() {
		after := time.Duration(m.NotBefore.Millis()-d.now) * time.Millisecond
		return fmt.Sprintf("%d to %s, in %v: is %s there? It has a hold in inventory/%d\n", m.Seq, m.To, after, m.Key, ask.GetShard())
	}
	return fmt.Sprintf("%d to %s: does %s still want its hold in inventory/%d?\n", m.Seq, m.To, m.Key, ask.GetShard())
}

func (d *desk) item(i *inventorypb.Item) string {
	text := fmt.Sprintf("%s at %s: on_hand %d, reserved %d, allocated %d, unavailable %d, available %d",
		i.Sku, i.Location, i.OnHand, i.Reserved, i.Allocated, i.Unavailable, inventory.Available(i))
	if i.Untracked {
		text += ", untracked"
	}
	return text + "\n"
}

func (d *desk) hold(h *inventorypb.Hold) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", h.Id, inventory.StateName(h.State))
	if h.FreeStanding {
		b.WriteString(" free-standing")
	}
	if h.Location != "" {
		fmt.Fprintf(&b, " at %s", h.Location)
	}
	if h.Due != 0 {
		fmt.Fprintf(&b, ", due in %v", time.Duration(h.Due-d.now)*time.Millisecond)
	}
	if h.Code != "" {
		fmt.Fprintf(&b, ", %s", h.Code)
	}
	b.WriteString("\n")
	for _, l := range h.Lines {
		fmt.Fprintf(&b, "  %s %d: fulfilled %d, released %d, restocked %d\n", l.Sku, l.Quantity, l.Fulfilled, l.Released, l.Restocked)
	}
	return b.String()
}

func (d *desk) query(q *inventorypb.Query) string {
	r := d.Query(encode(d.T, q))
	if !r.OK() {
		return named(fmt.Sprintf("%s: %s\n", r.Code, r.Detail))
	}
	var b strings.Builder
	more := false
	switch q.Body.(type) {
	case *inventorypb.Query_Find, *inventorypb.Query_Items:
		var list inventorypb.ItemList
		if err := list.UnmarshalVT(r.Payload); err != nil {
			d.T.Fatal(err)
		}
		for _, i := range list.Items {
			b.WriteString(d.item(i))
		}
		more = list.More
	case *inventorypb.Query_Hold:
		var h inventorypb.Hold
		if err := h.UnmarshalVT(r.Payload); err != nil {
			d.T.Fatal(err)
		}
		b.WriteString(d.hold(&h))
	case *inventorypb.Query_Holds:
		var list inventorypb.HoldList
		if err := list.UnmarshalVT(r.Payload); err != nil {
			d.T.Fatal(err)
		}
		for _, h := range list.Holds {
			b.WriteString(d.hold(h))
		}
		more = list.More
	case *inventorypb.Query_Movements:
		var list inventorypb.MovementList
		if err := list.UnmarshalVT(r.Payload); err != nil {
			d.T.Fatal(err)
		}
		for _, m := range list.Movements {
			word := "received"
			if m.Adjustment {
				word = "adjusted by"
			}
			b.WriteString(strings.Join(slices.DeleteFunc([]string{
				fmt.Sprint(m.Seq), m.Sku, "at", m.Location, word, fmt.Sprint(m.Quantity), m.Reason,
			}, func(s string) bool { return s == "" }), " ") + "\n")
		}
		more = list.More
	}
	if more {
		b.WriteString("more\n")
	}
	return named(b.String())
}
