package ordershard_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/hlc"
	"hanse/internal/id"
	"hanse/internal/order"
	"hanse/internal/saga"
	"hanse/internal/shard"
	"hanse/internal/shard/ordershard"
	"hanse/internal/shardtest"
)

// A script drives one order shard by hand: it plays the callers, the other services and the clock. Each command shows
// the answer, the events, the messages that leave and the keys that settle.
func TestScripts(t *testing.T) {
	shardtest.Scripts(t, "testdata/scripts", func(t testing.TB) shardtest.Desk { return newDesk(t) })
}

// desk is an order shard and the names that a script gives to things.
type desk struct {
	*shardtest.Machine
	now   int64
	feed  uint64
	names map[string]string // the 26 characters of an ID to its name
	ids   map[string]string
}

func newDesk(t testing.TB) *desk {
	return &desk{
		Machine: shardtest.New(t, ordershard.New(deskLayout)), now: 1_700_000_000_000,
		names: make(map[string]string), ids: make(map[string]string),
	}
}

var deskLayout = shard.Layout{shard.Meta: 1, shard.Order: 1, shard.Inventory: 2, shard.Payment: 1, shard.Notification: 1, shard.Keyspace: 1}

// id returns the ID of a name, which the name's first use makes. A name of two words, like "broken ID", is taken as it is.
func (d *desk) id(kind, name string) string {
	if strings.Contains(name, " ") {
		return name
	}
	if real, ok := d.ids[name]; ok {
		return real
	}
	real := id.New(kind, 7, 1_700_000_000_000+int64(len(d.ids)), uint64(len(d.ids)))
	d.ids[name] = real
	d.names[real[4:]] = name
	return real
}

// named puts names in the place of IDs: the payment of o1 is pay:o1.
func (d *desk) named(s string) string {
	for suffix, name := range d.names {
		s = strings.ReplaceAll(s, d.ids[name], name)
		for _, kind := range []string{id.Payment, id.Refund} {
			s = strings.ReplaceAll(s, kind+"_"+suffix, kind+":"+name)
		}
	}
	return s
}

// args are the arguments of a script's command: the first ones without name are objects.
type args struct {
	d       *desk
	objects []string
	named   map[string]string
}

func (a args) str(name string) string { return a.named[name] }
func (a args) has(name string) bool   { _, ok := a.named[name]; return ok }
func (a args) num(name string) int64 {
	s, ok := a.named[name]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		a.d.T.Fatalf("%s=%s: %v", name, s, err)
	}
	return n
}

// items reads items=1:2,3:1 as 2 of line 1 and 1 of line 3.
func (a args) items() (items []*orderpb.Item) {
	for part := range strings.SplitSeq(a.str("items"), ",") {
		if part == "" {
			continue
		}
		var it orderpb.Item
		if _, err := fmt.Sscanf(part, "%d:%d", &it.Line, &it.Quantity); err != nil {
			a.d.T.Fatalf("item %s: %v", part, err)
		}
		items = append(items, &it)
	}
	return items
}

