package rest

import (
	"cmp"
	"net/http"

	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/id"
	"hanse/internal/reject"
)

func appendPayment(e *encoder, p *paymentpb.Payment) {
	e.open('{')
	e.str("id", p.Id)
	e.str("order_id", p.OrderId)
	e.str("currency", p.Currency)
	e.str("method", p.Method)
	e.int("requested", p.Requested)
	e.int("authorized", p.Authorized)
	e.int("captured", p.Captured)
	e.int("refunded", p.Refunded)
	e.int("voided", p.Voided)
	e.key("operations")
	e.open('[')
	for _, op := range p.Ops {
		e.open('{')
		e.str("id", op.Id)
		e.str("kind", nameOf(opKinds, op.Kind))
		e.str("state", nameOf(opStates, op.State))
		e.int("amount", op.Amount)
		e.int("attempts", int64(op.Attempts))
		e.opt("code", op.Code)
		e.opt("provider_reference", op.ProviderReference)
		e.bool("stuck", op.Stuck)
		e.time("next_try", op.NextTry)
		e.time("created_at", op.CreatedAt)
		e.time("finished_at", op.FinishedAt)
		e.close('}')
	}
	e.close(']')
	e.opt("provider_reference", p.ProviderReference)
	e.int("revision", int64(p.Revision))
	e.time("created_at", p.CreatedAt)
	e.time("updated_at", p.UpdatedAt)
	e.close('}')
}

func (c *call) payment(a Answer[*paymentpb.Payment]) error {
	circumstances(c, a)
	c.orderID = a.Value.OrderId
	return c.json(http.StatusOK, func(e *encoder) { appendPayment(e, a.Value) })
}

func (s *server) getPayment(c *call) error {
	k, err := c.consistency()
	if err != nil {
		return err
	}
	a, err := s.backend.Payment(c.ctx, c.r.PathValue("id"), k)
	if err != nil {
		return err
	}
	return c.payment(a)
}

func (s *server) listPayments(c *call) error {
	n := s.backend.ShardCounts()["payment"]
	shard, err := number("shard", c.query("shard"), 0, 0, uint64(max(n-1, 0)))
	if err != nil {
		return err
	}
	limit, err := c.limit()
	if err != nil {
		return err
	}
	stuck, err := c.flag("stuck")
	if err != nil {
		return err
	}
	cursor := c.query("cursor")
	if _, err := id.Parse(id.Payment, cursor); cursor != "" && err != nil {
		return refuse(reject.InvalidID, "cursor", err.Error())
	}
	return s.paymentPage(c, int(shard), cmp.Or(cursor, c.query("after")), limit, stuck)
}

func (s *server) scanPayments(c *call) error {
	shard, after, limit, err := c.scan("payment")
	if err != nil {
		return err
	}
	return s.paymentPage(c, shard, after, limit, false)
}

func (s *server) paymentPage(c *call, shard int, after string, limit int, stuck bool) error {
	a, err := s.backend.ScanPayments(c.ctx, shard, after, limit, stuck)
	if err != nil {
		return err
	}
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("payments")
		e.open('[')
		for _, p := range a.Value.Payments {
			appendPayment(e, p)
		}
		e.close(']')
		e.bool("has_more", a.Value.More)
		if n := len(a.Value.Payments); a.Value.More && n > 0 {
			e.str("next_cursor", a.Value.Payments[n-1].Id)
		}
		e.close('}')
	})
}

func (s *server) retryOperation(c *call) error {
	data, r, err := c.prepare(false)
	if err != nil {
		return err
	}
	if _, err := decodeRetry(data); err != nil {
		return err
	}
	a, err := s.backend.RetryOp(c.ctx, r, &paymentpb.RetryOp{PaymentId: c.r.PathValue("id"), Op: c.r.PathValue("op")})
	if err != nil {
		return err
	}
	return c.payment(a)
}

func (s *server) resolveOperation(c *call) error {
	data, r, err := c.prepare(false)
	if err != nil {
		return err
	}
	m, err := decodeResolveOperation(data)
	if err != nil {
		return err
	}
	m.PaymentId, m.Op = c.r.PathValue("id"), c.r.PathValue("op")
	a, err := s.backend.ResolveOp(c.ctx, r, m)
	if err != nil {
		return err
	}
	return c.payment(a)
}

// providerCallback believes nothing that it is told but the payment's name: the provider is asked.
func (s *server) providerCallback(c *call) error {
	data, err := c.read()
	if err != nil {
		return err
	}
	id, err := decodeCallback(data)
	if err != nil {
		return err
	}
	if err := s.backend.WakePayment(c.ctx, id); err != nil {
		return err
	}
	c.send(http.StatusAccepted, "", []byte("{}"))
	return nil
}

func decodeCallback(data []byte) (paymentID string, err error) {
	b := newBody(data)
	b.object([]string{"payment_id", "operation", "type"}, func(i int) {
		if v := b.text(maxName); i == 0 {
			paymentID = v
		}
	})
	b.missing(paymentID != "", reject.InvalidRequest, "payment_id")
	return paymentID, b.done()
}

func decodeResolveOperation(data []byte) (*paymentpb.ResolveOp, error) {
	b, m := newBody(data), &paymentpb.ResolveOp{}
	hasOutcome := false
	b.object([]string{"succeeded", "evidence", "operator"}, func(i int) {
		switch i {
		case 0:
			hasOutcome = true
			m.Succeeded = b.bool()
		case 1:
			m.Evidence = b.text(maxEvidence)
		case 2:
			m.Operator = b.text(maxName)
		}
	})
	b.missing(hasOutcome, reject.InvalidRequest, "succeeded")
	b.missing(m.Evidence != "", reject.InvalidRequest, "evidence")
	return m, b.done()
}

// decodeRetry reads a [RetryRequest]; no body is the same as an empty one.
func decodeRetry(data []byte) (operator string, err error) {
	if len(data) == 0 {
		return "", nil
	}
	b := newBody(data)
	b.object([]string{"operator"}, func(int) { operator = b.text(maxName) })
	return operator, b.done()
}

func decodeResolveStep(data []byte) (*orderpb.ResolveStep, error) {
	b, m := newBody(data), &orderpb.ResolveStep{}
	b.object([]string{"decision", "evidence", "operator"}, func(i int) {
		switch i {
		case 0:
			if m.Decision = b.str(); b.err == nil && m.Decision != "retry" && m.Decision != "skip" && m.Decision != "done" {
				b.wrong(reject.InvalidRequest, "want retry, skip or done")
			}
		case 1:
			m.Evidence = b.text(maxEvidence)
		case 2:
			m.Operator = b.text(maxName)
		}
	})
	b.missing(m.Decision != "", reject.InvalidRequest, "decision")
	b.missing(m.Evidence != "" || m.Decision == "retry", reject.InvalidRequest, "evidence")
	return m, b.done()
}
