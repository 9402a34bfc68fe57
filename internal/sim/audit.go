package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/inventory"
	"hanse/internal/order"
	"hanse/internal/payment"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

// live returns the nodes that run.
func (w *World) live() (nodes []*node) {
	for _, n := range w.nodes {
		if n.life != 0 {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// holders returns the live nodes that have a replica of a group, by its leader's word.
func (w *World) holders(id shard.ID) (nodes []*node) {
	for _, r := range w.leader(id).host.Members(id) {
		if n := w.node(r.Node); n.life != 0 {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// leader returns the live node that leads a group in the newest term, nil for none.
func (w *World) leader(id shard.ID) *node {
	g := w.checks.groups[id]
	if g.leader == 0 {
		return nil
	}
	if n := w.node(g.leader); n.life != 0 && n.host.Leads(id) {
		return n
	}
	return nil
}

// unrest says what has not come to rest yet; empty when everything has, and the replicas are equal.
func (w *World) unrest() string {
	for _, c := range w.clients {
		if c.busy != nil {
			return fmt.Sprintf("client %d waits for the answer to %s", c.id, c.busy.what)
		}
		if n := len(c.beside); n > 0 {
			return fmt.Sprintf("client %d waits for the answers to %d second requests under a key", c.id, n)
		}
	}
	if why := w.unsettled(); why != "" {
		return why
	}
	for _, id := range w.groups {
		leader := w.leader(id)
		if leader == nil {
			return fmt.Sprintf("%s has no leader", id)
		}
		m, index := leader.machine(id)
		if m == nil {
			return fmt.Sprintf("%s has no state on its leader", id)
		}
		if out := m.Outbox(); len(out) > 0 {
			return fmt.Sprintf("%s has %d messages to deliver, the first to %s about %s", id, len(out), out[0].To, out[0].Key)
		}
		for _, n := range w.live() {
			if n.reactor.Leads(id) && !n.host.Leads(id) {
				return fmt.Sprintf("node %d delivers the outbox of %s, which node %d leads", n.id, id, leader.id)
			}
		}
		for _, n := range w.holders(id) {
			if other, at := n.machine(id); other == nil || at != index {
				return fmt.Sprintf("%s: node %d is at %d, its leader, node %d, at %d", id, n.id, at, leader.id, index)
			}
		}
	}
	b := w.books()
	for _, s := range b.orders {
		if order.Open(s) {
			return fmt.Sprintf("order %s is %s, its payment %s", s.Id, order.StateName(s.State), order.PaymentStatus(s))
		}
	}
	for _, h := range b.holds {
		if h.State == inventory.Tentative {
			return fmt.Sprintf("hold %s is tentative", h.Id)
		}
	}
	return ""
}

// operate is the operator: steps that are stuck are tried again, every second.
func (w *World) operate() {
	w.after(second, nil, "operator", func() {
		w.operate()
		w.takeBack()
		live := w.live()
		if len(live) == 0 {
			return
		}
		n := live[w.faults.below(len(live))]
		for _, id := range w.groups {
			leader := w.leader(id)
			if leader == nil {
				continue
			}
			m, _ := leader.machine(id)
			if m == nil {
				continue
			}
			send := func(c encoder) {
				n.router.propose(id, shard.Command{Kind: shard.KindLogic, Payload: encode(c)}, false, true, w.now+deliveryTimeout, func(shard.Result, error) {})
			}
			switch id.Service() {
			case shard.Order:
				for _, o := range scanOrders(m) {
					for _, s := range o.Stored.Stuck {
						w.hit(probeStuck)
						send(&orderpb.Command{Body: &orderpb.Command_RetryStep{RetryStep: &orderpb.RetryStep{Id: o.Stored.Id, Seq: s.Seq, Operator: "sim"}}})
					}
				}
			case shard.Payment:
				for _, p := range scanPayments(m) {
					for _, op := range p.Ops {
						if op.Stuck {
							w.hit(probeStuck)
							send(&paymentpb.Command{Body: &paymentpb.Command_Retry{Retry: &paymentpb.RetryOp{PaymentId: p.Id, Op: op.Id}}})
						}
					}
				}
			}
		}
		n.wake()
	})
}

type decoder[T any] interface {
	*T
	UnmarshalVT([]byte) error
}

// ask queries a machine directly. Between two entries it changes nothing.
func ask[T any, P decoder[T]](m shard.Machine, query encoder) P {
	r := m.Query(encode(query))
	v := P(new(T))
	if err := v.UnmarshalVT(r.Payload); err != nil || r.Code != "" {
		panic(fmt.Sprintf("query %v: %q %v", query, r.Code, err))
	}
	return v
}

// page is how many rows are asked for at once.
const page = 1000

func scanOrders(m shard.Machine) (all []*orderpb.ScannedOrder) {
	after := ""
	for {
		s := ask[orderpb.OrderScan](m, &orderpb.Query{Body: &orderpb.Query_Scan{Scan: &orderpb.ScanOrders{After: after, Limit: page, MaxBytes: 4 << 20}}})
		all = append(all, s.Orders...)
		if !s.More {
			return all
		}
		after = s.Orders[len(s.Orders)-1].Stored.Id
	}
}

func scanPayments(m shard.Machine) (all []*paymentpb.Payment) {
	after := ""
	for {
		s := ask[paymentpb.PaymentList](m, &paymentpb.Query{Body: &paymentpb.Query_Scan{Scan: &paymentpb.ScanPayments{After: after, Limit: page}}})
		all = append(all, s.Payments...)
		if !s.More {
			return all
		}
		after = s.Payments[len(s.Payments)-1].Id
	}
}

func scanHolds(m shard.Machine) (all []*inventorypb.Hold) {
	after := ""
	for {
		s := ask[inventorypb.HoldList](m, &inventorypb.Query{Body: &inventorypb.Query_Holds{Holds: &inventorypb.ScanHolds{After: after, Limit: page}}})
		all = append(all, s.Holds...)
		if !s.More {
			return all
		}
		after = s.Holds[len(s.Holds)-1].Id
	}
}

func scanMovements(m shard.Machine) (all []*inventorypb.Movement) {
	after := uint64(0)
	for {
		s := ask[inventorypb.MovementList](m, &inventorypb.Query{Body: &inventorypb.Query_Movements{Movements: &inventorypb.ListMovements{After: after, Limit: page}}})
		all = append(all, s.Movements...)
		if !s.More {
			return all
		}
		after = s.Movements[len(s.Movements)-1].Seq
	}
}

// books is what the services say at the end.
type books struct {
	orders    []*orderpb.Order
	folded    map[string]*orderpb.Order // of those whose fold differs
	events    map[string][]*orderpb.Event
	payments  map[string]*paymentpb.Payment
	items     []*inventorypb.Item
	holds     []*inventorypb.Hold
	holdShard map[*inventorypb.Hold]uint32
	movements map[string]int64
}

// books reads all services at their leaders.
func (w *World) books() *books {
	b := &books{
		folded: make(map[string]*orderpb.Order), payments: make(map[string]*paymentpb.Payment), movements: make(map[string]int64),
		events: make(map[string][]*orderpb.Event), holdShard: make(map[*inventorypb.Hold]uint32),
	}
	for _, id := range w.groups {
		leader := w.leader(id)
		if leader == nil {
			continue
		}
		m, _ := leader.machine(id)
		if m == nil {
			continue
		}
		switch id.Service() {
		case shard.Order:
			for _, s := range scanOrders(m) {
				b.orders = append(b.orders, s.Stored)
				if s.Folded != nil {
					b.folded[s.Stored.Id] = s.Folded
				}
			}
		case shard.Payment:
			for _, p := range scanPayments(m) {
				b.payments[p.Id] = p
			}
		case shard.Inventory:
			b.items = append(b.items, ask[inventorypb.ItemList](m, &inventorypb.Query{Body: &inventorypb.Query_Items{Items: &inventorypb.ScanItems{Limit: page}}}).Items...)
			for _, h := range scanHolds(m) {
				b.holds = append(b.holds, h)
				b.holdShard[h] = uint32(id.Index())
			}
			for _, v := range scanMovements(m) {
				b.movements[v.Sku] += v.Quantity
			}
		}
	}
	return b
}

// audit compares, at rest, the books of all services with one another, with the provider's and with what clients were told.
func (w *World) audit() {
	for _, id := range w.groups {
		var index, hash uint64
		leads := w.leader(id)
		for _, n := range w.holders(id) {
			if !slices.Equal(n.host.Members(id), leads.host.Members(id)) {
				w.fail("membership", "%s: node %d has members %v at the end, its leader, node %d, %v", id, n.id, n.host.Members(id), leads.id, leads.host.Members(id))
			}
			m, at := n.machine(id)
			if h := m.Hash(); index == 0 {
				index, hash = at, h
			} else if at == index && h != hash {
				w.fail("replica equality", "%s: node %d has another state at index %d at the end", id, n.id, at)
			}
			w.mix(hash)
		}
	}
	b := w.books()
	w.auditOrders(b)
	w.auditMoney(b)
	w.auditStock(b)
	w.history.check(w)
}

func (w *World) auditOrders(b *books) {
	byKey, carriedOut := make(map[string]string), make(map[string]string)
	known := make(map[string]*orderpb.Order)
	for _, o := range b.orders {
		known[o.Id] = o
		if other, ok := byKey[o.MerchantReference]; ok {
			w.fail("idempotency", "orders %s and %s were placed under one key, %s", other, o.Id, o.MerchantReference)
		}
		byKey[o.MerchantReference] = o.Id
		// Paid for is what has been told so, with the provider's reference. A void may have to send an authorization that nobody else has sent, to give it back.
		if key := strings.TrimSuffix(o.MerchantReference, secondMark); o.ProviderReference != "" || o.Total == 0 && o.State != order.Rejected {
			if other, ok := carriedOut[key]; ok {
				w.fail("idempotency", "orders %s and %s, of two requests under key %s, both went through", other, o.Id, key)
			}
			carriedOut[key] = o.Id
		}
		if o.Reason == reject.KeyReused {
			w.hit(probeKeyRefused)
		}
		if _, ok := w.checks.placed[o.MerchantReference]; !ok {
			w.fail("phantom order", "order %s is there and nobody placed it", o.Id)
		}
		if f := b.folded[o.Id]; f != nil {
			w.fail("fold", "order %s is stored as %v, its events make %v", o.Id, o, f)
		}
		w.auditHistory(o)
		switch o.State {
		case order.Rejected:
			w.hit(probeRejected)
		case order.Canceled:
			w.hit(probeCanceled)
		case order.Expired:
			w.hit(probeExpired)
		case order.Confirmed:
			w.hit(probeConfirmed)
		case order.Fulfilled:
			w.hit(probeFulfilled)
		}
		if len(o.Returns) > 0 {
			w.hit(probeReturned)
		}
		if o.Refunded > 0 {
			w.hit(probeRefunded)
		}
		if order.Ended(o.State) && o.Voided > 0 {
			w.hit(probeCompensationAfterCharge)
		}
	}
	for _, o := range w.orders {
		stored := known[o.id]
		if stored == nil {
			w.fail("lost order", "order %s (%s) was acknowledged at index %d and is not there", o.id, o.key, o.position)
			return
		}
		if stored.Revision < o.revision {
			w.fail("lost order", "order %s is at revision %d, an answer named %d", o.id, stored.Revision, o.revision)
		}
		refused := o.told == order.Rejected || o.told == order.Expired
		isRefused := stored.State == order.Rejected || stored.State == order.Expired
		if o.told != order.None && refused != isRefused {
			w.fail("terminal state", "order %s was answered as %s and is %s", o.id, order.StateName(o.told), order.StateName(stored.State))
		}
		for _, l := range stored.Lines {
			if o.canceled && l.Canceled+l.Fulfilled < l.Quantity {
				w.fail("lost cancel", "a cancel of order %s was accepted; it is %s and line %d has %d open", o.id, order.StateName(stored.State), l.No, l.Quantity-l.Canceled-l.Fulfilled)
			}
		}
	}
}

// auditHistory checks an order's events: one end, and compensation in reverse order.
func (w *World) auditHistory(o *orderpb.Order) {
	sl := slotOfOrder(o.Id)
	id := w.plan.Layout.Shard(shard.Order, sl)
	m, _ := w.leader(id).machine(id)
	list := ask[orderpb.EventList](m, &orderpb.Query{Body: &orderpb.Query_Events{Events: &orderpb.ListEvents{Id: o.Id}}})
	if len(list.Events) != int(o.Revision) {
		w.fail("fold", "order %s is at revision %d and has %d events", o.Id, o.Revision, len(list.Events))
	}
	ended, voiding, voided, asked, unheld := 0, false, false, false, len(o.Legs)
	for i, e := range list.Events {
		if i > 0 && list.Positions[i] <= list.Positions[i-1] {
			w.fail("fold", "order %s: event %d is at position %d, not after %d", o.Id, e.Version, list.Positions[i], list.Positions[i-1])
		}
		switch d := e.Detail.(type) {
		case *orderpb.Event_Ended:
			if ended++; ended > 1 {
				w.fail("terminal state", "order %s has ended twice, last as %s", o.Id, order.StateName(d.Ended.State))
			}
		case *orderpb.Event_StockReserved:
			unheld--
		case *orderpb.Event_PaymentAuthorized:
			asked = true
			if voiding {
				w.hit(probeLateAuthorization)
			} else if unheld > 0 {
				w.hit(probePaidAhead)
			}
		case *orderpb.Event_CancelRequested, *orderpb.Event_ExpireRequested:
			voiding = true
		case *orderpb.Event_PaymentVoided:
			if voided = true; unheld > 0 && d.PaymentVoided.Amount > 0 {
				w.hit(probeAheadTakenBack)
			}
		case *orderpb.Event_StockReleased:
			if asked && !voided {
				w.fail("compensation order", "order %s released its stock before its payment was voided", o.Id)
			}
		case *orderpb.Event_CaptureFailed:
			w.hit(probeOnHold)
		}
	}
	if order.Ended(o.State) != (ended == 1) {
		w.fail("terminal state", "order %s is %s and has ended %d times", o.Id, order.StateName(o.State), ended)
	}
}

// auditMoney compares order, payment and provider.
func (w *World) auditMoney(b *books) {
	seen := make(map[string]bool)
	for _, o := range b.orders {
		if o.Total == 0 {
			continue
		}
		seen[o.PaymentId] = true
		acc := w.provider.accounts[o.PaymentId]
		if acc == nil {
			acc = &account{}
		}
		p := b.payments[o.PaymentId]
		at := fmt.Sprintf("order %s (%s): order %d/%d/%d/%d, provider %d/%d/%d/%d (authorized, captured, voided, refunded)", o.Id, order.StateName(o.State),
			o.Authorized, o.Captured, o.Voided, o.Refunded, acc.authorized, acc.captured, acc.voided, acc.refunded)
		if p != nil && (p.Authorized != acc.authorized || p.Captured != acc.captured || p.Voided != acc.voided || p.Refunded != acc.refunded) {
			w.fail("money", "payment %s has %d/%d/%d/%d; %s", p.Id, p.Authorized, p.Captured, p.Voided, p.Refunded, at)
		}
		switch {
		case p == nil && acc.authorizations > 0:
			w.fail("money", "the provider knows a payment that the payment service does not; %s", at)
		case o.Captured != acc.captured || o.Refunded != acc.refunded:
			w.fail("money", "%s", at)
		case order.Ended(o.State) && acc.authorized-acc.voided != 0:
			w.fail("money", "money is kept for an order that has ended; %s", at)
		case !order.Ended(o.State) && acc.authorizations != 1:
			w.fail("one charge", "the provider has %d authorizations of a confirmed order; %s", acc.authorizations, at)
		case !order.Ended(o.State) && acc.authorized != o.Total:
			w.fail("one charge", "%d were authorized of %d; %s", acc.authorized, o.Total, at)
		case o.State == order.Fulfilled && acc.authorized != acc.captured+acc.voided:
			w.fail("money", "nothing is left to capture and %d are kept; %s", acc.authorized-acc.captured-acc.voided, at)
		}
		if ops := p.GetOps(); len(ops) > 1 && ops[1].Kind == paymentpb.OpKind_VOID && ops[1].CreatedAt == ops[0].CreatedAt {
			w.hit(probeVoidAsked)
		}
		for _, op := range p.GetOps() {
			if op.Attempts > 1 {
				w.hit(probeUnknownPayment)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.provider.accounts)) {
		if acc := w.provider.accounts[id]; !seen[id] && acc.authorized != acc.voided {
			w.fail("money", "the provider has charged payment %s of order %s, which is not there", id, acc.order)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.payments)) {
		if payment.IsStuck(b.payments[id]) {
			w.fail("money", "payment %s is stuck at the end", id)
		}
	}
}

// auditStock recomputes every counter.
func (w *World) auditStock(b *books) {
	type sums struct{ reserved, tentative, allocated, fulfilled, restocked int64 }
	bySKU := make(map[string]*sums)
	of := func(sku string) *sums {
		if bySKU[sku] == nil {
			bySKU[sku] = new(sums)
		}
		return bySKU[sku]
	}
	orders := make(map[string]*orderpb.Order)
	for _, o := range b.orders {
		orders[o.Id] = o
	}
	holds := make(map[string]*inventorypb.Hold)
	for _, h := range b.holds {
		holds[fmt.Sprint(h.Id, " ", b.holdShard[h])] = h
		for _, l := range h.Lines {
			rest := l.Quantity - l.Fulfilled - l.Released
			switch h.State {
			case inventory.Tentative:
				of(l.Sku).reserved += rest
				of(l.Sku).tentative += rest
			case inventory.Held:
				of(l.Sku).reserved += rest
			case inventory.Allocated:
				of(l.Sku).allocated += rest
			}
			of(l.Sku).fulfilled += l.Fulfilled
			of(l.Sku).restocked += l.Restocked
		}
		o := orders[h.Id]
		switch h.State {
		case inventory.Void:
			w.hit(probeReleaseBeforeReserve)
		case inventory.Expired:
			if h.FreeStanding {
				w.hit(probeHoldExpired)
			} else if o == nil {
				w.hit(probeNotPlaced)
			}
		}
		keeps := h.State == inventory.Held || h.State == inventory.Allocated || h.State == inventory.Tentative
		switch {
		case !h.FreeStanding && o == nil && h.State != inventory.Expired:
			w.fail("leaked hold", "hold %s is %s and of an order that is not there", h.Id, inventory.StateName(h.State))
		case !keeps:
		case h.FreeStanding && h.Due > 0 && h.Due < w.millis()-60_000:
			w.fail("leaked hold", "reservation %s was due %d ms ago", h.Id, w.millis()-h.Due)
		case !h.FreeStanding && order.Ended(o.State):
			w.fail("leaked hold", "order %s is %s and its hold is %s", o.Id, order.StateName(o.State), inventory.StateName(h.State))
		case !h.FreeStanding && h.State != inventory.Allocated:
			w.fail("leaked hold", "order %s is %s and its hold is not allocated", o.Id, order.StateName(o.State))
		}
	}
	for _, i := range b.items {
		s := of(i.Sku)
		if i.Reserved != s.reserved || i.Tentative != s.tentative || i.Allocated != s.allocated {
			w.fail("stock", "%s: reserved %d, tentative %d, allocated %d; its holds add up to %d, %d and %d",
				i.Sku, i.Reserved, i.Tentative, i.Allocated, s.reserved, s.tentative, s.allocated)
		}
		if want := b.movements[i.Sku] - s.fulfilled + s.restocked; i.OnHand != want {
			w.fail("stock", "%s: on hand %d; movements %d, fulfilled %d and restocked %d make %d", i.Sku, i.OnHand, b.movements[i.Sku], s.fulfilled, s.restocked, want)
		}
		if inventory.Available(i) < 0 {
			w.fail("stock", "%s: oversold by %d", i.Sku, -inventory.Available(i))
		}
	}
	for _, sku := range slices.Sorted(maps.Keys(w.checks.moved)) {
		if got := b.movements[sku]; got != w.checks.moved[sku] {
			w.fail("stock", "%s: %d were received and adjusted, the movements add up to %d", sku, w.checks.moved[sku], got)
		}
	}
	// What orders say they have, hold by hold.
	for _, o := range b.orders {
		if order.Ended(o.State) {
			continue
		}
		for _, leg := range o.Legs {
			h := holds[fmt.Sprint(o.Id, " ", leg.Shard)]
			if h == nil {
				w.fail("stock", "order %s is %s and has no hold in inventory shard %d", o.Id, order.StateName(o.State), leg.Shard)
				continue
			}
			var open, fulfilled, held, out int64
			for _, l := range o.Lines {
				if !l.Untracked && w.plan.Layout.InventoryOf(l.Sku) == leg.Shard {
					open += l.Quantity - l.Canceled - l.Fulfilled
					fulfilled += l.Fulfilled
				}
			}
			for _, l := range h.Lines {
				out += l.Fulfilled
				held += l.Quantity - l.Fulfilled - l.Released
			}
			if open != held || fulfilled != out {
				w.fail("stock", "order %s (%s): %d units open and %d fulfilled, its hold %d and %d", o.Id, order.StateName(o.State), open, fulfilled, held, out)
			}
		}
	}
}

// describe adds to the story what has not come to rest.
func (w *World) describe() {
	for _, id := range w.groups {
		leader := w.leader(id)
		if leader == nil {
			w.tell("%s: no leader", id)
			continue
		}
		m, index := leader.machine(id)
		if m == nil {
			continue
		}
		for _, msg := range m.Outbox() {
			w.tell("%s at %d on node %d (clock %d): message %d to %s about %s, created %d, not before %d: %x", id, index, leader.id, leader.wall()-epoch,
				msg.Seq, msg.To, msg.Key, msg.Created.Millis()-epoch, msg.NotBefore.Millis()-epoch, msg.Payload)
		}
	}
	b := w.books()
	for _, o := range b.orders {
		if order.Open(o) {
			w.tell("%v", o)
			w.tell("%v", b.payments[o.PaymentId])
		}
	}
}