// Do implements shardtest.Desk.
func (d *desk) Do(td *datadriven.TestData) string {
	a := args{d: d, named: make(map[string]string)}
	for _, arg := range td.CmdArgs {
		if len(arg.Vals) == 0 {
			a.objects = append(a.objects, arg.Key)
			a.named[arg.Key] = ""
		} else {
			a.named[arg.Key] = strings.Join(arg.Vals, ", ")
		}
	}
	object := func(kind string, i int) string { return d.id(kind, a.objects[i]) }
	if a.has("id") { // an ID as it stands
		object = func(string, int) string { return a.str("id") }
	}
	apply := func(c *orderpb.Command) string {
		payload, err := c.MarshalVT()
		if err != nil {
			d.T.Fatal(err)
		}
		return d.apply(shard.Command{Kind: shard.KindLogic, Key: a.str("key"), RequestHash: uint64(a.num("hash")), Payload: payload})
	}
	switch td.Cmd {
	case "place":
		return apply(&orderpb.Command{Body: &orderpb.Command_Place{Place: d.place(object(id.Order, 0), a, td.Input)}})
	case "cancel":
		return apply(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{
			Id: object(id.Order, 0), Reason: a.str("reason"), IfRevision: uint64(a.num("if")),
		}}})
	case "fulfill":
		return apply(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{
			Id: object(id.Order, 0), FulfillmentId: object(id.Fulfillment, 1), Items: a.items(),
			Tracking: a.str("tracking"), IfRevision: uint64(a.num("if")),
		}}})
	case "return":
		return apply(&orderpb.Command{Body: &orderpb.Command_ReturnItems{ReturnItems: &orderpb.ReturnItems{
			Id: object(id.Order, 0), ReturnId: object(id.Return, 1), Items: a.items(), Reason: a.str("reason"),
			Disposition: orderpb.Disposition(orderpb.Disposition_value[a.str("goods")]), NoRefund: a.has("no-refund"),
		}}})
	case "refund":
		return apply(&orderpb.Command{Body: &orderpb.Command_RefundAmount{RefundAmount: &orderpb.RefundAmount{
			Id: object(id.Order, 0), RefundId: object(id.Refund, 1), Amount: a.num("amount"), Reason: a.str("reason"),
		}}})
	case "ask":
		out := apply(&orderpb.Command{Body: &orderpb.Command_AskHold{AskHold: &orderpb.AskHold{Id: object(id.Order, 0), Shard: uint32(a.num("shard")), Tentative: a.has("tentative")}}})
		if out == "ok\n" { // an answer of no bytes
			return "ok, keep false\n"
		}
		return out
	case "claim":
		payload := saga.ClaimCommand(&orderpb.ClaimKey{Key: a.objects[0], RequestHash: uint64(a.num("hash"))})
		return d.apply(shard.Command{Kind: shard.KindLogic, Payload: payload})
	case "told":
		return apply(&orderpb.Command{Body: &orderpb.Command_Authorized{Authorized: &orderpb.Authorized{
			Id: object(id.Order, 0), Amount: a.num("amount"), ProviderReference: a.str("ref"),
		}}})
	case "retry":
		return apply(&orderpb.Command{Body: &orderpb.Command_RetryStep{RetryStep: &orderpb.RetryStep{
			Id: object(id.Order, 0), Seq: uint64(a.num("seq")), Operator: a.str("operator"),
		}}})
	case "resolve":
		return apply(&orderpb.Command{Body: &orderpb.Command_ResolveStep{ResolveStep: &orderpb.ResolveStep{
			Id: object(id.Order, 0), Seq: uint64(a.num("seq")), Decision: a.str("decision"), Evidence: a.str("evidence"), Operator: a.str("operator"),
		}}})
	case "garbage":
		return d.apply(shard.Command{Kind: shard.KindLogic, Payload: []byte(td.Input)})
	case "reply":
		return d.apply(shard.Command{Kind: shard.KindReply, Payload: shard.EncodeReply(uint64(a.num("seq")), d.reply(a))})
	case "stuck":
		return d.apply(shard.Command{Kind: shard.KindStuck, Payload: shard.EncodeStuck(&shard.Stuck{
			Seq: uint64(a.num("seq")), Attempts: uint64(a.num("attempts")), NextTry: hlc.FromMillis(d.now + 300_000), Cause: a.str("cause"),
		})})
	case "pass": // time goes by
		d.now += a.num("ms")
		if due := d.NextDue(); due != 0 && due.Millis() <= d.now {
			return d.apply(shard.Command{Kind: shard.KindTick})
		}
		return "nothing is due\n"
	case "view":
		key := object(id.Order, 0)
		if a.has("end") {
			key += "/end"
		}
		return d.result(d.View(key), true)
	case "outbox":
		var b strings.Builder
		for _, m := range d.Outbox() {
			d.message(&b, m)
		}
		return d.named(cmp.Or(b.String(), "empty\n"))
	}
	return d.query(td.Cmd, a, object)
}

