package rest

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"hanse/api/orderpb"
	"hanse/internal/reject"
)

func (s *server) placeOrder(c *call) error {
	data, r, err := c.prepare(true)
	if err != nil {
		return err
	}
	p, err := decodePlace(data)
	if err != nil {
		return err
	}
	wait := c.wait()
	a, err := s.backend.Place(c.ctx, r, p, wait)
	return c.settled(a, err, http.StatusCreated, wait)
}

// settled answers with an order whose saga was waited for. When it goes on, the first request gets 202 and the order to
// look at; a retry that has waited in vain gets 409, so that who repeats a request until it is answered knows that it is not.
func (c *call) settled(a Answer[*orderpb.Order], err error, status int, wait time.Duration) error {
	circumstances(c, a)
	switch {
	case err != nil:
		return &failed{err, a.Value}
	case a.Pending && a.Replayed && wait > 0:
		return &failed{&reject.Failure{Code: reject.KeyInProgress, RetryAfter: time.Second,
			Detail: "the order of the first request with this key is still on its way after " + wait.String()}, a.Value}
	case a.Pending:
		status = http.StatusAccepted
	}
	return c.order(a, status)
}

func (c *call) order(a Answer[*orderpb.Order], status int) error {
	o := a.Value
	c.orderID = o.Id
	circumstances(c, a)
	h := c.w.Header()
	h["Etag"] = []string{etag(o.Revision)}
	if status == http.StatusCreated || status == http.StatusAccepted {
		h["Location"] = []string{"/v1/orders/" + o.Id}
	}
	return c.json(status, func(e *encoder) { appendOrder(e, o, true) })
}

func (s *server) listOrders(c *call) error {
	customer := c.query("customer_id")
	if customer == "" {
		return refuse(reject.InvalidRequest, "customer_id", "say whose orders: ?customer_id=...")
	}
	limit, err := c.limit()
	if err != nil {
		return err
	}
	k, err := c.consistency()
	if err != nil {
		return err
	}
	a, err := s.backend.OrdersOf(c.ctx, customer, c.query("cursor"), limit, k)
	if err != nil {
		return err
	}
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("orders")
		e.open('[')
		for _, o := range a.Value.Orders {
			appendOrder(e, o, true)
		}
		e.close(']')
		e.bool("has_more", a.Value.More)
		if n := len(a.Value.Orders); a.Value.More && n > 0 {
			e.str("next_cursor", a.Value.Orders[n-1].Id)
		}
		e.close('}')
	})
}

func (s *server) getOrder(c *call) error {
	version, err := number("version", c.query("version"), 0, 1, 1<<62)
	if err != nil {
		return err
	}
	k, err := c.consistency()
	if err != nil {
		return err
	}
	var expand []string
	if v := c.query("expand"); v != "" {
		expand = strings.Split(v, ",")
	}
	for _, what := range expand {
		if what != "payment" && what != "events" {
			return refuse(reject.InvalidRequest, "expand", "want payment, events or both, separated by a comma")
		}
	}
	id := c.r.PathValue("id")
	a, err := s.backend.Order(c.ctx, id, version, k)
	if err != nil {
		return err
	}
	o := a.Value
	withPayment := slices.Contains(expand, "payment") && o.PaymentId != ""
	// The revision is the order's: its payment may have changed without it.
	if tag := etag(o.Revision); !withPayment && noneMatch(c.r.Header["If-None-Match"], tag) {
		circumstances(c, a)
		c.w.Header()["Etag"] = []string{tag}
		c.send(http.StatusNotModified, "", nil)
		return nil
	}
	if len(expand) == 0 {
		return c.order(a, http.StatusOK)
	}
	var events Answer[*orderpb.EventList]
	if slices.Contains(expand, "events") {
		if events, err = s.backend.OrderEvents(c.ctx, id, Consistency{AtLeast: a.Mark}); err != nil {
			return err
		}
	}
	e := encoder{b: c.buffer()}
	beginOrder(&e, o, !withPayment)
	if withPayment {
		p, err := s.backend.Payment(c.ctx, o.PaymentId, Consistency{})
		if err != nil {
			return err
		}
		e.key("payment")
		appendPayment(&e, p.Value)
	}
	if events.Value != nil {
		appendEvents(&e, events.Value)
	}
	e.close('}')
	circumstances(c, a)
	c.w.Header()["Etag"] = []string{etag(o.Revision)}
	c.send(http.StatusOK, "", e.b)
	return nil
}