// place reads lines of "SKU quantity price [untracked]".
func (d *desk) place(orderID string, a args, input string) *orderpb.Place {
	p := &orderpb.Place{
		Id: orderID, CustomerId: a.str("customer"), Currency: "EUR", PaymentMethod: "card", Location: a.str("at"),
		HasTotal: a.has("total"), Total: a.num("total"), AuthorizeAhead: a.has("ahead"), CallFirst: a.has("first"),
	}
	if a.has("claim") {
		p.Claim = &orderpb.ClaimKey{Key: a.str("claim"), RequestHash: 1}
	}
	if a.has("currency") {
		p.Currency = a.str("currency")
	}
	for text := range strings.Lines(input) {
		l := &orderpb.Line{}
		rest := ""
		if n, err := fmt.Sscanf(text, "%s %d %d %s", &l.Sku, &l.Quantity, &l.UnitPrice, &rest); n < 3 {
			d.T.Fatalf("line %q: %v", text, err)
		}
		l.Untracked = rest == "untracked"
		p.Lines = append(p.Lines, l)
	}
	return p
}

// reply makes the answer of another service: of an inventory shard, or with paid, declined or canceled of the payments.
func (d *desk) reply(a args) *shard.Result {
	outcome := &paymentpb.Outcome{Amount: a.num("amount"), ProviderReference: a.str("ref")}
	switch {
	case a.has("code"):
		return &shard.Result{Code: a.str("code"), Field: a.str("field"), Detail: a.str("detail")}
	case a.has("paid"):
		outcome.Status = paymentpb.OutcomeStatus_SUCCEEDED
	case a.has("declined"):
		outcome.Status, outcome.Code = paymentpb.OutcomeStatus_DECLINED, a.str("because")
	case a.has("canceled"):
		outcome.Status, outcome.Code = paymentpb.OutcomeStatus_CANCELED, a.str("because")
	case a.has("garbage"):
		return &shard.Result{Payload: []byte{0xff}}
	default:
		return &shard.Result{}
	}
	payload, err := outcome.MarshalVT()
	if err != nil {
		d.T.Fatal(err)
	}
	return &shard.Result{Payload: payload}
}

func (d *desk) apply(c shard.Command) string {
	applied := d.Enter(d.now, c)
	var b strings.Builder
	b.WriteString(d.result(applied.Results[0], c.Kind == shard.KindLogic))
	page := ask[orderpb.FeedPage](d, &orderpb.Query{Body: &orderpb.Query_Feed{Feed: &orderpb.ReadFeed{After: d.feed, Limit: 1000}}})
	if applied.Published != (len(page.Events) > 0) {
		d.T.Errorf("published is %v, the feed has %d new events", applied.Published, len(page.Events))
	}
	d.feed = page.Last
	touched := ""
	for _, e := range page.Events {
		fmt.Fprintf(&b, "  v%d %s%s\n", e.Version, order.EventType(e), detail(e))
		touched = e.OrderId
	}
	if touched != "" {
		o := ask[orderpb.Order](d, &orderpb.Query{Body: &orderpb.Query_Find{Find: &orderpb.FindOrder{Id: touched}}})
		fmt.Fprintf(&b, "  = %s\n", summary(o))
	}
	for _, seq := range applied.Finished {
		fmt.Fprintf(&b, "  #%d done\n", seq)
	}
	for _, m := range applied.Emitted {
		d.message(&b, m)
	}
	for _, key := range applied.Settled {
		fmt.Fprintf(&b, "  settled %s\n", key)
	}
	return d.named(cmp.Or(b.String(), "nothing\n"))
}

// result shows an answer: what its payload means depends on what it is an answer to.
func (d *desk) result(r shard.Result, show bool) string {
	var b strings.Builder
	if r.Code != "" {
		fmt.Fprintf(&b, "%s", r.Code)
		if r.Field != "" {
			fmt.Fprintf(&b, " at %s", r.Field)
		}
		if r.Detail != "" {
			fmt.Fprintf(&b, ": %s", r.Detail)
		}
	}
	if r.Pending != "" {
		fmt.Fprintf(&b, "pending %s", r.Pending)
	}
	if r.Replayed {
		b.WriteString(" (replayed)")
	}
	if b.Len() == 0 && show {
		b.WriteString("ok")
	}
	var receipt orderpb.Receipt
	var o orderpb.Order
	var hold orderpb.HoldAnswer
	switch {
	case len(r.Payload) == 0:
	case o.UnmarshalVT(r.Payload) == nil && o.Revision > 0 && o.CreatedAt > 0:
		fmt.Fprintf(&b, ", order %s", summary(&o))
	case receipt.UnmarshalVT(r.Payload) == nil && receipt.Revision > 0:
		fmt.Fprintf(&b, ", receipt %s v%d", receipt.Id, receipt.Revision)
		if receipt.ObjectId != "" {
			fmt.Fprintf(&b, " %s", receipt.ObjectId)
		}
	case hold.UnmarshalVT(r.Payload) == nil:
		fmt.Fprintf(&b, ", keep %v", hold.Keep)
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	return d.named(b.String())
}

// summary is an order in a line.
func summary(o *orderpb.Order) string {
	var b strings.Builder
	fmt.Fprintf(&b, "v%d %s", o.Revision, order.StateName(o.State))
	if o.Reason != "" {
		fmt.Fprintf(&b, " (%s)", o.Reason)
	}
	fmt.Fprintf(&b, ", %s %s %s", order.PaymentStatus(o), order.FulfillmentStatus(o), order.ReturnStatus(o))
	for _, a := range []struct {
		name   string
		amount int64
	}{{"authorized", o.Authorized}, {"captured", o.Captured}, {"voided", o.Voided}, {"refunded", o.Refunded}} {
		if a.amount != 0 {
			fmt.Fprintf(&b, ", %s %d", a.name, a.amount)
		}
	}
	for _, s := range o.Stuck {
		fmt.Fprintf(&b, ", stuck #%d", s.Seq)
	}
	if order.Open(o) {
		b.WriteString(", open")
	}
	return b.String()
}

// detail is what an event says, as compact JSON after a space.
func detail(e *orderpb.Event) string {
	m := e.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("detail"))
	if text := compact(m.Get(field).Message().Interface()); text != "{}" {
		return " " + text
	}
	return ""
}

func compact(m proto.Message) string {
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil { // protojson puts in spaces at random
		panic(err)
	}
	return b.String()
}

func (d *desk) message(b *strings.Builder, m *shard.Message) {
	fmt.Fprintf(b, "  #%d -> %s", m.Seq, m.To)
	if m.NotBefore != 0 {
		fmt.Fprintf(b, " in %ds", (m.NotBefore.Millis()-d.now)/1000)
	}
	var c proto.Message
	switch m.To.Service() {
	case shard.Inventory:
		c = new(inventorypb.Command)
	case shard.Payment:
		c = new(paymentpb.Command)
	default:
		c = new(orderpb.Command)
	}
	if err := proto.Unmarshal(m.Payload, c); err != nil {
		d.T.Fatal(err)
	}
	fmt.Fprintf(b, " %s\n", compact(c))
}

func ask[T any, P interface {
	*T
	UnmarshalVT([]byte) error
}](d *desk, q *orderpb.Query) P {
	payload, err := q.MarshalVT()
	if err != nil {
		d.T.Fatal(err)
	}
	r := d.Query(payload)
	v := P(new(T))
	if err := v.UnmarshalVT(r.Payload); err != nil || !r.OK() {
		d.T.Fatalf("query %v: %+v, %v", q, r, err)
	}
	return v
}