// noneMatch says whether If-None-Match names the tag, by the weak comparison of RFC 9110, section 13.1.2.
func noneMatch(headers []string, tag string) bool {
	for _, h := range headers {
		for one := range strings.SplitSeq(h, ",") {
			if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == tag {
				return true
			}
		}
	}
	return false
}

func appendEvents(e *encoder, list *orderpb.EventList) {
	e.key("events")
	e.open('[')
	for i, ev := range list.Events {
		appendEvent(e, list.Positions[i], ev)
	}
	e.close(']')
}

func (s *server) orderEvents(c *call) error {
	k, err := c.consistency()
	if err != nil {
		return err
	}
	a, err := s.backend.OrderEvents(c.ctx, c.r.PathValue("id"), k)
	if err != nil {
		return err
	}
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		appendEvents(e, a.Value)
		e.close('}')
	})
}

func (s *server) explainOrder(c *call) error {
	k, err := c.consistency()
	if err != nil {
		return err
	}
	id := c.r.PathValue("id")
	o, err := s.backend.Order(c.ctx, id, 0, k)
	if err != nil {
		return err
	}
	a, err := s.backend.OrderEvents(c.ctx, id, Consistency{AtLeast: o.Mark})
	if err != nil {
		return err
	}
	shard, _, _ := strings.Cut(string(a.Mark), ":")
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.str("order_id", id)
		e.str("summary", summary(o.Value))
		e.key("story")
		e.open('[')
		n := newNarrator(o.Value.Currency)
		for i, ev := range a.Value.Events {
			cause, text := n.tell(ev)
			e.open('{')
			e.int("version", int64(ev.Version))
			e.str("position", shard+":"+uintString(a.Value.Positions[i]))
			e.time("timestamp", ev.At)
			e.str("type", eventType(ev))
			e.str("cause", cause)
			e.str("text", text)
			e.close('}')
		}
		e.close(']')
		e.close('}')
	})
}

func (s *server) cancelOrder(c *call) error {
	data, r, err := c.prepare(true)
	if err != nil {
		return err
	}
	m, err := decodeCancel(data)
	if err != nil {
		return err
	}
	if m.IfRevision, err = c.ifMatch(); err != nil {
		return err
	}
	m.Id = c.r.PathValue("id")
	wait := c.wait()
	a, err := s.backend.Cancel(c.ctx, r, m, wait)
	return c.settled(a, err, http.StatusOK, wait)
}

func (s *server) fulfillOrder(c *call) error {
	data, r, err := c.prepare(true)
	if err != nil {
		return err
	}
	m, err := decodeFulfill(data)
	if err != nil {
		return err
	}
	if m.IfRevision, err = c.ifMatch(); err != nil {
		return err
	}
	m.Id = c.r.PathValue("id")
	a, err := s.backend.Fulfill(c.ctx, r, m)
	if err != nil {
		return err
	}
	return c.order(a, http.StatusCreated)
}

func (s *server) returnItems(c *call) error {
	data, r, err := c.prepare(true)
	if err != nil {
		return err
	}
	m, err := decodeReturn(data)
	if err != nil {
		return err
	}
	if m.IfRevision, err = c.ifMatch(); err != nil {
		return err
	}
	m.Id = c.r.PathValue("id")
	a, err := s.backend.Return(c.ctx, r, m)
	if err != nil {
		return err
	}
	return c.order(a, http.StatusCreated)
}