// query asks and shows orders in a line each.
func (d *desk) query(cmd string, a args, object func(string, int) string) string {
	var q orderpb.Query
	after := ""
	if a.has("after") {
		after = d.id(id.Order, a.str("after"))
	}
	limit := uint32(a.num("limit"))
	switch cmd {
	case "find":
		q.Body = &orderpb.Query_Find{Find: &orderpb.FindOrder{Id: object(id.Order, 0), Version: uint64(a.num("version"))}}
	case "list":
		q.Body = &orderpb.Query_List{List: &orderpb.ListOrders{CustomerId: a.str("customer"), After: after, Limit: limit}}
	case "events":
		q.Body = &orderpb.Query_Events{Events: &orderpb.ListEvents{Id: object(id.Order, 0)}}
	case "feed":
		q.Body = &orderpb.Query_Feed{Feed: &orderpb.ReadFeed{After: uint64(a.num("from")), Limit: limit, MaxBytes: uint32(a.num("bytes"))}}
	case "sagas":
		q.Body = &orderpb.Query_Sagas{Sagas: &orderpb.ListSagas{Stuck: a.has("stuck"), After: after, Limit: limit}}
	case "scan":
		q.Body = &orderpb.Query_Scan{Scan: &orderpb.ScanOrders{After: after, Limit: limit, MaxBytes: uint32(a.num("bytes"))}}
	case "histories":
		q.Body = &orderpb.Query_Histories{Histories: &orderpb.ScanHistories{After: after, Limit: limit, MaxBytes: uint32(a.num("bytes"))}}
	case "nonsense":
	default:
		d.T.Fatalf("unknown command %s", cmd)
	}
	payload, err := q.MarshalVT()
	if err != nil {
		d.T.Fatal(err)
	}
	r := d.Query(payload)
	if !r.OK() {
		return d.result(r, true)
	}
	var b strings.Builder
	show := func(o *orderpb.Order) { fmt.Fprintf(&b, "%s %s\n", o.Id, summary(o)) }
	more := false
	switch cmd {
	case "find":
		o := ask[orderpb.Order](d, &q)
		if a.has("whole") {
			fmt.Fprintf(&b, "%s\n", compact(o))
		} else {
			show(o)
		}
	case "list", "sagas":
		page := ask[orderpb.OrderList](d, &q)
		more = page.More
		for _, o := range page.Orders {
			show(o)
		}
	case "events":
		page := ask[orderpb.EventList](d, &q)
		for i, e := range page.Events {
			fmt.Fprintf(&b, "%d: v%d %s\n", page.Positions[i], e.Version, order.EventType(e))
		}
	case "feed":
		page := ask[orderpb.FeedPage](d, &q)
		for i, e := range page.Events {
			fmt.Fprintf(&b, "%d: %s v%d %s\n", page.First+uint64(i), e.OrderId, e.Version, order.EventType(e))
		}
		fmt.Fprintf(&b, "last %d\n", page.Last)
	case "scan":
		page := ask[orderpb.OrderScan](d, &q)
		more = page.More
		for _, s := range page.Orders {
			show(s.Stored)
			if s.Folded != nil {
				fmt.Fprintf(&b, "  but its events say %s\n", summary(s.Folded))
			}
		}
	case "histories":
		page := ask[orderpb.HistoryScan](d, &q)
		more = page.More
		for _, h := range page.Orders {
			fmt.Fprintf(&b, "%s with %d events", h.Stored.Id, len(h.Events))
			if !order.Replay(h.Events).EqualVT(h.Stored) {
				b.WriteString(", which say something else")
			}
			b.WriteString("\n")
		}
	}
	if more {
		b.WriteString("and more\n")
	}
	return d.named(cmp.Or(b.String(), "none\n"))
}