func (s *server) refundOrder(c *call) error {
	data, r, err := c.prepare(true)
	if err != nil {
		return err
	}
	m, err := decodeRefund(data)
	if err != nil {
		return err
	}
	if m.IfRevision, err = c.ifMatch(); err != nil {
		return err
	}
	m.Id = c.r.PathValue("id")
	a, err := s.backend.Refund(c.ctx, r, m)
	if err != nil {
		return err
	}
	return c.order(a, http.StatusCreated)
}

func (s *server) listSagas(c *call) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	stuck, err := c.flag("stuck")
	if err != nil {
		return err
	}
	a, err := s.backend.Sagas(c.ctx, stuck, c.query("cursor"), limit)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("sagas")
		e.open('[')
		for _, o := range a.Value.Orders {
			appendSaga(e, o)
		}
		e.close(']')
		e.bool("has_more", a.Value.More)
		if n := len(a.Value.Orders); a.Value.More && n > 0 {
			e.str("next_cursor", a.Value.Orders[n-1].Id)
		}
		e.close('}')
	})
}

func (s *server) getSaga(c *call) error {
	k, err := c.consistency()
	if err != nil {
		return err
	}
	a, err := s.backend.Order(c.ctx, c.r.PathValue("id"), 0, k)
	if err != nil {
		return err
	}
	return c.saga(a)
}

func (c *call) saga(a Answer[*orderpb.Order]) error {
	circumstances(c, a)
	c.orderID = a.Value.Id
	return c.json(http.StatusOK, func(e *encoder) { appendSaga(e, a.Value) })
}

func (s *server) retryStep(c *call) error {
	data, r, err := c.prepare(false)
	if err != nil {
		return err
	}
	seq, err := number("seq", c.r.PathValue("seq"), 0, 1, 1<<62)
	if err != nil {
		return err
	}
	operator, err := decodeRetry(data)
	if err != nil {
		return err
	}
	a, err := s.backend.RetryStep(c.ctx, r, &orderpb.RetryStep{Id: c.r.PathValue("id"), Seq: seq, Operator: operator})
	if err != nil {
		return err
	}
	return c.saga(a)
}

func (s *server) resolveStep(c *call) error {
	data, r, err := c.prepare(false)
	if err != nil {
		return err
	}
	seq, err := number("seq", c.r.PathValue("seq"), 0, 1, 1<<62)
	if err != nil {
		return err
	}
	m, err := decodeResolveStep(data)
	if err != nil {
		return err
	}
	m.Id, m.Seq = c.r.PathValue("id"), seq
	var a Answer[*orderpb.Order]
	if m.Decision == "retry" {
		a, err = s.backend.RetryStep(c.ctx, r, &orderpb.RetryStep{Id: m.Id, Seq: seq, Operator: m.Operator})
	} else {
		a, err = s.backend.ResolveStep(c.ctx, r, m)
	}
	if err != nil {
		return err
	}
	return c.saga(a)
}

func (s *server) scanOrders(c *call) error {
	shard, after, limit, err := c.scan("order")
	if err != nil {
		return err
	}
	a, err := s.backend.ScanOrders(c.ctx, shard, after, limit)
	if err != nil {
		return err
	}
	circumstances(c, a)
	c.send(http.StatusOK, protobuf, append(c.buffer(), a.Value...))
	return nil
}

// protobuf is the media type of what only the audit reads: events are folded as they are, not as they look in JSON.
const protobuf = "application/protobuf"

// scan reads what the audit's pages have in common.
func (c *call) scan(service string) (shard int, after string, limit int, err error) {
	n := c.s.backend.ShardCounts()[service]
	index, err := number("shard", c.r.PathValue("shard"), 0, 0, uint64(max(n-1, 0)))
	if err != nil {
		return 0, "", 0, err
	}
	limit, err = c.limit()
	return int(index), c.query("after"), limit, err
}
